"""A layer's experts spread over an expert-parallel group: how many tokens arrive where, and what crosses the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import CastExperts, LateRanks, System, TrainingTuning
from cmsim.kinds.parts import Balance, ParallelSpec
from cmsim.reading import locate
from cmsim.units import US
from cmsim.workload import moe
from cmsim.workload.generate import framework, layers
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.model import ModelSpec


@dataclass(frozen=True)
class Experts:
    """One rank's part of the expert layer.

    ranks             expert-parallel size
    tp                ranks that share each expert: they gather what arrives at all of them, and scatter the sums
    experts_per_rank  slots on a rank (routed, redundant, and shared ones where those have slots)
    shared_in_slots   the shared expert is reached by dispatch, not computed by every rank
    tokens            tokens a rank routes at once
    copies            messages of one token, each to one expert; with a capacity the places that are kept for them
    wire_copies       messages of one token that cross the wire: fewer where ranks or domains are sent only one copy
    imbalance         busiest rank's load over the mean
    dispatch_B, combine_B   bytes of one message
    costs             what a training framework does beside
    even              no rank has more experts with a token than another
    evenness          tokens of a rank in the mean, over this one's: what arrives is of all of them
    served, late      what a serving engine does beside, and how late its ranks come
    joined            all ranks of the group have all of its tokens: results are added up, and no tokens travel
    """

    ranks: int
    experts_per_rank: float
    shared_in_slots: bool
    tokens: float
    copies: float
    wire_copies: float
    imbalance: float
    dispatch_B: float
    combine_B: float
    notes: tuple[str, ...] = ()
    tp: int = 1
    costs: TrainingTuning | None = None
    served: CastExperts | None = None
    late: LateRanks | None = None
    joined: bool = False
    even: bool = False
    evenness: float = 1.0

    def at(self, share: float) -> Experts:
        """The same experts with a share of the tokens."""
        return replace(self, tokens=self.tokens * share)

    def pieces(
        self,
        model: ModelSpec,
        form: layers.Formats,
        *,
        slot: str,
        routing: tuple[str, float] = ("compute", 1.0),
        working: tuple[str, float] = ("compute", 1.0),
    ) -> list[Piece]:
        """Norm and router, dispatch, experts, combine; streams and core shares of the two kinds of work.

        The shared expert, where every rank has it, is computed while tokens travel.
        """
        if self.joined:
            return [self._summed(model, form, *routing)]
        # ranks that share experts work on what arrives at all of them
        arriving = self.tokens * self.evenness * self.copies * self.imbalance * self.tp
        everywhere = self.tokens * self.evenness * self.ranks * self.tp
        active = self._active(model, everywhere)
        local = (
            []
            if self.shared_in_slots or not model.shared_experts
            else layers.dense_ffn(model, self.tokens, 1, form, width=model.shared_width, name="shared expert")
        )
        norm = layers.ffn_norm(model, self.tokens, form)
        if form.dispatched_B > form.activation_B and not local:
            # tokens that travel in 16 bits are cast where they arrive
            norm = norm[:1]
        before = [*norm, *layers.router(model, self.tokens)]
        work = layers.experts(model, arriving, active, form, tp=self.tp)
        if self.costs is not None:
            costs = self.costs.experts_in(form.gemm)
            work = [*framework.around_experts(model, arriving, active, form, costs, tp=self.tp), *work]
        work += self._around(model, arriving, form)
        total = layers.combine_sum(model, self.tokens, self.copies, form)
        gathered, scattered = self._shared(arriving)
        if self.ranks == 1:
            return [
                Piece([*before, *local], gathered, *routing),
                Piece(work, scattered, *working),
                Piece(total, None, *working),
            ]
        wire = self.tokens * self.wire_copies * self.imbalance
        late = self.late or LateRanks()
        out = Comm("dispatch", "dispatch", wire * self.dispatch_B, slot, late.dispatch_us * self.tokens * US)
        back = Comm("combine", "combine", wire * self.combine_B, slot, late.combine_us * self.tokens * US)
        return [
            Piece([*before, *local], out, *routing),
            *([Piece([], gathered)] if gathered else []),
            *([Piece(work, scattered, *working), Piece([], back)] if scattered else [Piece(work, back, *working)]),
            Piece(total, None, *routing),
        ]

    def _around(self, model: ModelSpec, arriving: float, form: layers.Formats) -> list[Kernel]:
        """What a serving engine moves around products of cast rows, where experts are spread over ranks whole; kernels
        for all experts of a layer, or for parts of them, read rows where they lie."""
        of = self.served
        if of is None or not of.moved or not form.quantised or self.ranks == 1 or self.tp > 1:
            return []
        rows = arriving + self.experts_per_rank * of.padded_rows
        return [Kernel("expert rows", "generic", "", 0.0, of.moved * rows * model.hidden * form.stream_B)]

    def _active(self, model: ModelSpec, tokens: float) -> float:
        """Experts of the busiest rank that some of the group's tokens go to. [1]"""
        return moe.busiest_touched(
            self.experts_per_rank,
            ranks=1 if self.even else self.ranks,
            experts=model.experts,
            top_k=model.top_k,
            tokens=tokens,
        )

    def _summed(self, model: ModelSpec, form: layers.Formats, stream: str, cores: float) -> Piece:
        """Every rank routes all tokens, works with its own experts and its part of the shared one, and the results of
        all are added up, as engines do where experts lie on the ranks that attention is split over."""
        ranks = self.ranks * self.tp
        tokens, arriving = self.tokens * ranks, self.tokens * self.copies * self.imbalance * self.tp
        active = self._active(model, tokens)
        shared = model.shared_experts and not self.shared_in_slots
        kernels = [
            *layers.ffn_norm(model, tokens, form),
            *layers.router(model, tokens),
            *(
                layers.dense_ffn(model, tokens, ranks, form, width=model.shared_width, name="shared expert")
                if shared
                else []
            ),
            *layers.experts(model, arriving, active, form, tp=self.tp),
            *self._around(model, arriving, form),
            *layers.combine_sum(model, tokens, arriving / tokens, form),
        ]
        return Piece(kernels, Comm("tp sum", "all_reduce", tokens * model.hidden * form.stream_B, "tp"), stream, cores)

    def _shared(self, arriving: float) -> tuple[Comm | None, Comm | None]:
        """Messages among the ranks that share experts: tokens to all of them, and sums back, in 16 bits."""
        if self.tp == 1:
            return None, None
        size_B = arriving * self.combine_B
        return (
            Comm("gather tokens", "all_gather", size_B, "expert_tp"),
            Comm("scatter sums", "reduce_scatter", size_B, "expert_tp"),
        )


