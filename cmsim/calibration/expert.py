"""Dispatch and combine of experts: the columns of tables, and their predicted times.

Two tables are read: one operation a row (``op_name``, ``kernel_source``), and one pair a row (``mode``), whose
predicted time is that of dispatch and combine together.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.calibration import tables
from cmsim.calibration.places import place
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import System, load_system
from cmsim.libraries.experts import (
    Exchange,
    ExpertProfile,
    Operation,
    exchange_copies,
    exchange_us,
    expert_library,
    expert_note,
    expert_reach,
)
from cmsim.topology.levels import Fabric, fabric

if TYPE_CHECKING:
    import pandas as pd

Names = tuple[tuple[str, ...], NDArray[np.int64]]
_BLOCK = 65_536
_POWER_LAW = re.compile(r"power_law_(\d+(?:\.\d+)?)$")
_PAIR = ("dispatch", "combine")


@dataclass(frozen=True)
class ExpertCalls:
    """One call a row. Text columns are names with codes.

    system, kernel, operation, form, skew: whose, which profile, dispatch or combine or..., number format, routing
    ranks: p; where 0, of ``nodes`` whole nodes    tokens: of one rank    sms: 0 where the table has none
    columns: the table's names of these, where they differ
    """

    system: Names
    kernel: Names
    operation: Names
    form: Names
    skew: Names
    ranks: Floats
    nodes: Floats
    tokens: Floats
    hidden: Floats
    top_k: Floats
    experts: Floats
    sms: Floats
    columns: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> str:
        """What the table calls one of the above, for errors."""
        return self.columns.get(name, name)


def alltoall_calls(frame: pd.DataFrame, *, file: str, system: str | None = None) -> ExpertCalls:
    """The columns of a table with one operation a row, checked.

    InputError: columns are absent; numbers are negative, zero, not whole or not numbers: each with column and row.
    """
    own = ["op_name", "kernel_source", "moe_dtype", "num_tokens", "hidden_size", "topk", "num_experts", "moe_ep_size"]
    _need(frame, own if system else ["system", *own], file)
    problems: list[Problem] = []
    ranks, tokens, hidden, top_k, experts = (
        _whole(frame, name, file, problems)
        for name in ("moe_ep_size", "num_tokens", "hidden_size", "topk", "num_experts")
    )
    _within(problems, file, "topk", top_k, experts)
    count = len(frame)
    skew = (
        tables.codes(frame["distribution"]) if "distribution" in frame.columns else tables.one_name("balanced", count)
    )
    names, code = tables.codes(frame["op_name"])
    if problems:
        raise InputError(problems)
    return ExpertCalls(
        system=tables.one_name(system, count) if system else tables.codes(frame["system"]),
        kernel=tables.codes(frame["kernel_source"]),
        operation=(tuple(name.removeprefix("alltoall_") for name in names), code),
        form=tables.codes(frame["moe_dtype"]),
        skew=skew,
        ranks=ranks,
        nodes=np.zeros(count),
        tokens=tokens,
        hidden=hidden,
        top_k=top_k,
        experts=experts,
        sms=np.zeros(count),
        columns={
            "kernel": "kernel_source",
            "operation": "op_name",
            "form": "moe_dtype",
            "skew": "distribution",
            "ranks": "moe_ep_size",
        },
    )


def pair_calls(frame: pd.DataFrame, *, file: str, operation: str, system: str | None = None) -> ExpertCalls:
    """The columns of a table with a dispatch and a combine in every row, checked; one of the two.

    InputError: as ``alltoall_calls``; ``sms`` may be empty in rows whose kernels take no cores.
    """
    own = ["mode", "node_num", "hidden_size", "num_token", "num_topk", "num_experts"]
    _need(frame, own if system else ["system", *own], file)
    problems: list[Problem] = []
    nodes, tokens, hidden, top_k, experts = (
        _whole(frame, name, file, problems)
        for name in ("node_num", "num_token", "hidden_size", "num_topk", "num_experts")
    )
    _within(problems, file, "num_topk", top_k, experts)
    kernel = tables.codes(frame["mode"])
    count = len(frame)
    sms = np.zeros(count)
    if "sms" in frame.columns:
        profiles = expert_library().profiles
        found = [expert_library().profile(name) for name in kernel[0]]
        takes = np.array([name is not None and profiles[name].form == "bulk" for name in found] or [False])[kernel[1]]
        given = frame["sms"].where(takes, 1)
        sms = _whole(given.to_frame(), "sms", file, problems)
    if problems:
        raise InputError(problems)
    return ExpertCalls(
        system=tables.one_name(system, count) if system else tables.codes(frame["system"]),
        kernel=kernel,
        operation=tables.one_name(operation, count),
        form=tables.one_name("any", count),
        skew=tables.one_name("uniform", count),
        ranks=np.zeros(count),
        nodes=nodes,
        tokens=tokens,
        hidden=hidden,
        top_k=top_k,
        experts=experts,
        sms=sms,
        columns={"kernel": "mode", "ranks": "node_num"},
    )


def pair_operations(columns: tuple[str, ...]) -> tuple[str, ...]:
    """What the predicted time of a pair is of: the one that was measured, or both together."""
    measured = tuple(name for name in _PAIR if f"{name}_us" in columns)
    return measured if len(measured) == 1 else _PAIR


def predict_calls_us(calls: ExpertCalls, *, file: str = "") -> Floats:
    """Predicted time of every call. [us]

    InputError: a system, kernel, operation, number format or routing that is not known, or more ranks than a kernel
    reaches, with the first row that has it.
    """
    return predict_noted(calls, file=file)[0]


def predict_noted(calls: ExpertCalls, *, file: str = "") -> tuple[Floats, NDArray[np.int64], list[str]]:
    """Predicted time of every call [us], and notes of those outside what was measured: of every call its position among
    the texts, of which the first is empty.

    InputError: as ``predict_calls_us``.
    """
    out = np.empty(len(calls.tokens))
    said = np.zeros(len(out), np.int64)
    texts = [""]
    for group in groups(calls, file=file):
        kernel, accelerator = group.name.partition("/")[0], group.system.accelerator.name
        for start in range(0, len(group.rows), _BLOCK):
            rows = group.rows[start : start + _BLOCK]
            at = exchange(calls, group, rows)
            out[rows] = group.us(at)
            ways = expert_reach(group.profile, accelerator, ranks=at.ranks, tokens=at.tokens)
            if ways.any():
                said[rows] = tables.noted(ways, functools.partial(expert_note, kernel, group.profile), texts)
    return out, said, texts


@dataclass(frozen=True)
class ExpertGroup:
    """Rows of one system, operation, number format and routing, on one side of the domain's edge.

    name: profile, operation, "between" where NICs take part and the profile has kernels of their own for it
    """

    name: str
    rows: NDArray[np.int64]
    system: System
    levels: Fabric
    profile: ExpertProfile
    operation: Operation
    form: str
    skew: str
    constants: Mapping[str, float]

    def us(self, at: Exchange, constants: Mapping[str, float] | None = None) -> Floats:
        """Time of calls, by the shipped constants or by others. [us]"""
        return exchange_us(self.profile, constants or self.constants, at)


def groups(calls: ExpertCalls, *, file: str = "") -> list[ExpertGroup]:
    """The rows by what is the same in them.

    InputError: as ``predict_calls_us``.
    """
    library = expert_library()
    columns = (calls.system, calls.kernel, calls.operation, calls.form, calls.skew)
    code = np.zeros(len(calls.tokens), dtype=np.int64)
    for names, own in columns:
        code = code * len(names) + own
    problems: list[Problem] = []
    out: list[ExpertGroup] = []
    systems: dict[str, System] = {}
    for number in np.unique(code).tolist():
        rows = np.flatnonzero(code == number)
        texts = [names[own[rows[0]]] for names, own in columns]
        system_name, kernel, operation_name, form, skew = texts
        row = f"row {rows[0]}: "
        try:
            system = systems.get(system_name) or systems.setdefault(system_name, _system(system_name))
        except InputError as error:
            problems += [Problem(one.message, file, key=f"{row}system") for one in error.problems]
            continue
        key = library.profile(kernel)
        if key is None:
            known = [name for one, profile in library.profiles.items() for name in (one, *profile.names)]
            hint = did_you_mean(kernel, known, limit=len(known))
            problems.append(Problem(f"no kernel '{kernel}'. {hint}", file, key=row + calls.column("kernel")))
            continue
        profile = library.profiles[key]
        if operation_name not in profile.operations:
            hint = did_you_mean(operation_name, profile.operations)
            problems.append(
                Problem(f"{key} has no operation '{operation_name}'. {hint}", file, key=row + calls.column("operation"))
            )
            continue
        if profile.operations[operation_name].payload(form) is None:
            known = list(profile.operations[operation_name].payloads)
            hint = did_you_mean(form, known)
            problems.append(Problem(f"number format '{form}'. {hint}", file, key=row + calls.column("form")))
            continue
        if skew not in ("balanced", "uniform") and not _POWER_LAW.match(skew):
            problems.append(
                Problem(
                    f"got '{skew}'. Allowed: balanced, uniform, power_law_<exponent>.",
                    file,
                    key=row + calls.column("skew"),
                )
            )
            continue
        levels = fabric(system)
        ranks = _ranks(calls, levels, rows)
        far = ranks > levels.ranks_per_domain
        if far.any() and (profile.form in ("domain", "fused") or levels.nic_Bps <= 0):
            first = int(rows[np.argmax(far)])
            problems.append(
                Problem(
                    f"{int(ranks[far][0])} ranks; {key} reaches the {levels.ranks_per_domain} of a domain of "
                    f"{system.name}",
                    file,
                    key=f"row {first}: {calls.column('ranks')}",
                )
            )
            continue
        for there in (False, True):
            part = rows[far] if there else rows[~far]
            if not len(part):
                continue
            kernels = profile.between if there and operation_name in profile.between else profile.operations
            label = f"{key}/{operation_name}" + ("/between" if kernels is profile.between else "")
            operation = kernels[operation_name]
            constants = operation.classes.get(_class(system, operation), operation.common)
            out.append(ExpertGroup(label, part, system, levels, profile, operation, form, skew, constants))
    if problems:
        raise InputError(problems)
    return out


def exchange(calls: ExpertCalls, group: ExpertGroup, rows: NDArray[np.int64]) -> Exchange:
    """What some rows of a group move."""
    profile, system, levels = group.profile, group.system, group.levels
    payload = group.operation.payload(group.form)
    assert payload is not None  # ``groups`` has checked it
    ranks = _ranks(calls, levels, rows)
    domains = np.ceil(ranks / levels.ranks_per_domain)
    hidden, top_k, experts = calls.hidden[rows], calls.top_k[rows], calls.experts[rows]
    routing = profile.routing
    if routing == "even" and group.skew != "balanced":
        routing = "rank"
    copies, far_copies = exchange_copies(
        routing,
        experts=experts,
        top_k=top_k,
        ranks=ranks,
        domains=domains,
        limit=profile.group_limit or np.inf,
    )
    cores = system.accelerator.cores / system.ranks_per_package
    full = np.ones(len(rows))
    given = calls.sms[rows]
    return Exchange(
        ranks=ranks,
        domains=domains,
        tokens=calls.tokens[rows],
        hidden=hidden,
        top_k=top_k,
        experts=experts,
        message_B=hidden * payload.element_B + np.ceil(hidden / payload.block) * payload.scale_B + payload.token_B,
        copies=copies + profile.shared_destinations,
        far_copies=far_copies,
        blocks=full * cores,
        sms=np.where(given > 0, given, profile.cores or cores),
        busy=_busy(group.skew, experts, ranks),
        port_Bps=full * levels.port_Bps,
        nic_Bps=full * levels.nic_Bps,
        memory_Bps=full * system.rank_memory_Bps,
    )


def expert_us(
    system: str,
    kernel: str,
    operation: str,
    *,
    ranks: float,
    tokens: float,
    hidden: float,
    top_k: float,
    experts: float,
    form: str = "any",
    sms: float = 0,
    distribution: str = "balanced",
) -> float:
    """Time of one dispatch or combine. [us]

    Parameters
    ----------
    system
        Name, alias or file.
    kernel
        A profile or one of its names.
    operation
        ``dispatch``, ``combine``, ...
    ranks
        p. [1]
    tokens
        T of one rank. [1]
    hidden
        Elements of a token. [1]
    top_k
        Experts of a token. [1]
    experts
        Of the layer. [1]
    form
        Number format; ``any`` for the kernel's own.
    sms
        Cores of the kernel; 0 for its default. [1]
    distribution
        Of tokens over experts.

    Returns
    -------
    float
        On the busiest rank. [us]

    Raises
    ------
    InputError
        A name that is not known; a number that is not a whole one above 0.
    """
    numbers = {"ranks": ranks, "tokens": tokens, "hidden": hidden, "top_k": top_k, "experts": experts}
    problems = [
        Problem(f"must be a whole number above 0, got {value}", key=name)
        for name, value in numbers.items()
        if not (np.isfinite(value) and value >= 1 and value == int(value))
    ]
    if problems:
        raise InputError(problems)
    if top_k > experts:
        raise InputError(Problem(f"{top_k} of {experts} experts", key="top_k"))
    p, own_tokens, width, k, count = (np.array([float(value)]) for value in numbers.values())
    calls = ExpertCalls(
        system=tables.one_name(system, 1),
        kernel=tables.one_name(kernel, 1),
        operation=tables.one_name(operation, 1),
        form=tables.one_name(form, 1),
        skew=tables.one_name(distribution, 1),
        ranks=p,
        nodes=np.zeros(1),
        tokens=own_tokens,
        hidden=width,
        top_k=k,
        experts=count,
        sms=np.array([float(sms)]),
    )
    return float(predict_calls_us(calls)[0])


def _class(system: System, operation: Operation) -> str:
    """The class whose constants an accelerator has, by its own name or its relative's."""
    own, library = system.accelerator, expert_library()
    found = library.class_of(own.name, operation)
    return library.class_of(own.relative, operation) if found == "common" and own.relative else found


