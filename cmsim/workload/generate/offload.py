"""What of a training step lies in the host's memory, and the copies that follow.

Activations leave while their forward pass runs and come back while their backward pass does, each way on a stream of
its own: a pass is over when both its kernels and its copies are, but for what backward needs first, which it waits for.
Optimizer states come in for the update and leave as they are updated, so that both ways are busy at once. Copies take
what the link of an accelerator to its host gives; the host's memory is taken to be large and fast enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.kinds.training import TrainingSpec
from cmsim.units import GIGA
from cmsim.workload.generate.chain import Piece
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.footprint import moved_B, states_B
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.generate.stages import ModelPart
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import ProgramBuilder
from cmsim.workload.schedules import Pass

_OUT, _IN = "to host", "from host"


@dataclass(frozen=True)
class Offload:
    """Copies of one stage.

    passes     of each virtual stage what leaves in a forward pass, or comes back in a backward pass [s], and its
               layers [1]; empty where nothing does
    update_s   optimizer states, one way [s]
    """

    passes: tuple[tuple[float, int], ...] = ()
    update_s: float = 0.0

    def beside(self, build: ProgramBuilder, one: Pass, chain: list[Piece], after: list[int]) -> list[Piece]:
        """The chain of a pass that waits for its copies, which start with it."""
        pass_s, layers = self.passes[one.virtual] if self.passes else (0.0, 0)
        if not pass_s or one.kind == "W":
            return chain
        if one.kind == "F":
            row = build.host("activations out", stream=_OUT, recorded_s=pass_s, after=after)
            return _ends_after(chain, row)
        first_s = pass_s / layers
        row = build.host("activations in", stream=_IN, recorded_s=first_s, after=after)
        chain[0] = replace(chain[0], after=(*chain[0].after, row))
        if layers > 1:
            row = build.host("activations in", stream=_IN, recorded_s=pass_s - first_s, after=[row])
        return _ends_after(chain, row)

    def update(self, build: ProgramBuilder, reduced: list[int], ended: int) -> list[int]:
        """What the optimizer waits for: gradients, or states that came in when the last pass had ended."""
        if not self.update_s:
            return reduced
        return [*reduced, build.host("optimizer states in", stream=_IN, recorded_s=self.update_s, after=[ended])]


def of_stage(
    spec: TrainingSpec,
    model: ModelSpec,
    layout: Layout,
    mixture: Experts | None,
    parts: Sequence[ModelPart],
    system: System,
) -> Offload:
    """Raises InfeasibleError where something is to be moved and the accelerator's link to its host is not known."""
    if not (spec.offload.activations or spec.offload.optimizer):
        return Offload()
    host_GBps = system.accelerator.host_GBps
    if host_GBps is None:
        raise InfeasibleError(
            Problem(
                f"how fast {system.accelerator.name} copies to its host is not known; set accelerator.host_GBps",
                key="offload",
            )
        )
    rank_Bps = host_GBps * GIGA / system.ranks_per_package
    moved = spec.offload.activations > 0
    return Offload(
        passes=tuple(
            (moved_B(spec, model, layout, mixture, part) / rank_Bps, len(part.layers)) for part in parts if moved
        ),
        update_s=spec.offload.optimizer * states_B(spec, model, layout, mixture, parts)["optimizer"] / rank_Bps,
    )


def _ends_after(chain: list[Piece], row: int) -> list[Piece]:
    """The chain, whose last kernel waits for a row too."""
    *before, last = chain
    if len(last.kernels) < 2:
        return [*before, replace(last, after=(*last.after, row))]
    head = replace(last, kernels=last.kernels[:-1], comm=None)
    return [*before, head, replace(last, kernels=last.kernels[-1:], after=(row,))]
