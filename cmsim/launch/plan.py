"""What a launch file says, in the words of its tool: sizes, batches, formats, and what of it no model here knows."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from cmsim.errors import Problem


class PlanRead:
    """What plans of all kinds of tools have: how they are shown, and what is wrong with them."""

    defaults: dict[str, Any]
    problems: list[Problem]
    file: str

    def default(self, key: str, value: Any) -> Any:
        """Note that a value is the tool's."""
        self.defaults[key] = value
        return value

    def wrong(self, message: str, line: int | None = None, key: str = "") -> None:
        problem = Problem(message, self.file, line or None, key)
        if problem not in self.problems:
            self.problems.append(problem)


@dataclass
class LaunchPlan(PlanRead):
    """One job. None: the file does not say, and the tool has no default for it.

    Sizes count accelerators as the tool does (dies, where it starts a process for each). ``defaults`` are values that
    come from the tool and not from the file. Not shown: ``details`` for a model's file, ``problems``, ``system_name``.
    """

    tool: str = ""
    tool_version_basis: str = ""
    kind: str = "training"
    files: list[str] = field(default_factory=list)
    assume: str | None = None
    model: str | None = None
    model_guess: str | None = None
    model_dims: dict[str, Any] | None = None
    system: str | None = None
    nodes: int | None = None
    accelerators_per_node: int | None = None
    accelerators_used: int | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    dp: int | None = None
    ep: int | None = None
    ep_flag: int | None = None
    expert_tp: int | None = None
    expert_dp: int | None = None
    virtual_stages: int | None = None
    stage_layers: Any = None
    schedule: str | None = None
    sequence_parallel: bool | None = None
    micro_batch: int | None = None
    micro_batches: int | None = None
    grad_accumulation: int | None = None
    global_batch: int | None = None
    seq_len: int | None = None
    precision: str | None = None
    fp8: dict[str, str] | None = None
    recompute: Any = None
    zero: int | None = None
    zero_options: dict[str, Any] | None = None
    fsdp: dict[str, Any] | None = None
    offload: dict[str, Any] | None = None
    capacity_factor: float | None = None
    lora: dict[str, Any] | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    from_recipe: list[str] | None = None
    note: str | None = None
    warn: list[str] = field(default_factory=list)
    deprecated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    system_name: str = ""
    file: str = ""

    #: shown even where they are empty
    _always = ("model", "defaults", "unread", "ignored")
    _hidden = ("details", "problems", "system_name", "file")

    def explained(self) -> dict[str, Any]:
        """The plan as the keys of ``--explain``, in their order."""
        out = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in self._hidden or (value in (None, [], {}) and one.name not in self._always):
                continue
            out[one.name] = copied(value)
        return out


def copied(value: Any) -> Any:
    """Plain values only, none of them twice the same object."""
    if isinstance(value, dict):
        return {str(key): copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [copied(one) for one in value]
    return str(value) if isinstance(value, str) else value


def divisors(number: int, *, near: int) -> str:
    """The divisors next to a number, for an error message.

    >>> divisors(48, near=5)
    '4 or 6'
    """
    found = [n for n in range(1, min(number, 100_000) + 1) if number % n == 0]
    below = max((n for n in found if n <= near), default=None)
    above = min((n for n in found if n >= near), default=None)
    return " or ".join(str(n) for n in dict.fromkeys(n for n in (below, above) if n))


def multiples(step: int, *, near: int) -> str:
    """The multiples of a number next to another.

    >>> multiples(24, near=100)
    '96 or 120'
    """
    below = near // step * step
    return " or ".join(str(n) for n in (below, below + step) if n)


def check(plan: LaunchPlan, lines: Any) -> None:
    """Problems of a plan whose sizes do not go into each other, each with the rule and the nearest values that do.

    lines: of a key, where it stands
    """

    def rule(holds: bool, key: str, message: str) -> None:
        if not holds:
            plan.wrong(message, lines(key), key)

    tp, pp, cp, dp = (getattr(plan, key) or 1 for key in ("tp", "pp", "cp", "dp"))
    world = plan.accelerators_used
    cut = tp * pp * cp
    if world:
        rule(
            world % cut == 0,
            "dp",
            f"{world} accelerators are no multiple of tp x pp x cp = {tp} x {pp} x {cp} = {cut}; nearest: "
            f"{multiples(cut, near=world)} accelerators",
        )
    if plan.global_batch and plan.micro_batch and dp and (not world or world % cut == 0):
        each = plan.micro_batch * dp
        rule(
            plan.global_batch % each == 0,
            "global_batch",
            f"a global batch of {plan.global_batch} is no multiple of micro-batch x dp = {plan.micro_batch} x {dp}; "
            f"nearest: {multiples(each, near=plan.global_batch)}",
        )
    dims = plan.model_dims or {}
    experts, ep = dims.get("experts"), plan.ep or 1
    if experts:
        rule(
            experts % ep == 0,
            "ep",
            f"{experts} experts do not divide over ep = {ep}; nearest: {divisors(experts, near=ep)}",
        )
        apart = ep * (plan.expert_tp or 1) * pp
        if world and ep > 1 and world % cut == 0:
            rule(
                world % apart == 0,
                "ep",
                f"{world} accelerators are no multiple of ep x expert tp x pp = {ep} x {plan.expert_tp or 1} x {pp}",
            )
    layers = dims.get("layers_padded") or dims.get("layers")
    if layers and pp > 1 and not plan.stage_layers and plan.schedule != "dualpipev":
        pieces = pp * (plan.virtual_stages or 1)
        counted = layers + int(plan.details.get("counted_layers", 0))
        rule(
            pieces <= counted and counted % pieces == 0,
            "pp",
            f"{counted} layers do not divide over pp x virtual stages = {pp} x {plan.virtual_stages or 1}; nearest: "
            f"{divisors(counted, near=pieces)} pieces",
        )
    if plan.seq_len and cp > 1:
        rule(
            plan.seq_len % (2 * cp) == 0,
            "cp",
            f"a sequence of {plan.seq_len} tokens does not divide over 2 x cp = {2 * cp} pieces; nearest: "
            f"{multiples(2 * cp, near=plan.seq_len)} tokens",
        )
    if dims.get("heads") and tp > 1:
        rule(
            dims["heads"] % tp == 0,
            "tp",
            f"{dims['heads']} heads do not divide over tp = {tp}; nearest: {divisors(dims['heads'], near=tp)}",
        )
