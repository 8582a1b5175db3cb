"""Images or video out of noise: a diffusion transformer, step after step over the same tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ParallelSpec, PrecisionSpec, WorkloadSpec
from cmsim.reading.quantities import PerAccelerator, Slots, Times, Tokens


class DiffusionSpec(WorkloadSpec):
    """Images (or videos) made of noise, all steps of a batch."""

    kind: Literal["diffusion"]
    model: str = Field(
        description="name of a file in workloads/denoisers, or a path to the transformer's config.json of a diffusers "
        "pipeline"
    )
    batch_per_accelerator: PerAccelerator = Field(description="images (or videos) per accelerator package")
    steps: Times = Field(description="denoising steps")
    width: Slots = Field(default=1024, description="pixels")
    height: Slots = Field(default=1024, description="pixels")
    frames: Tokens = Field(default=1, description="of a video; 1: an image")
    guidance: bool | None = Field(
        default=None,
        description="classifier-free: each step is run with the prompt and without it, as a batch of two; default: "
        "where guidance is not built into the model",
    )
    prompt_tokens: Tokens | None = Field(
        default=None, description="of a prompt, which pipelines fill up; default: as many as the model's pipeline has"
    )
    parallel: ParallelSpec = Field(
        default=ParallelSpec(),
        description="data parallel, and cp: ranks that share an image's tokens and exchange heads for them (Ulysses)",
    )
    precision: PrecisionSpec = Field(default=PrecisionSpec(), description="number formats")


@dataclass(frozen=True)
class DiffusionFacts(Facts):
    """images_per_run: over all accelerators    steps: of a run    model_flops_per_image [FLOP]"""

    images_per_run: float
    steps: float
    model_flops_per_image: float


def measure(run: Measured[DiffusionFacts]) -> Metrics:
    """image_time_s is all steps of a batch, without queueing; denoising_step_time_s one of them."""
    out = common.throughput(run.facts.images_per_run, run.makespan_s, run.accelerators, "image")
    return {
        "image_time_s": run.makespan_s,
        "denoising_step_time_s": run.makespan_s / run.facts.steps,
        **common.with_model_rate(out, run.facts.model_flops_per_image, "image"),
    }


_METRICS = (
    Metric("image_time_s", "s", "less", "all steps of a batch of images, without queueing", of_time=True),
    Metric("denoising_step_time_s", "s", "less", "one step of a batch", of_time=True),
    *common.rates("image"),
    common.MODEL_RATE,
    *common.rest(),
    *common.power_of("image"),
)

KIND = Kind(
    name="diffusion",
    spec=DiffusionSpec,
    execution=PlayedKind("cmsim.workload.generate.diffusion:programs", measure),
    facts=DiffusionFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("images_per_s",),
    table=("image_time_s", "images_per_s", PER, "energy_per_image_J"),
    headline=common.headline(_METRICS, "image_time_s", "images_per_s", "energy_per_image_J"),
    rates=("images_per_s",),
    latency=("image_time_s", "an image"),
    figure=("image_time_s", "images_per_s_per_accelerator"),
    host="bulk",
    mark="image_time_s",
)
