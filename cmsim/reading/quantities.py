"""Quantities as files give them: a type a unit, with the range in which a number of it means something.

The ranges are wide: what lies outside is a slip of the pen, or would leave the machine's own numbers. Above, they are
some thousand times what is built; below, so small that the part might as well not be there.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from cmsim.reading.sizes import Size


def _no_word(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a valid number")
    return value


#: true and false are no numbers
NUMBER = BeforeValidator(_no_word)

#: a number of things that are only counted: cores, links in parallel, ports
Count = Annotated[int, NUMBER, Field(gt=0, le=10**6)]
#: parts that are told apart: planes, switches of a domain
Parts = Annotated[int, NUMBER, Field(gt=0, le=2**14)]
#: which of the ranks
Rank = Annotated[int, NUMBER, Field(ge=0, lt=2**22)]
#: ranks of a job, accelerators of a system, domains of one
Places = Annotated[int, NUMBER, Field(gt=0, le=2**22)]
#: tokens, sequences or images of one batch
Tokens = Annotated[int, NUMBER, Field(gt=0, le=10**10), Size("tokens")]
TokensOrNone = Annotated[int, NUMBER, Field(ge=0, le=10**10), Size("tokens")]
#: slots for experts
Slots = Annotated[int, NUMBER, Field(ge=0, le=2**16)]
#: tokens proposed in one step
Drafts = Annotated[int, NUMBER, Field(gt=0, le=256), Size("tokens")]
#: calls, one after the other
Times = Annotated[int, NUMBER, Field(gt=0, le=10**5)]
#: where random numbers begin
Seed = Annotated[int, NUMBER, Field(ge=0, lt=2**63)]
#: sequences of an accelerator, which may share one
PerAccelerator = Annotated[float, NUMBER, Field(ge=1e-6, le=1e9)]
#: a number of things, on average
Average = Annotated[float, NUMBER, Field(ge=0, le=1e6)]
#: by how much a quantity is stretched
Factor = Annotated[float, NUMBER, Field(ge=1e-6, le=1e6)]
#: a part of a whole that cannot do without it, and one that can
Share = Annotated[float, NUMBER, Field(ge=1e-6, le=1)]
ShareOrNone = Annotated[float, NUMBER, Field(ge=0, le=1)]
#: an exponent, or a coefficient of a fit
Coefficient = Annotated[float, NUMBER, Field(ge=0, le=1e6)]

#: up to an exbibyte
Bytes = Annotated[float, NUMBER, Field(ge=0, le=2.0**60), Size("bytes")]
GigaBytes = Annotated[float, NUMBER, Field(ge=1e-6, le=1e9)]
GBps = Annotated[float, NUMBER, Field(ge=1e-6, le=1e9)]
#: in GB of 2^30 bytes
GiBps = Annotated[float, NUMBER, Field(ge=1e-6, le=9e8)]
TFLOPps = Annotated[float, NUMBER, Field(ge=1e-6, le=1e9)]
#: latencies and overheads, up to a hundred seconds
Microseconds = Annotated[float, NUMBER, Field(ge=0, le=1e8)]
MicrosecondsAtLeast = Annotated[float, NUMBER, Field(ge=1e-6, le=1e8)]
#: up to the end of the clock, which counts picoseconds in 64 bits
Seconds = Annotated[float, NUMBER, Field(ge=0, le=9e6)]
SecondsAtLeast = Annotated[float, NUMBER, Field(ge=1e-12, le=9e6)]
Nanoseconds = Annotated[float, NUMBER, Field(ge=1e-3, le=5e10)]
Watts = Annotated[float, NUMBER, Field(ge=0, le=1e7)]
WattsAtLeast = Annotated[float, NUMBER, Field(ge=1e-6, le=1e7)]
Dollars = Annotated[float, NUMBER, Field(ge=1e-6, le=1e12)]
GramsPerKWh = Annotated[float, NUMBER, Field(ge=1e-6, le=1e6)]
#: a total of any unit
Total = Annotated[float, NUMBER, Field(ge=1e-12, le=1e24)]
