"""A service under load: requests that come, wait, are batched step by step, and leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.asking import AgentsSpec, ArrivalsSpec, CancelsSpec, LengthsSpec, RetrievalSpec, TurnsSpec
from cmsim.kinds.decode import Speculative
from cmsim.kinds.failing import ServiceFailuresSpec, WeightsSpec
from cmsim.kinds.kind import PER, Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import ASKED, HeldSpec, InferenceParallelSpec, InferencePrecisionSpec, ModelWorkloadSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import (
    NUMBER,
    Count,
    GBps,
    GigaBytes,
    Places,
    SecondsAtLeast,
    Share,
    ShareOrNone,
    Tokens,
)
from cmsim.reading.sizes import Size

BlockTokens = Annotated[int, NUMBER, Field(gt=0, le=65536), Size("tokens")]
MicroBatches = Annotated[int, Field(ge=1, le=2)]


class BatchingSpec(Spec):
    """How a scheduler makes steps of requests. One holds whole sequences: a rank with data-parallel attention, else a
    tensor group."""

    step_tokens: Tokens = Field(
        default=8192, description="of prompts and sequences in one step of a holder; longer prompts are cut in chunks"
    )
    sequences: Annotated[int, NUMBER, Field(gt=0, le=16384)] = Field(
        default=256, description="that a holder has begun at once, the most"
    )
    whole_prompts: bool = Field(
        default=False, description="prompts are cut in chunks only where no step could hold them (no chunked prefill)"
    )
    whole_answers: bool = Field(
        default=False,
        description="a request is begun only where the cache has room for its whole answer too, so that nobody loses "
        "its place (TensorRT-LLM: guaranteed no evict); else where it has room for its prompt",
    )
    poll_steps: Count = Field(
        default=1, description="while sequences decode, those that come are looked at once in so many steps"
    )
    gather_steps: Annotated[int, NUMBER, Field(ge=0, le=10**6)] = Field(
        default=0,
        description="beside sequences that decode prompts wait so many steps for others, or until they fill "
        "`gather_share` of a step",
    )
    gather_share: ShareOrNone = Field(default=0.9, description="of a step's tokens, from which on prompts wait no more")
    block_tokens: BlockTokens = Field(default=16, description="of a block of the cache")
    memory_share: Share = Field(default=0.9, description="of a rank's memory that the engine may use")
    spare_blocks: ShareOrNone = Field(default=0.01, description="of the cache, that no new prompt may take")
    preemption: Annotated[Literal["recompute", "swap"], ASKED] = Field(
        default="recompute",
        description="of who loses its place in the cache. recompute: it is prefilled again; swap: its cache goes to "
        "the host's memory and comes back, and steps wait for that",
    )
    context_tokens: Tokens | None = Field(
        default=None,
        description="that a request may have, prompt and answer; longer ones are refused. Default: no limit",
    )
    prefix_share: ShareOrNone = Field(
        default=0.0,
        description="of the cache, that beginnings of prompts which no sequence has may keep; oldest go first, and "
        "all do where sequences lack room. 0: prompts share nothing; 1: all that is free. What several sequences have "
        "is held once",
    )


class AutoscaleSpec(WeightsSpec):
    """Replicas that come and go with the load; `replicas` is the most."""

    target: Annotated[float, NUMBER, Field(gt=0, le=1e6)] = Field(
        description="requests of a holder, in the mean, waiting ones too: as many replicas are wanted as bring it there"
    )
    least: Places = Field(default=1, description="replicas that are always there")
    every_s: SecondsAtLeast = Field(default=10.0, description="between two looks at the load")


class ExpertsApartSpec(Spec):
    """Experts on packages of their own, beside those that have attention and caches."""

    accelerators: Places = Field(description="packages of a replica that have experts alone, beside the pool's own")
    microbatches: Annotated[int, NUMBER, Field(ge=1, le=16)] = Field(
        default=3, description="that go to and fro between the two"
    )


class PoolSpec(Spec):
    """Replicas that do a part of the work; what is not said is as of the whole workload."""

    replicas: Places = Field(default=1, description="copies of the model")
    accelerators: Places = Field(description="packages of one replica")
    machine: str | None = Field(
        default=None, description="another system that this pool is on, a name in topologies/ or a path"
    )
    parallel: InferenceParallelSpec | None = Field(
        default=None, description="how one replica's work is split over its ranks"
    )
    precision: InferencePrecisionSpec | None = Field(default=None, description="number formats")
    microbatches: MicroBatches | None = Field(default=None, description="2: one computes while one communicates")
    batching: BatchingSpec | None = Field(default=None, description="of this pool")
    autoscale: AutoscaleSpec | None = Field(default=None, description="of this pool: replicas come and go")
    power: HeldSpec | None = Field(default=None, description="caps and clock of this pool")
    experts_apart: ExpertsApartSpec | None = Field(
        default=None, description="of a pool that decodes: experts on packages of their own; default: everywhere"
    )

    @property
    def packages(self) -> int:
        """Of a replica, with those that have experts alone."""
        return self.accelerators + (0 if self.experts_apart is None else self.experts_apart.accelerators)


class CacheMovesSpec(Spec):
    """How caches come from prompts to answers, and whom they meet on their way."""

    over: Annotated[Literal["scale_up", "scale_out", "host"], ASKED] = Field(
        default="scale_out",
        description="scale_up: the fabric of a domain, with what steps leave of it; scale_out: RDMA between packages; "
        "host: the network of the hosts",
    )
    layerwise: bool = Field(default=True, description="layer by layer while a prompt is computed; no: all at its end")


class CachePoolSpec(Spec):
    """Beginnings of prompts in the memory of hosts, for all holders: what one has computed, others fetch."""

    memory_GB: GigaBytes = Field(description="of the memory of one host's node")
    over: Annotated[Literal["scale_up", "scale_out", "host"], ASKED] = Field(
        default="scale_up", description="how holders reach it, as `cache_moves.over`"
    )
    nodes: Places | None = Field(default=None, description="that give memory; default: those of the system")
    drives_GB: GigaBytes | None = Field(default=None, description="of one node's drives, below its memory")
    drives_GBps: GBps | None = Field(default=None, description="what one node's drives read; goes with drives_GB")
    evict: Annotated[Literal["lru", "lfu"], ASKED] = Field(
        default="lru", description="which blocks go: those used least recently, or least often"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.drives_GB is None) != (self.drives_GBps is None):
            raise ValueError("drives_GB, drives_GBps: both or none")
        return self


class SloSpec(Spec):
    """What users are promised."""

    ttft_s: SecondsAtLeast = Field(description="to the first token")
    tpot_s: SecondsAtLeast = Field(description="of every token after it, mean of a request")
    attainment: Share = Field(default=0.9, description="share of requests that must have both")


class ServiceSpec(ModelWorkloadSpec):
    """A service of one model."""

    kind: Literal["serving"] = "serving"
    precision: InferencePrecisionSpec = Field(default=InferencePrecisionSpec(), description="number formats")
    parallel: InferenceParallelSpec = Field(default=InferenceParallelSpec(), description="how work is split over ranks")
    arrivals: ArrivalsSpec = Field(description="when requests come")
    lengths: LengthsSpec = Field(default=LengthsSpec(), description="how many tokens requests and answers have")
    turns: TurnsSpec | None = Field(default=None, description="requests come in conversations; default: each is alone")
    agents: AgentsSpec | None = Field(default=None, description="requests come in tasks of agents; default: none do")
    retrieval: RetrievalSpec | None = Field(default=None, description="documents before prompts; default: none")
    replicas: Places = Field(default=1, description="copies of the model")
    accelerators: Places | None = Field(
        default=None, description="packages of one replica; default: those of the system, shared out"
    )
    microbatches: MicroBatches = Field(default=1, description="2: one computes while one communicates")
    speculative: Speculative | None = Field(
        default=None, description="draft tokens verified beside the last one; a step is shared out over what it gives"
    )
    batching: BatchingSpec = Field(default=BatchingSpec(), description="how steps are made of requests")
    autoscale: AutoscaleSpec | None = Field(
        default=None, description="replicas come and go with the load; default: all are there, always"
    )
    prefill: PoolSpec | None = Field(
        default=None, description="a pool that only makes first tokens; goes with `decode`"
    )
    decode: PoolSpec | None = Field(default=None, description="a pool that makes all others; goes with `prefill`")
    cache_moves: CacheMovesSpec = Field(
        default=CacheMovesSpec(), description="of pools apart: how caches come from one to the other"
    )
    cache_pool: CachePoolSpec | None = Field(
        default=None, description="beginnings of prompts that holders share; default: each has its own alone"
    )
    routing: Annotated[Literal["round_robin", "least_loaded", "prefix_aware"], ASKED] = Field(
        default="least_loaded",
        description="how a request finds its holder; least_loaded: where fewest are; prefix_aware: where most of its "
        "prompt was computed last, unless twice as many are there",
    )
    patience_s: SecondsAtLeast | None = Field(
        default=None, description="after which a request without its last token is given up; default: never"
    )
    priorities: tuple[Share, ...] | None = Field(
        default=None,
        description="shares of requests, drawn: those of the first class are begun before all others, and lose their "
        "place last; together 1. Default: all are alike",
    )
    cancels: CancelsSpec | None = Field(default=None, description="users who go before their answer is there")
    failures: ServiceFailuresSpec | None = Field(
        default=None, description="what fails meanwhile; default: nothing does"
    )
    slo: SloSpec | None = Field(default=None, description="what users are promised")
    goodput: bool = Field(
        default=False,
        description="also seek the highest rate at which the promise is kept; needs `slo` and an open loop",
    )
    sensitivity: bool | None = Field(
        default=None,
        description="also run with a fifth less and more cache and host time, and say what the first token waits then; "
        "default: of runs of up to 1000 requests in which nothing fails",
    )
    warm_up: ShareOrNone = Field(
        default=0.0,
        description="share of requests, the first ones, that do not count in percentiles; throughput and energy are "
        "then of the time from the first one that counts to the last one that comes",
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.prefill is None) != (self.decode is None):
            raise ValueError("prefill, decode: both pools or none")
        if self.prefill is not None:
            for name in ("replicas", "accelerators", "autoscale"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name}: each pool has its own")
        if self.prefill is not None and self.prefill.experts_apart is not None:
            raise ValueError("prefill.experts_apart: goes with `decode`")
        if self.prefill is None and "cache_moves" in self.model_fields_set:
            raise ValueError("cache_moves: goes with `prefill` and `decode`")
        if self.ranks is not None:
            raise ValueError("ranks: a service counts `accelerators` of a replica")
        if self.priorities is not None and abs(sum(self.priorities) - 1) > 1e-6:
            raise ValueError(f"priorities: got {sum(self.priorities):g} together. Allowed: 1")
        if self.goodput and (self.slo is None or self.arrivals.process == "closed"):
            raise ValueError("goodput: needs `slo`, and arrivals of an open loop")
        if self.failures is not None and (self.goodput or self.sensitivity or self.arrivals.rate_per_s == "most"):
            raise ValueError("failures: goes without `goodput`, `sensitivity` and `rate_per_s: most`")
        pools = (self, self.prefill, self.decode)
        if self.failures is not None and any(one is not None and one.autoscale is not None for one in pools):
            raise ValueError("failures: goes without `autoscale`")
        if self.arrivals.rate_per_s == "most" and self.slo is None:
            raise ValueError("arrivals.rate_per_s: most needs `slo`, which it keeps")
        if self.turns is not None and self.arrivals.process not in ("poisson", "gamma"):
            raise ValueError("turns: goes with `process: poisson` or `gamma`; traces have their own conversations")
        if self.agents is not None and self.arrivals.process not in ("poisson", "gamma"):
            raise ValueError("agents: goes with `process: poisson` or `gamma`, of tasks")
        if self.agents is not None and (self.turns is not None or self.retrieval is not None):
            raise ValueError("agents: goes without `turns` and `retrieval`")
        if self.retrieval is not None and (self.turns is not None or self.arrivals.process == "trace"):
            raise ValueError("retrieval: goes without `turns` and without a trace, which say what prompts share")
        if self.arrivals.process != "trace" and self.lengths.path is None and self.lengths.prompt_tokens is None:
            raise ValueError("lengths: prompt_tokens and output_tokens, or path, is required without a trace")
        return self


class ServingSpec(ServiceSpec):
    """A service under load."""

    kind: Literal["serving"]
    beside: dict[str, ServiceSpec] = Field(
        default={},
        description="services of other models on the same machine at the same time, by names of theirs: each has "
        "accelerators of its own, behind those before it, and caches of all share links; what became of them stands in "
        "the frame `models`",
    )

    @model_validator(mode="after")
    def _others(self) -> Self:
        for name, other in self.beside.items():
            for key in ("goodput", "sensitivity", "cache_pool", "failures"):
                if key in other.model_fields_set:
                    raise ValueError(f"beside.{name}.{key}: goes with the first service alone")
        return self

    def others(self) -> list[tuple[str, ServingSpec]]:
        """Services beside this one, each as if it were alone."""
        keys = ServiceSpec.model_fields
        return [
            (
                name,
                ServingSpec.model_construct(
                    _fields_set=other.model_fields_set, **{key: getattr(other, key) for key in keys}
                ),
            )
            for name, other in self.beside.items()
        ]


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
#: when requests came, of a service in which something fails
_WHEN = {
    "before": "before anything failed",
    "during": "while something was away",
    "after": "when all was back",
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
    Metric(
        "least_accelerators",
        "1",
        "",
        "accelerators of a perfect machine (bytes, FLOPs, room for caches) that could serve the load, with as long "
        "between tokens as is promised or, where nothing is, as it took",
    ),
    Metric("least_limit", "", "", "what the perfect machine needs them for: compute, HBM, memory, the first token"),
    Metric("in_system_mean", "requests", "", "requests in the service, mean over time"),
    Metric("waiting_mean", "requests", "less", "requests that wait to be begun, mean over time"),
    Metric("cache_peak_fraction", "1", "", "blocks of the cache in use over those there are, at the fullest time"),
    Metric("prefix_hit_fraction", "1", "more", "blocks of prompts that were found in the cache of their holder"),
    Metric("pool_hit_fraction", "1", "more", "blocks of prompts that came from the pool of caches"),
    Metric("pool_drives_fraction", "1", "", "blocks of prompts that came from its drives"),
    Metric("cached_tokens_fraction", "1", "more", "tokens of prompts that were cached, of those that were begun"),
    Metric("moved_Bps", "B/s", "", "bytes of caches on links, over the run"),
    Metric("requests_done", "requests", "", "that had their last token"),
    Metric("requests_timed_out", "requests", "less", "that were given up"),
    Metric("requests_cancelled", "requests", "", "that nobody wanted any more"),
    Metric("requests_refused", "requests", "less", "that are longer than the context or the cache"),
    *(
        Metric(
            f"kept_{name}_requests_per_s",
            "requests/s",
            "more",
            f"that came {text} and had what is promised, or were served where nothing is",
        )
        for name, text in _WHEN.items()
    ),
    *(
        Metric(f"{what}_{name}_s_p99", "s", "less", f"of requests that came {text}: {_TIMES[what]}; 99 % are quicker")
        for what in ("ttft", "tpot")
        for name, text in _WHEN.items()
    ),
    Metric("away_s", "s", "less", "from the first failure until everything is back"),
    Metric("requests_retried", "requests", "less", "whose cache was lost with a replica, and computed anew"),
    Metric("requests_lost", "requests", "less", "whose cache was lost with a replica, and that ended with it"),
    Metric("recomputed_tokens", "tokens", "less", "of caches that were lost and computed anew"),
    Metric("replicas_mean", "1", "", "of pools whose replicas come and go: those loading or loaded, mean over time"),
    Metric("replicas_started", "1", "", "times that one was loaded"),
    Metric("load_time_s", "s", "less", "until a replica has its weights, where nobody else loads"),
    Metric("preemptions", "1", "less", "times that a request lost its place in the cache"),
    Metric("energy_per_request_J", "J", "less", "facility energy over requests served", banded=True),
    common.MAKESPAN,
    Metric("power_peak_W", "W", "less", "of the facility, highest of the stretches of the frame of load"),
    *(one for one in common.power_of("token") if one.name in common.OF_WHOLE),
    *common.OVER_TIME,
)

KIND = Kind(
    name="serving",
    spec=ServingSpec,
    execution=Itself("cmsim.serving.execute:execute"),
    facts=ServingFacts,
    metrics=_METRICS,
    frames=(
        common.POWER_CURVE,
        Frame(
            "requests",
            {
                "request": "number, in order of arrival",
                "outcome": "done, timed_out, refused, cancelled or lost",
                "holder": "who decoded it, counted over all replicas",
                "prompt_tokens": "of the prompt",
                "output_tokens": "of the answer that was asked for",
                "priority": "those of a lower number go first",
                "generated_tokens": "of the answer that was made",
                "cached_tokens": "of the prompt that were cached",
                "fetched_tokens": "of these, those of a pool of caches and what is before them",
                "preemptions": "how often it lost its place, since it was last tried",
                "tries": "how often it had to begin anew, for its replica was lost",
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
                "accelerators": "that are with the service, mean",
                "power_W": "of the facility, mean [W]",
            },
            "one row per stretch of the run",
            may_be_empty=True,
        ),
        Frame(
            "models",
            {
                "name": "of the service",
                "model": "that it serves",
                "stable": "yes, no, or closed",
                "metric": "of those of the whole run, as they are called there; `accelerators` are those it has",
                "value": "of it",
            },
            "one row per service and metric that it has, where there are several services",
            may_be_empty=True,
        ),
    ),
    decisive=("goodput_requests_per_s", "output_tokens_per_s"),
    table=(
        *("requests_per_s", "output_tokens_per_s", "ttft_s_p50", "ttft_s_p99", "tpot_s_p50", "tpot_s_p99", PER),
        *("slo_attainment", "goodput_requests_per_s", "utilization", "stable", "energy_per_token_J"),
        *("kept_before_requests_per_s", "kept_during_requests_per_s", "kept_after_requests_per_s"),
        *("ttft_during_s_p99", "tpot_during_s_p99", "requests_retried", "requests_lost"),
    ),
    headline=("requests_per_s", "output_tokens_per_s", "ttft_s_p50", "tpot_s_p50", "energy_per_token_J", "makespan_s"),
    rates=("output_tokens_per_s",),
    latency=("ttft_s_p50", "the first token"),
    figure=("tpot_s_p50", "output_tokens_per_s_per_accelerator"),
    mark="capacity_requests_per_s",
)
