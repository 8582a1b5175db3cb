"""Whole sequences or prompts of a step of inference: how many the busiest has, in how many groups and micro-batches.

Sequences are whole: every rank is priced as the busiest, and fills up with empty ones what it has less. A chain of
pipeline stages holds as many groups as stages, one at each of them; a group is cut into micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.hardware import Sharing, System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.workload import whole
from cmsim.workload.generate.parallel import Layout


@dataclass(frozen=True)
class Batch:
    """Whole sequences of a run.

    total   of all ranks, were they as full as the busiest    worked  of all as they are
    held    of the busiest holder: a rank with data-parallel attention, a tensor group otherwise, with those that share
            its sequences and with its other pipeline stages
    groups  of them, the largest first: those that pass the stages at once    parts  micro-batches of the largest group
    notes   what to say of them    beside  tokens of prompts that are worked on with those of the busiest group, shared
            out over its sequences    shared  ranks over which new tokens of its sequences are shared out
    """

    total: float
    worked: float
    held: float
    groups: tuple[float, ...]
    parts: tuple[float, ...]
    notes: tuple[str, ...] = ()
    beside: float = 0.0
    shared: int = 1

    def own(self, held: float) -> float:
        """Of so many of a holder's sequences, those whose new tokens one rank works on. [1]"""
        return whole.busiest(held, self.shared)

    def tokens(self, held: float, per_sequence: float) -> float:
        """Tokens that a rank works on for so many of a group's sequences. [1]"""
        return self.own(held) * per_sequence + self.beside * (held / self.groups[0])

    def cut(self, group: float) -> tuple[float, ...]:
        """Micro-batches of a group. [1]"""
        return self.parts if group == self.groups[0] else whole.parts(group, len(self.parts))


def heads_tp(layout: Layout, spec: PrefillSpec | DecodeSpec) -> int:
    """Ranks that heads are split over. [1]"""
    return layout.tp if spec.parallel.attention == "tp" else 1


def new_tokens(spec: PrefillSpec | DecodeSpec) -> float:
    """Tokens that a step works on, of each sequence. [1]"""
    if spec.kind == "prefill":
        return float(spec.prompt_tokens)
    return 1.0 + (spec.speculative.nodes if spec.speculative else 0)


def sharing(spec: PrefillSpec | DecodeSpec, system: System) -> Sharing:
    """How micro-batches of its kind of work share a rank."""
    return system.stack.overlap.decode if spec.kind == "decode" else system.stack.overlap.bulk


def batch_of(spec: PrefillSpec | DecodeSpec, layout: Layout, system: System) -> Batch:
    """The sequences of a step on a layout."""
    what = "prompts" if spec.kind == "prefill" else "sequences"
    total, notes = whole.counted(spec.batch_per_accelerator, layout.ranks / system.ranks_per_package, what)
    holders = layout.ranks // (heads_tp(layout, spec) * layout.cp * layout.pp)
    held = whole.busiest(total, holders)
    groups = whole.parts(held, layout.pp)
    parts = whole.parts(groups[0], spec.microbatches)
    tokens, least = groups[0] * new_tokens(spec), sharing(spec, system).least_tokens
    if spec.microbatches > 1 and tokens < least:
        parts = groups[:1]
        notes = (
            *notes,
            f"one micro-batch: {tokens:g} tokens of the busiest rank, and engines cut batches from {least:g} on",
        )
    apart = layout.cp * layout.pp > 1
    holder = "rank" if holders == layout.ranks else "group of ranks" if apart else "tensor group"
    if held * holders > total:
        filled = f"{total:g} {what} on {holders} {holder}s: every {holder} is priced as the busiest, with {held:g}"
        notes = (*notes, filled)
    if len(parts) < spec.microbatches and tokens >= least:
        of = held if layout.pp == 1 else groups[0]
        notes = (*notes, f"the busiest {holder} holds {of:g} of the {what}, too few for {spec.microbatches} parts")
    if len(groups) < layout.pp:
        few = f"{held:g} of the {what} on {layout.pp} stages: {layout.pp - len(groups)} of them wait at any time"
        notes = (*notes, few)
    if spec.evenness < 1:
        mean = (
            f"{what} are of the busiest {holder}; all have {spec.evenness:.3g} of it in the mean, and draw as it does"
        )
        notes = (*notes, mean)
    chunk = spec.chunk if spec.kind == "decode" else None
    shared = layout.cp if spec.kind == "decode" else 1
    beside = float(chunk.tokens) if chunk else 0.0
    return Batch(total, total * spec.evenness, held, groups, parts, notes, beside, shared)