def _system(name: str) -> System:
    """A table's system: a built-in name, an alias, a file, or a text that ``topologies/libraries`` knows."""
    try:
        return load_system(name)
    except InputError:
        return load_system(place(name).name)


def _ranks(calls: ExpertCalls, levels: Fabric, rows: NDArray[np.int64]) -> Floats:
    given = calls.ranks[rows]
    return np.where(given > 0, given, calls.nodes[rows] * levels.ranks_per_node)


def _busy(skew: str, experts: Floats, ranks: Floats) -> Floats:
    """Load of the busiest rank over the mean where experts' loads follow a power law. [1]

    Loads are the quantiles of a Pareto density x^-a between 1 and 1000, dealt to ranks in turn, heaviest first.
    """
    found = _POWER_LAW.match(skew)
    out = np.ones(len(ranks))
    if found is None:
        return out
    a = float(found[1])
    for number in np.unique(np.stack([experts, ranks], axis=1), axis=0):
        count, size = int(number[0]), int(number[1])
        u = (np.arange(count)[::-1] + 0.5) / count
        load = 1000.0**u if a == 1.0 else (1.0 + u * (1000.0 ** (1.0 - a) - 1.0)) ** (1.0 / (1.0 - a))
        total = np.bincount(np.arange(count) % size, weights=load, minlength=size)
        out[(experts == count) & (ranks == size)] = total.max() / total.mean()
    return out


def _need(frame: pd.DataFrame, names: list[str], file: str) -> None:
    have = [str(name) for name in frame.columns]
    missing = [name for name in names if name not in have]
    if missing:
        raise InputError(
            Problem(f"no such column. {did_you_mean(name, have, limit=20)}", file, key=name) for name in missing
        )


def _whole(frame: pd.DataFrame, name: str, file: str, problems: list[Problem]) -> Floats:
    return tables.numbers(frame, name, file, problems, rule="a whole number above 0", good=tables.whole)


def _within(problems: list[Problem], file: str, name: str, top_k: Floats, experts: Floats) -> None:
    """A token cannot go to more experts than there are."""
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(top_k > experts)
    if len(bad):
        row = int(bad[0])
        problems.append(Problem(f"{int(top_k[row])} of {int(experts[row])} experts", file, key=f"row {row}: {name}"))
