"""Traces of requests to LLM services: one module a format, found by what the files hold."""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.reading.formats import Importer, opened
from cmsim.requests import azure, bailian, burstgpt, llmservingsim, mooncake, servegen, sharegpt, vidur
from cmsim.requests.rates import RateWindows, draw_arrivals
from cmsim.requests.requests import Prefix, Requests

#: importers by name, asked in this order; a new format is one module and one line
IMPORTERS: dict[str, Importer[Requests | RateWindows]] = {
    module.NAME: Importer(module.sniff, module.open_)
    for module in (azure, burstgpt, vidur, mooncake, bailian, llmservingsim, servegen, sharegpt)
}


def open_requests(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Requests | RateWindows:
    """What a file of a request trace holds: requests, or rates of arrival where it has no more.

    format   name in `IMPORTERS`, where it should not be guessed
    limit_B  size above which an expanded file is refused [B]

    Raises InputError naming file and line.
    """
    return opened(path, IMPORTERS, of="requests", format=format, limit_B=limit_B)


def load_requests(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Requests:
    """The requests of a file, in whichever known format it is; arguments and errors as of `open_requests`.

    InputError also where the file holds rates: `draw_arrivals` makes arrivals of these, but lengths it has none.
    """
    found = open_requests(path, format=format, limit_B=limit_B)
    if isinstance(found, RateWindows):
        raise bad(path, f"holds rates of arrival ({found.format}) and no requests")
    return found


__all__ = [
    "IMPORTERS",
    "Prefix",
    "RateWindows",
    "Requests",
    "draw_arrivals",
    "load_requests",
    "open_requests",
]