def plan_experts(
    model: ModelSpec,
    parallel: ParallelSpec,
    balance: Balance,
    *,
    ranks: int,
    tokens_per_rank: float,
    system: System,
    message_B: float,
    once_per_domain: bool,
    base: Path | None = None,
    expert_tp: int = 1,
    capacity_factor: float | None = None,
    stands: Ints | None = None,
) -> Experts:
    """Spread a model's experts over ``parallel.ep`` of ``ranks``, each over ``expert_tp`` neighbours.

    tokens_per_rank   tokens one rank routes at once
    message_B         bytes of one element of a dispatched token
    once_per_domain   bulk kernels send one copy of a token to each destination rank, and one to each other domain,
                      which fans it out (DeepEP's normal mode); latency kernels send every copy
    capacity_factor   each expert takes so many times its mean share of a rank's tokens, filled up or cut off there
    base              folder that the path of a file of loads starts from, beside the working folder
    stands            ranks of the system on which the ranks stand; default: as they are numbered
    """
    slots = parallel.expert_slots
    try:
        places = moe.place_experts(
            ranks // expert_tp,
            routed=model.experts,
            top_k=model.top_k,
            shared_experts=model.shared_experts,
            ep=parallel.ep,
            shared=slots.shared,
            redundant=slots.redundant,
        )
    except InfeasibleError as error:
        raise InfeasibleError(Problem(str(error), key="parallel.ep")) from None
    size = places.ep
    in_slots = places.shared > 0
    copies = float(model.top_k + (model.shared_experts if in_slots else 0))
    notes: list[str] = []
    if capacity_factor is not None:
        # every place is sent and worked on, whoever fills it: no rank has more than another
        copies += model.experts * _capacity(model, tokens_per_rank, capacity_factor) / tokens_per_rank - model.top_k
        wire, imbalance = copies, 1.0
        notes.append(
            f"an expert takes {_capacity(model, tokens_per_rank, capacity_factor):g} of the {tokens_per_rank:g} tokens "
            "of each rank: what is over is dropped, and counted as if it were not"
        )
    else:
        per_domain = system.spec.accelerators * system.ranks_per_package
        group = (np.arange(ranks) if stands is None else stands)[: size * expert_tp : expert_tp]
        domains = len(np.unique(group // per_domain))
        wire, said = _wire_copies(model, size, copies, domains) if once_per_domain and size > 1 else (copies, ())
        notes += said
        imbalance = _imbalance(model, balance, places, tokens_per_rank * expert_tp, base)
    if imbalance > 1:
        notes.append(
            f"expert load ({balance.model}): the busiest rank has {imbalance:.2f} times the mean and sets the pace "
            "of all"
        )
    stack = system.stack
    return Experts(
        ranks=size,
        experts_per_rank=float(places.per_rank),
        shared_in_slots=in_slots,
        tokens=tokens_per_rank,
        copies=copies,
        wire_copies=wire,
        imbalance=imbalance,
        dispatch_B=model.hidden * message_B + (stack.dispatch.scale_bytes_per_token if message_B < 2 else 0.0),
        combine_B=model.hidden * 2.0 + stack.combine.scale_bytes_per_token,
        notes=tuple(notes),
        tp=expert_tp,
        even=balance.model == "balanced" or capacity_factor is not None,
    )


def _capacity(model: ModelSpec, tokens: float, factor: float) -> float:
    """Places of one expert for the tokens of one rank: Megatron-LM, moe_utils.py, get_capacity. [1]"""
    return float(math.ceil(factor * tokens * model.top_k / model.experts * (1 - 1e-12)))


def _wire_copies(model: ModelSpec, size: int, copies: float, domains: int) -> tuple[float, tuple[str, ...]]:
    """Copies of one token that cross the wire where a rank, or another domain, is sent one of them; and notes. [1]"""
    if domains == 1:
        return moe.distinct_ranks(model.experts, model.top_k, size) + (copies - model.top_k), ()
    limit = model.topk_groups if model.expert_groups > model.topk_groups else domains
    wire = moe.distinct_ranks(model.experts, model.top_k, domains, limit=limit)
    said = f"a token crosses to each other domain once ({wire:.2f} of {domains} on average) and fans out inside it"
    return wire, (said,)


def _imbalance(
    model: ModelSpec, balance: Balance, places: moe.ExpertSlots, tokens_per_rank: float, base: Path | None
) -> float:
    """Busiest rank over the mean: what popularity leaves after copies are placed, and the scatter of random draws."""
    if balance.model == "balanced" or places.ep == 1:
        return 1.0
    if balance.model == "measured":
        return balance.imbalance
    skew = 1.0
    shares = popularity(model, balance, base)
    if shares is not None and balance.drift_steps is not None:
        skew = moe.drifted_imbalance(
            shares,
            places.redundant,
            places.ep,
            drift_steps=balance.drift_steps,
            every_steps=balance.rebalance_steps or math.inf,
            seed=balance.draw,
        )
    elif shares is not None:
        slots = moe.slot_shares(shares, moe.replicas(shares, places.redundant))
        skew = (
            moe.rank_imbalance(slots, places.ep, placement="packed")
            if len(slots) % places.ep == 0
            else float(slots.max() * len(slots))
        )
    mean = tokens_per_rank * model.top_k
    return skew * float(moe.multinomial_imbalance(mean, places.ep))


def popularity(model: ModelSpec, balance: Balance, base: Path | None) -> moe.Shares | None:
    """Share of the tokens each expert gets; None where all are equally popular."""
    if balance.model == "zipf":
        return moe.zipf_shares(model.experts, balance.zipf_exponent)
    if balance.model == "dirichlet":
        return moe.dirichlet_shares(model.experts, balance.dirichlet_alpha, seed=balance.draw)
    if balance.model == "file":
        assert balance.file is not None  # the schema has checked it
        path = locate(balance.file, base=base)
        if path is None:
            raise InputError(Problem(f"no such file: {balance.file}", key="balance.file"))
        return moe.read_shares(path, model.experts)
    return None
