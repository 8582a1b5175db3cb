"""One forward pass of a batch through a model that reads its input whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ParallelSpec, PowerSpec, PrecisionSpec, WorkloadSpec
from cmsim.reading.quantities import PerAccelerator, Tokens, TokensOrNone


class EncoderSpec(WorkloadSpec):
    """One forward pass of a batch through a model that reads its input whole: images, texts, or a graph file."""

    kind: Literal["encoder"]
    model: str = Field(
        description="name of a file in workloads/models or workloads/graphs, or a path: ONNX, MindIR, or the "
        "config.json of an encoder"
    )
    batch_per_accelerator: PerAccelerator = Field(description="samples per accelerator package")
    sequence_length: TokensOrNone = Field(default=0, description="tokens of a text; required for models of text")
    dims: dict[str, Tokens] = Field(
        default={}, description="sizes of dimensions that a graph file or config leaves open, by name"
    )
    parallel: ParallelSpec = Field(default=ParallelSpec(), description="data parallel only: every rank holds the model")
    power: PowerSpec | None = Field(default=None, description="caps and clock that it runs under; default: none")
    precision: PrecisionSpec = Field(default=PrecisionSpec(), description="number formats")


@dataclass(frozen=True)
class EncoderFacts(Facts):
    """samples_per_run: over all accelerators    steps: passes of a run    model_flops_per_sample [FLOP]"""

    samples_per_run: float
    steps: float
    model_flops_per_sample: float


def measure(run: Measured[EncoderFacts]) -> Metrics:
    """step_time_s is one batch's pass, without queueing."""
    out = common.throughput(run.facts.samples_per_run, run.makespan_s, run.accelerators, "sample")
    return {
        "step_time_s": run.makespan_s / run.facts.steps,
        **common.with_model_rate(out, run.facts.model_flops_per_sample, "sample"),
    }


_METRICS = (
    Metric("step_time_s", "s", "less", "of one batch's pass, without queueing", of_time=True),
    *common.rates("sample"),
    common.MODEL_RATE,
    *common.rest(),
    *common.power_of("sample"),
)

KIND = Kind(
    name="encoder",
    spec=EncoderSpec,
    execution=PlayedKind("cmsim.workload.generate.graph:encoder", measure),
    facts=EncoderFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("samples_per_s",),
    table=("step_time_s", "samples_per_s", PER, "energy_per_sample_J"),
    headline=common.headline(_METRICS, "step_time_s"),
    rates=("samples_per_s",),
    figure=("step_time_s", "samples_per_s_per_accelerator"),
    mark="samples_per_s",
)
