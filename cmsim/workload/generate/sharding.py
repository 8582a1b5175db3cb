"""What ranks of a training step share, and the messages that follow: activations, weights, gradients, states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmsim import compute
from cmsim.hardware import TrainingTuning
from cmsim.kinds.training import TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.generate import layers, stages
from cmsim.workload.generate.chain import Comm, Piece
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import ProgramBuilder
from cmsim.workload.whole import busiest


@dataclass(frozen=True)
class Split:
    """Activations of ``tokens`` of one micro-batch that the ranks of a layer share."""

    spec: TrainingSpec
    model: ModelSpec
    layout: Layout
    form: layers.Formats
    tokens: float

    def tensor(self, name: str, half: str) -> Comm | None:
        """The tensor-parallel message at a half-layer's edge: half an all-reduce with sequence parallelism, a whole
        one on the way out without."""
        if self.layout.tp == 1:
            return None
        size = self.tokens * self.model.hidden * self.form.stream_B
        if self.spec.parallel.sequence_parallel:
            return Comm(f"tp {name}", half, size, "tp")
        return Comm("tp sum", "all_reduce", size, "tp") if half == "reduce_scatter" else None

    def context(self, mixer: str) -> list[Piece]:
        """Context parallel gathers keys and values of the whole sequence, or hands states on."""
        if self.layout.cp == 1:
            return []
        model = self.model
        if mixer == "recurrence" and model.recurrence:
            state_B = self.spec.micro_batch * self.layout.cp * model.recurrence.state_B_on(self.layout.tp)
            return [Piece([], Comm("gather states", "all_gather", state_B, "cp"))]
        if model.attention == "mla":
            width = float(model.kv_lora_rank + model.rope_dim)
        else:
            width = busiest(model.kv_heads, self.layout.tp) * (model.head_dim + model.v_head_dim)
        size = self.spec.micro_batch * self.spec.sequence_length * width * self.form.stream_B
        return [Piece([], Comm("gather keys, values", "all_gather", size, "cp"))]


@dataclass(frozen=True)
class Sharding:
    """Weights, gradients and optimizer states of one stage, over the ranks that would hold them alike."""

    spec: TrainingSpec
    model: ModelSpec
    layout: Layout
    mixture: Experts | None
    form: layers.Formats
    stage: int
    held: range
    tuning: TrainingTuning

    def gather_first(self, build: ProgramBuilder) -> list[int]:
        """With ZeRO 1 or 2 and overlap the step opens with the gathering of updated weights, layer by layer."""
        if not self.spec.overlap_data_parallel or self.spec.zero_stage not in (1, 2):
            return []
        return self._gather(build, self.held)

    def gather_for(self, build: ProgramBuilder, which: Sequence[int]) -> list[int]:
        """With ZeRO 3 a rank holds a share of its weights: every pass gathers them again."""
        return self._gather(build, which) if self.spec.zero_stage == 3 else []

    def _gather(self, build: ProgramBuilder, which: Sequence[int]) -> list[int]:
        """One gathering per layer, in the order given; their rows, or none where nothing is shared."""
        rows = []
        for layer in which:
            row = -1
            for size, slot in self.parameters(layer):
                weight_B = size * max(self.form.weight_B, 1.0)
                row = build.collective(
                    "gather weights", stream="dp", collective="all_gather", size_B=weight_B, slot=slot
                )
            if row >= 0:
                rows.append(row)
        return rows if len(rows) == len(which) else []

    def reduces_each(self) -> bool:
        """With ZeRO 3, which keeps a share of them, gradients are reduced after each backward pass."""
        return self.spec.zero_stage == 3

    def reduce(self, build: ProgramBuilder, row: int, done: Callable[[int], int]) -> list[int]:
        """Gradients, last layer first, after the backward pass that ends at ``row``; rows of the messages.

        The first ones can start while the pass still runs, once ``done(layer)``, the row that ends the layer's part of
        it, has; with one bucket per layer we let all but the final bucket start before the pass ends, or as many as the
        framework does.
        """
        collective = "reduce_scatter" if self.spec.zero_stage else "all_reduce"
        grad_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
        out = []
        # layers from which on gradients wait for the end of the pass
        late = self.held[0] + 1 + round((len(self.held) - 1) * (1.0 - self.tuning.early_gradients))
        for layer in reversed(self.held):
            for size, slot in self.parameters(layer):
                early = self.spec.overlap_data_parallel and layer >= late
                ready = done(layer) if early else row
                out.append(
                    build.collective(
                        "reduce gradients",
                        stream="dp",
                        collective=collective,
                        size_B=size * grad_B,
                        slot=slot,
                        after=[ready],
                    )
                )
        return out

    def parameters(self, layer: int) -> list[tuple[float, str]]:
        """(parameters of one rank, group that reduces them) of a layer; groups of one are left out."""
        shared, routed = stages.layer_parameters(self.model, self.layout, layer, self.mixture)
        # the token table and the head are reduced with the layer beside them
        if self.stage == 0 and layer == self.held[0]:
            shared += self.model.table_parameters_on(self.layout.tp)
        if self.stage == self.layout.pp - 1 and layer == self.held[-1]:
            shared += self.model.head_parameters_on(self.layout.tp)
        out = []
        if self.layout.dp * self.layout.cp > 1 and shared:
            out.append((shared, "dp"))
        if self.layout.expert_copies > 1 and routed:
            out.append((routed, "expert_dp"))
        return out

    def update(self, build: ProgramBuilder, after: Sequence[int]) -> None:
        """The optimizer, and where weights are split but not gathered ahead, their gathering."""
        held = stages.stage_parameters(self.model, self.layout, self.held, self.mixture, self.stage)
        routed = sum(stages.layer_parameters(self.model, self.layout, layer, self.mixture)[1] for layer in self.held)
        if self.spec.zero_stage:
            own = (held - routed) / (self.layout.dp * self.layout.cp) + routed / self.layout.expert_copies
        else:
            own = held
        work = compute.optimizer(
            own, weight_bytes=self.form.stream_B, gradient_bytes=BYTES_PER_ELEMENT[self.spec.precision.gradients]
        )
        row = build.compute(
            "optimizer",
            stream="compute",
            kernel="optimizer",
            flops=float(work.flops),
            bytes_B=float(work.bytes_B),
            after=after,
        )
        if self.spec.zero_stage in (1, 2) and not self.spec.overlap_data_parallel:
            for layer in self.held:
                for size, slot in self.parameters(layer):
                    build.collective(
                        "gather weights",
                        stream="dp",
                        collective="all_gather",
                        size_B=size * self.form.weight_B,
                        slot=slot,
                        after=[row],
                    )
