"""A service under load: requests that come, wait, are batched step by step, and leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.decode import Speculative
from cmsim.kinds.kind import PER, Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import ASKED, ModelWorkloadSpec, ParallelSpec, PrecisionSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Factor, Places, SecondsAtLeast, Share, ShareOrNone, Tokens
from cmsim.reading.sizes import Size

Rate = Annotated[float, NUMBER, Field(ge=1e-6, le=1e7)]
Many = Annotated[int, NUMBER, Field(gt=0, le=10**7)]
BlockTokens = Annotated[int, NUMBER, Field(gt=0, le=65536), Size("tokens")]
MicroBatches = Annotated[int, Field(ge=1, le=2)]


class ArrivalsSpec(Spec):
    """When requests come."""

    process: Annotated[Literal["poisson", "gamma", "trace", "closed"], ASKED] = Field(
        description="poisson: at random; gamma: at random, in bursts as `cv` says; trace: as recorded, or at "
        "recorded rates; closed: users who ask again when they have their answer, all of them at once at the start"
    )
    rate_per_s: Rate | None = Field(
        default=None, description="requests per second; required for poisson and gamma; trace: default as recorded"
    )
    cv: Factor = Field(default=1.0, description="gamma: standard deviation of the time between two, over its mean")
    concurrency: Many | None = Field(default=None, description="closed: how many users")
    requests: Many | None = Field(
        default=None, description="of a run; default: 1000; trace: all; closed: ten for each user"
    )
    path: str | None = Field(
        default=None,
        description="trace: a file that `cmsim trace info` reads; built-in ones by path in workloads/requests",
    )
    format: str | None = Field(default=None, description="trace: of the file, where it should not be guessed")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        needs = {"poisson": "rate_per_s", "gamma": "rate_per_s", "trace": "path", "closed": "concurrency"}[self.process]
        if getattr(self, needs) is None:
            raise ValueError(f"{needs}: required for `process: {self.process}`")
        if self.process == "closed" and self.rate_per_s is not None:
            raise ValueError("rate_per_s: goes with an open loop; of a closed one it is what comes out")
        if self.process != "closed" and self.concurrency is not None:
            raise ValueError("concurrency: goes with `process: closed` alone")
        if self.process != "trace" and self.format is not None:
            raise ValueError("format: goes with `process: trace` alone")
        if self.process != "gamma" and "cv" in self.model_fields_set:
            raise ValueError("cv: goes with `process: gamma` alone")
        return self


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
        description="share of a prompt, its beginning, that all have in common; `batching.prefix_share` keeps it",
    )
    path: str | None = Field(
        default=None, description="a trace whose lengths are drawn with replacement, where arrivals are none of a trace"
    )
    format: str | None = Field(default=None, description="of that file, where it should not be guessed")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        said = [name for name in ("prompt_tokens", "output_tokens") if getattr(self, name) is not None]
        if self.path is not None and (said or {"least", "shared"} & self.model_fields_set):
            raise ValueError("path: lengths come from a file or from numbers, not both")
        if len(said) == 1:
            raise ValueError("prompt_tokens, output_tokens: both or none")
        return self


class TurnsSpec(Spec):
    """Conversations: each turn brings what was said before as its prompt, and comes when the last one is answered."""

    count: Annotated[int, NUMBER, Field(ge=2, le=1000)] = Field(
        description="requests of a conversation; `lengths` are of what each brings anew, `rate_per_s` is of requests"
    )
    think_s: SecondsAtLeast = Field(
        default=10.0, description="from an answer to the next turn: drawn, exponential, of this mean"
    )


class BatchingSpec(Spec):
    """How a scheduler makes steps of requests. One holds whole sequences: a rank with data-parallel attention, else a
    tensor group."""

    step_tokens: Tokens = Field(
        default=8192, description="of prompts and sequences in one step of a holder; longer prompts are cut in chunks"
    )
    sequences: Annotated[int, NUMBER, Field(gt=0, le=16384)] = Field(
        default=256, description="that a holder has begun at once, the most"
    )
    block_tokens: BlockTokens = Field(default=16, description="of a block of the cache")
    memory_share: Share = Field(default=0.9, description="of a rank's memory that the engine may use")
    spare_blocks: ShareOrNone = Field(default=0.01, description="of the cache, that no new prompt may take")
    context_tokens: Tokens | None = Field(
        default=None,
        description="that a request may have, prompt and answer; longer ones are refused. Default: no limit",
    )
    prefix_share: ShareOrNone = Field(
        default=0.0, description="of the cache, kept for beginnings that prompts of a trace share; oldest go first"
    )


class PoolSpec(Spec):
    """Replicas that do a part of the work; what is not said is as of the whole workload."""

    replicas: Places = Field(default=1, description="copies of the model")
    accelerators: Places = Field(description="packages of one replica")
    parallel: ParallelSpec | None = Field(default=None, description="how one replica's work is split over its ranks")
    precision: PrecisionSpec | None = Field(default=None, description="number formats")
    microbatches: MicroBatches | None = Field(default=None, description="2: one computes while one communicates")
    batching: BatchingSpec | None = Field(default=None, description="of this pool")


class SloSpec(Spec):
    """What users are promised."""

    ttft_s: SecondsAtLeast = Field(description="to the first token")
    tpot_s: SecondsAtLeast = Field(description="of every token after it, mean of a request")
    attainment: Share = Field(default=0.9, description="share of requests that must have both")


class ServingSpec(ModelWorkloadSpec):
    """A service under load."""

    kind: Literal["serving"]
    arrivals: ArrivalsSpec = Field(description="when requests come")
    lengths: LengthsSpec = Field(default=LengthsSpec(), description="how many tokens requests and answers have")
    turns: TurnsSpec | None = Field(default=None, description="requests come in conversations; default: each is alone")
    replicas: Places = Field(default=1, description="copies of the model")
    accelerators: Places | None = Field(
        default=None, description="packages of one replica; default: those of the system, shared out"
    )
    microbatches: MicroBatches = Field(default=1, description="2: one computes while one communicates")
    speculative: Speculative | None = Field(
        default=None, description="draft tokens verified beside the last one; a step is shared out over what it gives"
    )
    batching: BatchingSpec = Field(default=BatchingSpec(), description="how steps are made of requests")
    prefill: PoolSpec | None = Field(
        default=None, description="a pool that only makes first tokens; goes with `decode`"
    )
    decode: PoolSpec | None = Field(default=None, description="a pool that makes all others; goes with `prefill`")
    routing: Annotated[Literal["round_robin", "least_loaded", "prefix_aware"], ASKED] = Field(
        default="least_loaded",
        description="how a request finds its holder; least_loaded: where fewest are; prefix_aware: where most of its "
        "prompt was computed last, unless twice as many are there",
    )
    patience_s: SecondsAtLeast | None = Field(
        default=None, description="after which a request without its last token is given up; default: never"
    )
    slo: SloSpec | None = Field(default=None, description="what users are promised")
    goodput: bool = Field(
        default=False,
        description="also seek the highest rate at which the promise is kept; needs `slo` and an open loop",
    )
    sensitivity: bool = Field(
        default=False,
        description="also run with a fifth less and more cache and host time, and say what the first token waits then",
    )
    warm_up: ShareOrNone = Field(
        default=0.0, description="share of requests, the first ones, that do not count in percentiles"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.prefill is None) != (self.decode is None):
            raise ValueError("prefill, decode: both pools or none")
        if self.prefill is not None:
            for name in ("replicas", "accelerators"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name}: each pool has its own")
        if self.ranks is not None:
            raise ValueError("ranks: a service counts `accelerators` of a replica")
        if self.goodput and (self.slo is None or self.arrivals.process == "closed"):
            raise ValueError("goodput: needs `slo`, and arrivals of an open loop")
        if self.turns is not None and self.arrivals.process not in ("poisson", "gamma"):
            raise ValueError("turns: goes with `process: poisson` or `gamma`; traces have their own conversations")
        if self.arrivals.process != "trace" and self.lengths.path is None and self.lengths.prompt_tokens is None:
            raise ValueError("lengths: prompt_tokens and output_tokens, or path, is required without a trace")
        return self


@dataclass(frozen=True)
class ServingFacts(Facts):
    """prompt_tokens, output_tokens: of a request, mean    requests: of a run    replicas, holders: of all pools
    cache_tokens: room of one holder's cache, of the pool that decodes    steps_error: of steps between points that were
    played, the larger of the two that were tried [1]    users: of a closed loop"""

    prompt_tokens: float
    output_tokens: float
    requests: float
    replicas: float
    holders: float
    cache_tokens: float
    steps_error: float | None = None
    users: float | None = None


#: of requests, by what is waited for
_TIMES = {
    "ttft": "to the first token, with the wait for a batch",
    "tpot": "of a token after the first: (last - first) / (tokens - 1), mean of a request",
    "itl": "between two tokens, over all tokens",
    "e2e": "to the last token",
}
PERCENTILES = (50, 90, 95, 99)


def _times() -> tuple[Metric, ...]:
    """Percentiles and means; ends of a band are those of the 95 % interval over batches of time."""
    out = []
    for name, text in _TIMES.items():
        out += [Metric(f"{name}_s_p{q}", "s", "less", f"{text}; {q} % are quicker", banded=True) for q in PERCENTILES]
        out.append(Metric(f"{name}_mean_s", "s", "less", f"{text}; mean", banded=True))
    return tuple(out)


_METRICS = (
    Metric("requests_per_s", "requests/s", "more", "requests served, over the run"),
    Metric("output_tokens_per_s", "tokens/s", "more", "tokens of answers, over the run"),
    Metric("output_tokens_per_s_per_accelerator", "tokens/s", "more", "the same, over accelerators (packages) in use"),
    Metric("total_tokens_per_s", "tokens/s", "more", "tokens of prompts and answers, over the run"),
    *_times(),
    *(
        Metric(f"ttft_{what}_s_p99", "s", "", f"to the first token, 99 % are quicker, with a fifth {words}")
        for what, words in (
            ("less_cache", "less room in the cache"),
            ("more_cache", "more room in the cache"),
            ("slower_host", "more time of the host"),
            ("quicker_host", "less time of the host"),
        )
    ),
    Metric("slo_attainment", "1", "more", "share of requests with both times that are promised"),
    Metric("goodput_requests_per_s", "requests/s", "more", "the highest rate at which the promise is kept"),
    Metric(
        "capacity_requests_per_s",
        "requests/s",
        "more",
        "what the plan can serve at most, with what was found in caches",
    ),
    Metric("utilization", "1", "", "rate of arrivals over capacity; of a closed loop, rate served"),
    Metric("stable", "", "", "whether the service keeps up with what comes: yes, no; of a closed loop, closed"),
    Metric(
        "queue_growth_per_s",
        "requests/s",
        "less",
        "by how much more come than are begun, over the later half of arrivals; 0 where not",
    ),
    Metric("in_system_mean", "requests", "", "requests in the service, mean over time"),
    Metric("waiting_mean", "requests", "less", "requests that wait to be begun, mean over time"),
    Metric("cache_peak_fraction", "1", "", "blocks of the cache in use over those there are, at the fullest time"),
    Metric("prefix_hit_fraction", "1", "more", "blocks of prompts that were found in the cache"),
    Metric("requests_done", "requests", "", "that had their last token"),
    Metric("requests_timed_out", "requests", "less", "that were given up"),
    Metric("requests_refused", "requests", "less", "that are longer than the context or the cache"),
    Metric("preemptions", "1", "less", "times that a request lost its place in the cache"),
    Metric("energy_per_request_J", "J", "less", "facility energy over requests served", banded=True),
    common.MAKESPAN,
    *(one for one in common.power_of("token") if one.name in common.OF_WHOLE),
)

KIND = Kind(
    name="serving",
    spec=ServingSpec,
    execution=Itself("cmsim.serving.execute:execute"),
    facts=ServingFacts,
    metrics=_METRICS,
    frames=(
        Frame(
            "requests",
            {
                "request": "number, in order of arrival",
                "outcome": "done, timed_out or refused",
                "holder": "who decoded it, counted over all replicas",
                "prompt_tokens": "of the prompt",
                "output_tokens": "of the answer that was asked for",
                "generated_tokens": "of the answer that was made",
                "cached_tokens": "of the prompt that were in the cache",
                "preemptions": "how often it lost its place",
                "arrival_s": "when it comes [s]",
                "waited_s": "until its prompt is begun, or it is given up or refused [s]",
                "prefill_s": "from there to its first token; ttft is both together [s]",
                "moved_s": "from there until its cache is where it is decoded, where that is another pool [s]",
                "decode_s": "from there to its last token; tpot is this and the move over the tokens left [s]",
                "e2e_s": "all of these together [s]",
            },
            "one row per request, in order of arrival",
        ),
        Frame(
            "load",
            {
                "start_s": "when it begins [s]",
                "end_s": "when it ends [s]",
                "arrived": "requests that came",
                "served": "requests that had their last token",
                "waiting": "requests that wait to be begun, mean",
                "running": "requests that are begun, mean",
                "cached_tokens": "tokens in caches, those of an answer coming evenly, mean",
            },
            "one row per stretch of the run",
            may_be_empty=True,
        ),
    ),
    decisive=("goodput_requests_per_s", "output_tokens_per_s"),
    table=(
        *("requests_per_s", "output_tokens_per_s", "ttft_s_p50", "ttft_s_p99", "tpot_s_p50", "tpot_s_p99", PER),
        *("slo_attainment", "goodput_requests_per_s", "utilization", "stable", "energy_per_token_J"),
    ),
    headline=("requests_per_s", "output_tokens_per_s", "ttft_s_p50", "tpot_s_p50", "energy_per_token_J", "makespan_s"),
    rates=("output_tokens_per_s",),
    latency=("ttft_s_p50", "the first token"),
    figure=("tpot_s_p50", "output_tokens_per_s_per_accelerator"),
    mark="capacity_requests_per_s",
)
