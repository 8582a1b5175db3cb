"""What ranks of a training step share, and the messages that follow: activations, weights, gradients, states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cmsim import compute
from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System, TrainingTuning
from cmsim.kinds.training import TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.generate import context, formats, layers, seeing, stages
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.overlap import TensorOverlap
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import ProgramBuilder

#: how names of messages begin that only the loss needs
LOSS = "tp loss"


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

    def loss(self, which: str) -> Comm | None:
        """A number of each token that ranks with parts of the logits make together; backward needs none."""
        if self.layout.tp == 1:
            return None
        return Comm(f"{LOSS} {which}", "all_reduce", 4.0 * self.tokens, "tp")

    def overlap(self, chunks: int) -> TensorOverlap:
        """How the messages of a chain lie beside its products; ``chunks`` in a pipeline, the stack's."""
        return TensorOverlap(self.spec.tp_overlap, chunks, self.form.recipe)

    def mixing(self, mixer: str, kernels: list[Kernel], out: Comm | None) -> list[Piece]:
        """The half of a layer that mixes tokens, behind its norm, with what ranks of a context group exchange."""
        return context.pieces(self.spec, self.model, self.layout, mixer, kernels, out, self.form.stream_B)


def sharded(spec: TrainingSpec, layout: Layout, system: System) -> Layout:
    """The layout with its groups of hybrid sharding. Raises InfeasibleError where ranks do not divide into them."""
    if spec.fsdp != "hybrid":
        return layout
    ranks = layout.dp * layout.cp
    sizes = [size for size in range(1, ranks + 1) if ranks % size == 0]
    wanted = spec.fsdp_shards
    if wanted is None:
        within = system.spec.accelerators * system.ranks_per_package // layout.tp
        return replace(layout, sharded=max(size for size in sizes if size <= max(within, 1)))
    if wanted not in sizes:
        near = ", ".join(map(str, sorted(sorted(sizes, key=lambda size: abs(size - wanted))[:2])))
        said = f"got {wanted}, which does not divide dp x cp = {ranks} ranks. Nearest that do: {near}."
        raise InfeasibleError(Problem(said, key="fsdp_shards"))
    return replace(layout, sharded=wanted)


#: the message of a layer's weights in a chain
WEIGHTS = "gather weights"


