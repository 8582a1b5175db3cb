"""Who asks a service for what, and when: keys of its arrivals and of what prompts are made of."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmsim.kinds.parts import ASKED
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Factor, SecondsAtLeast, Share, ShareOrNone, Tokens, TokensOrNone

Rate = Annotated[float, NUMBER, Field(ge=1e-6, le=1e7)]
Many = Annotated[int, NUMBER, Field(gt=0, le=10**7)]
SecondsOrNone = Annotated[float, NUMBER, Field(ge=0, le=1e9)]
RateOrNone = Annotated[float, NUMBER, Field(ge=0, le=1e7)]


class ArrivalsSpec(Spec):
    """When requests come."""

    process: Annotated[Literal["poisson", "gamma", "curve", "trace", "closed"], ASKED] = Field(
        description="poisson: at random; gamma: at random, in bursts as `cv` says; curve: at random in a rate that "
        "changes (a ramp, a day); trace: as recorded, or at recorded rates; closed: users who ask again when they have "
        "their answer, all of them at once at the start"
    )
    rate_per_s: Rate | Literal["most"] | None = Field(
        default=None,
        description="requests per second; required for poisson and gamma; trace: default as recorded; closed: the most "
        "that users send, one after the other in even times, by default without a limit; most: the highest rate at "
        "which `slo` is kept",
    )
    cv: Factor = Field(default=1.0, description="gamma: standard deviation of the time between two, over its mean")
    curve: tuple[tuple[SecondsOrNone, RateOrNone], ...] | None = Field(
        default=None,
        description="curve: [time in s, requests per s] points, ascending, straight lines between them; goes on from "
        "its beginning where there are more `requests`",
    )
    concurrency: Many | None = Field(default=None, description="closed: how many users")
    requests: Many | None = Field(
        default=None,
        description="of a run; default: 1000; curve: one round of it; trace: all; closed: ten for each user",
    )
    path: str | None = Field(
        default=None,
        description="trace: a file that `cmsim trace info` reads; built-in ones by path in workloads/requests",
    )
    format: str | None = Field(default=None, description="trace: of the file, where it should not be guessed")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        needs = {
            **dict.fromkeys(("poisson", "gamma"), "rate_per_s"),
            **{"curve": "curve", "trace": "path", "closed": "concurrency"},
        }[self.process]
        if getattr(self, needs) is None:
            raise ValueError(f"{needs}: required for `process: {self.process}`")
        if self.process == "closed" and self.rate_per_s == "most":
            raise ValueError("rate_per_s: most goes with an open loop; of a closed one it is what comes out")
        if self.process != "curve" and self.curve is not None:
            raise ValueError("curve: goes with `process: curve` alone")
        if self.curve is not None:
            _check_curve(self.curve)
        if self.curve is not None and self.rate_per_s is not None:
            raise ValueError("rate_per_s: the curve says it")
        if self.process != "closed" and self.concurrency is not None:
            raise ValueError("concurrency: goes with `process: closed` alone")
        if self.process != "trace" and self.format is not None:
            raise ValueError("format: goes with `process: trace` alone")
        if self.process != "gamma" and "cv" in self.model_fields_set:
            raise ValueError("cv: goes with `process: gamma` alone")
        return self

    @property
    def rate(self) -> float | None:
        """Requests per second that are drawn or replayed; where the most is sought, some to begin with."""
        if self.rate_per_s == "most":
            return None if self.process == "trace" else 1.0
        return self.rate_per_s


def _check_curve(curve: tuple[tuple[float, float], ...]) -> None:
    times = [at for at, _ in curve]
    if len(curve) < 2 or any(a >= b for a, b in itertools.pairwise(times)) or not any(r for _, r in curve):
        raise ValueError("curve: two points or more, their times ascending, not all rates 0")


class LengthsSpec(Spec):
    """How many tokens requests and answers have."""

    prompt_tokens: Tokens | None = Field(
        default=None, description="the most that a prompt has; required without a trace"
    )
    output_tokens: Tokens | None = Field(
        default=None, description="the most that an answer has; required without a trace"
    )
    least: Share = Field(
        default=1.0, description="lengths are drawn evenly between this share of them and all; 1: all are alike"
    )
    shared: ShareOrNone = Field(
        default=0.0,
        description="share of a prompt, its beginning, that all have in common; held once where "
        "`batching.prefix_share` is more than 0",
    )
    warm: bool = Field(
        default=False, description="others have asked before: what all prompts have in common is in caches already"
    )
    path: str | None = Field(
        default=None, description="a trace whose lengths are drawn with replacement, where arrivals are none of a trace"
    )
    format: str | None = Field(default=None, description="of that file, where it should not be guessed")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        said = [name for name in ("prompt_tokens", "output_tokens") if getattr(self, name) is not None]
        if self.path is not None and (said or {"least", "shared", "warm"} & self.model_fields_set):
            raise ValueError("path: lengths come from a file or from numbers, not both")
        if len(said) == 1:
            raise ValueError("prompt_tokens, output_tokens: both or none")
        if self.warm and not self.shared:
            raise ValueError("warm: goes with `shared` above 0, the share that is in caches")
        return self


class TurnsSpec(Spec):
    """Conversations: each turn brings what was said before as its prompt, and comes when the last one is answered."""

    count: Annotated[int, NUMBER, Field(ge=2, le=1000)] = Field(
        description="requests of a conversation; `lengths` are of what each brings anew, `rate_per_s` is of requests"
    )
    think_s: SecondsAtLeast = Field(
        default=10.0, description="from an answer to the next turn: drawn, exponential, of this mean"
    )


class AgentsSpec(Spec):
    """Tasks of agents: bursts of calls, each with all that was said before it, and a tool at work between two."""

    calls: Annotated[float, NUMBER, Field(ge=1, le=1000)] = Field(
        description="of a task, in the mean: drawn, geometric; `lengths` are of what each call brings anew and "
        "answers; `arrivals` are of tasks"
    )
    most: Annotated[int, NUMBER, Field(ge=1, le=10000)] = Field(default=64, description="calls that a task has at most")
    tool_s: SecondsAtLeast = Field(default=1.0, description="that a tool works: drawn, exponential, of this mean")
    instruction_tokens: TokensOrNone = Field(default=1024, description="that all tasks begin with")


class RetrievalSpec(Spec):
    """Documents that are looked up and put before a prompt."""

    documents: Many = Field(description="that there are")
    document_tokens: Tokens = Field(description="of one")
    each: Annotated[int, NUMBER, Field(ge=1, le=256)] = Field(default=1, description="documents of a prompt")
    popularity: Annotated[float, NUMBER, Field(ge=0, le=10)] = Field(
        default=1.0, description="exponent of Zipf's law over documents; 0: all alike"
    )
    instruction_tokens: TokensOrNone = Field(default=0, description="that all prompts begin with, before documents")


class CancelsSpec(Spec):
    """Users who go before their answer is there."""

    share: Share = Field(description="of requests")
    after_s: SecondsAtLeast = Field(description="from its arrival: drawn, exponential, of this mean")