@dataclass(frozen=True)
class Sharding:
    """Weights, gradients and optimizer states of one rank, over the ranks that would hold them alike."""

    spec: TrainingSpec
    model: ModelSpec
    layout: Layout
    mixture: Experts | None
    form: layers.Formats
    parts: Sequence[stages.ModelPart]
    tuning: TrainingTuning

    def gather_first(self, build: ProgramBuilder, part: stages.ModelPart) -> list[int]:
        """With ZeRO 1 or 2 and overlap the step opens with the gathering of updated weights, layer by layer."""
        if not self.spec.overlap_data_parallel or self.spec.zero_stage not in (1, 2):
            return []
        return self._gather(build, part, part.buckets, frozen=False)

    def gather_for(self, build: ProgramBuilder, part: stages.ModelPart, which: Sequence[int]) -> list[int]:
        """With ZeRO 3 a rank holds a share of its weights: every forward gathers them again."""
        if self.spec.zero_stage != 3 or self.in_turn:
            return []
        return self._gather(build, part, which, frozen=True)

    @property
    def in_turn(self) -> bool:
        """Whether layers wait for their own weights, gathered when the layer before has ended."""
        return self.spec.zero_stage == 3 and not self.tuning.prefetch and not self.layout.sharded and not self.spec.lora

    def before(self, part: stages.ModelPart, layer: int) -> list[Comm]:
        """Messages that a layer waits for where weights are gathered in turn; mirrored, gradients are scattered."""
        size = max(self.form.gathered_B, 1.0)
        every = self.parameters(part, layer) if self.in_turn else []
        return [Comm(WEIGHTS, "all_gather", count * size, slot) for count, slot in every]

    def gather_again(self, build: ProgramBuilder, part: stages.ModelPart, which: Sequence[int]) -> list[int]:
        """So does every backward, unless it finds them as forward left them."""
        return self.gather_for(build, part, which) if self.spec.reshard_after_forward else []

    def _gather(
        self, build: ProgramBuilder, part: stages.ModelPart, which: Sequence[int], *, frozen: bool
    ) -> list[int]:
        """One gathering per layer, in the order given; their rows, or none where nothing is shared."""
        rows = []
        for layer in which:
            row = -1
            for size, slot in self.parameters(part, layer, frozen=frozen):
                weight_B = size * max(self.form.gathered_B, 1.0)
                row = build.collective(
                    "gather weights", stream="dp", collective="all_gather", size_B=weight_B, slot=slot
                )
            if row >= 0:
                rows.append(row)
        return rows if len(rows) == len(which) else []

    def reduces_each(self) -> bool:
        """With ZeRO 3, which keeps a share of them, gradients are reduced after each backward pass."""
        return self.spec.zero_stage == 3 and not self.in_turn

    def reduce(
        self,
        build: ProgramBuilder,
        part: stages.ModelPart,
        row: int,
        done: Callable[[int], int],
        *,
        last: bool = True,
    ) -> list[int]:
        """Gradients of a part, last layer first, after the backward pass that ends at ``row``; rows of the messages.

        Groups that hold the same shares add them up after the ``last`` micro-batch, where all are accumulated.
        The first ones can start while the pass still runs, once ``done(layer)``, the row that ends the layer's part of
        it, has; with one bucket per layer we let all but the final bucket start before the pass ends, or as many as the
        framework does.
        """
        collective = "reduce_scatter" if self.spec.zero_stage else "all_reduce"
        grad_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
        out = []
        waits = 1 + round((len(part.buckets) - 1) * (1.0 - self.tuning.early_gradients))
        for layer in reversed(part.buckets):
            for size, slot in self.parameters(part, layer):
                early = self.spec.overlap_data_parallel and layer not in part.buckets[:waits]
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
            if last:
                out += self._add_up(build, part, layer, out[-1:] or [row])
        return [*out, *self._of_images(build, part, row)] if last else out

    def _of_images(self, build: ProgramBuilder, part: stages.ModelPart, row: int) -> list[int]:
        """Gradients of a vision tower, of which every tensor rank has seen other images."""
        seen = seeing.parameters(self.spec, self.model) if part.first else 0
        if not seen or self.layout.tp == 1:
            return []
        size_B = seen * BYTES_PER_ELEMENT[self.spec.precision.gradients]
        said = "add up gradients of images"
        return [build.collective(said, stream="dp", collective="all_reduce", size_B=size_B, slot="tp", after=[row])]

    def _add_up(self, build: ProgramBuilder, part: stages.ModelPart, layer: int, after: Sequence[int]) -> list[int]:
        """Gradients of the shares that several groups hold alike."""
        if not self.layout.sharded:
            return []
        grad_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
        shared, routed = self._trained(part, layer)
        out = []
        for size, shards, copies, slot in (
            (shared, self.layout.shards, self.layout.copies, "replica"),
            (routed, self.layout.expert_shards, self.layout.expert_copies, "expert_replica"),
        ):
            if size and copies > shards:
                size_B = size * grad_B / shards
                out.append(
                    build.collective(
                        "add up gradients", stream="dp", collective="all_reduce", size_B=size_B, slot=slot, after=after
                    )
                )
        return out

    def parameters(self, part: stages.ModelPart, layer: int, *, frozen: bool = False) -> list[tuple[float, str]]:
        """(parameters of one rank, group that shares or reduces them) of a layer; groups of one are left out.

        frozen: those that no step changes, too
        """
        shared, routed = self._trained(part, layer)
        if frozen and self.spec.lora is not None:
            more, routed_more = stages.layer_parameters(self.model, self.layout, layer, self.mixture)
            shared += more + stages.ends_beside(self.model, self.layout, part, layer)
            routed += routed_more
        groups = ("shard", "expert_shard") if self.layout.sharded else ("dp", "expert_dp")
        out = []
        if self.layout.shards > 1 and shared:
            out.append((shared, groups[0]))
        if self.layout.expert_shards > 1 and routed:
            out.append((routed, groups[1]))
        return out

    def _trained(self, part: stages.ModelPart, layer: int) -> tuple[float, float]:
        """Parameters of one rank of a layer, and of table and head beside it, that a step changes: those all
        data-parallel ranks hold alike, and its routed experts'."""
        return stages.trained_parameters(self.spec, self.model, self.layout, part, layer, self.mixture)

    def update(self, build: ProgramBuilder, after: Sequence[int]) -> None:
        """The optimizer, and where weights are split but not gathered ahead, their gathering."""
        trained = [self._trained(part, layer) for part in self.parts for layer in part.buckets]
        shared, routed = sum(one for one, _ in trained), sum(one for _, one in trained)
        if self.spec.zero_stage:
            own = shared / self.layout.shards + routed / self.layout.expert_shards
        else:
            own = shared + routed
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
        row = self._cast_weights(build, row)
        if self.spec.zero_stage in (1, 2) and not self.spec.overlap_data_parallel:
            for part, layer in [(one, layer) for one in self.parts for layer in one.buckets]:
                for size, slot in self.parameters(part, layer):
                    build.collective(
                        "gather weights",
                        stream="dp",
                        collective="all_gather",
                        size_B=size * self.form.gathered_B,
                        slot=slot,
                        after=[row],
                    )

    def _cast_weights(self, build: ProgramBuilder, row: int) -> int:
        """With a recipe the weights of layers are cast once per step, both layouts; the last row.

        A rank casts all that it holds, gathered in 16 bits or not: the second layout is its own work. Frozen ones are
        cast once for all.
        """
        recipe = self.form.recipe
        if recipe is None or self.spec.lora is not None:
            return row
        layers_ = [
            layer
            for part in self.parts
            for layer in part.layers
            if not formats.in_16_bits(self.spec.precision, layer, self.model.layers)
        ]
        held = sum(sum(stages.layer_parameters(self.model, self.layout, layer, self.mixture)) for layer in layers_)
        return build.compute(
            "weight quantise",
            stream="compute",
            kernel="quantise",
            flops=3.0 * held,
            bytes_B=recipe.cast_B * held,
            after=[row],
        )
