"""One collective, timed: every group calls it at once. Its bytes are given, or those of a matrix, or of tokens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.collective import CollectiveFacts, CollectiveSpec
from cmsim.reading import locate, read_text
from cmsim.reading.tables import number, rows_of
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload import moe
from cmsim.workload.ops import ProgramBuilder, Programs, assemble


def programs(spec: CollectiveSpec, system: System, base: Path | None = None) -> Programs:
    """``repeat`` calls, one after the other, by groups of ``group`` ranks at distance ``stride``.

    send_recv: even ranks of a group send to their odd neighbour.
    """
    ranks = spec.ranks or system.ranks
    if ranks > system.ranks:
        raise InfeasibleError(Problem(f"got {ranks}; {system.name} has {system.ranks} ranks", key="ranks"))
    size = ranks if spec.group == "all" else spec.group
    block = size * spec.stride
    if size > ranks or ranks % block:
        raise InfeasibleError(
            Problem(f"groups of {size} at distance {spec.stride} do not divide {ranks} ranks evenly", key="group")
        )
    rank = np.arange(ranks)
    group = rank // block * spec.stride + rank % spec.stride
    if spec.collective == "send_recv":
        return _pairs(spec, rank, group)
    if size < 2:
        raise InfeasibleError(Problem(f"a {spec.collective} needs at least two ranks, got {size}", key="group"))
    matrix = _matrix_B(spec, system, size, base)
    size_B = float(spec.message_bytes or 0.0)
    notes: list[str] = []
    if matrix is not None:
        size_B, notes = _busiest_B(matrix)
    build = ProgramBuilder()
    traffic = None if matrix is None else matrix / size_B
    name = spec.collective
    for _ in range(spec.repeat):
        build.collective(name, stream="comm", collective=name, size_B=size_B, slot="group", traffic=traffic)
    facts = CollectiveFacts(size_B=size_B, ranks_in_group=float(size), calls=float(spec.repeat))
    return assemble(
        [build],
        program=np.zeros(ranks, np.int64),
        groups={"group": group},
        facts=facts,
        notes=notes,
        plan={"ranks_in_group": size, "groups": ranks // size},
    )


def _matrix_B(spec: CollectiveSpec, system: System, size: int, base: Path | None) -> Floats | None:
    """Bytes from every member of a group to every other, the diagonal 0; None where all blocks are alike. [B]"""
    if spec.matrix is not None:
        return _read_matrix_B(spec.matrix, size, base)
    if spec.exchange is None:
        return None
    from cmsim.workload.generate.experts import popularity
    from cmsim.workload.model import load_model

    exchange, stack = spec.exchange, system.stack
    model = load_model(exchange.model)
    if not model.experts:
        raise InputError(Problem(f"{exchange.model} has no experts", key="exchange.model"))
    try:
        places = moe.place_experts(
            size,
            routed=model.experts,
            top_k=model.top_k,
            shared_experts=model.shared_experts,
            ep=size,
            shared=exchange.expert_slots.shared,
            redundant=exchange.expert_slots.redundant,
        )
    except InfeasibleError as error:
        raise InfeasibleError(Problem(str(error), key="exchange.expert_slots")) from None
    element_B = BYTES_PER_ELEMENT[exchange.precision]
    scales_B = stack.dispatch.scale_bytes_per_token if element_B < 2 else 0.0
    message_B = model.hidden * element_B + scales_B
    if spec.collective == "combine":
        message_B = model.hidden * 2.0 + stack.combine.scale_bytes_per_token
    if exchange.balance.model in ("balanced", "measured"):
        raise InputError(
            Problem(
                f"got {exchange.balance.model!r}. Tokens are drawn one by one: multinomial, zipf, dirichlet, file.",
                key="exchange.balance.model",
            )
        )
    if exchange.balance.drift_steps is not None:
        raise InputError(
            Problem("goes with steps of a model; an exchange is one call", key="exchange.balance.drift_steps")
        )
    shares = popularity(model, exchange.balance, base)
    limited = model.expert_groups > model.topk_groups
    per_node = system.spec.node.accelerators * system.ranks_per_package
    matrix = moe.dispatch_matrix_B(
        size,
        tokens_per_rank=exchange.tokens,
        top_k=model.top_k,
        message_B=message_B,
        shares=np.full(model.experts, 1.0 / model.experts) if shares is None else shares,
        redundant=places.redundant,
        shared=places.shared,
        once=exchange.once,
        per_node=per_node if size % per_node == 0 else None,
        # groups of experts are nodes where there are as many of them
        node_limit=model.topk_groups if limited and size == model.expert_groups * per_node else None,
        seed=exchange.balance.draw,
    )
    np.fill_diagonal(matrix, 0.0)
    return matrix.T if spec.collective == "combine" else matrix


def _read_matrix_B(name: str, size: int, base: Path | None) -> Floats:
    """A square of bytes from a CSV file. Raises InputError with file and line."""
    path = locate(name, base=base)
    if path is None:
        raise InputError(Problem(f"no such file: {name}", key="matrix"))
    lines = read_text(path).splitlines()
    matrix = _quickly(lines, size)
    if matrix is None:
        matrix = _line_by_line(lines, name, size)
    np.fill_diagonal(matrix, 0.0)
    if not matrix.any():
        raise InputError(Problem("no rank sends anything to another", name))
    return matrix


def _quickly(lines: list[str], size: int) -> Floats | None:
    """A square of numbers of 0 or more, or None where something may be said against it."""
    if len(lines) != size:
        return None
    try:
        matrix = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None
    good = matrix.shape == (size, size) and bool((matrix >= 0).all()) and bool(np.isfinite(matrix).all())
    return matrix if good else None


def _line_by_line(lines: list[str], name: str, size: int) -> Floats:
    rows: list[list[float]] = []
    problems: list[Problem] = []
    for line, cells in rows_of("\n".join(lines), file=name):
        row = [number(cell) for cell in cells]
        bad = [i for i, value in enumerate(row) if not 0 <= value < math.inf]
        if bad:
            message = f"column {bad[0] + 1}: bytes are 0 or more and finite, got '{cells[bad[0]]}'"
            problems.append(Problem(message, name, line))
        elif len(row) != size:
            problems.append(Problem(f"has {len(row)} columns; the group has {size} ranks", name, line))
        rows.append(row)
    if not problems and len(rows) != size:
        problems.append(Problem(f"has {len(rows)} rows; the group has {size} ranks", name))
    if problems:
        raise InputError(problems[:5])
    return np.array(rows)


def _busiest_B(matrix: Floats) -> tuple[float, list[str]]:
    """S of an exchange of equal blocks that loads every rank as this one loads the busiest [B], and what to say."""
    sent = np.maximum(matrix.sum(axis=0), matrix.sum(axis=1))
    ranks = len(matrix)
    skew = float(sent.max() / (matrix.sum() / ranks))
    note = f"unequal blocks: the busiest rank sends or receives {skew:.2f} times the mean, and its bytes are the size"
    return float(sent.max()) * ranks / (ranks - 1), [note]


def _pairs(spec: CollectiveSpec, rank: np.ndarray, group: np.ndarray) -> Programs:
    if len(rank) % 2:
        raise InfeasibleError(Problem(f"send_recv pairs ranks; {len(rank)} is odd", key="ranks"))
    order = np.lexsort((rank, group))
    position = np.empty_like(rank)
    position[order] = np.arange(len(rank))
    channel = position // 2
    size_B = float(spec.message_bytes or 0.0)
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    for _ in range(spec.repeat):
        sender.send("send", stream="comm", size_B=size_B, slot="out")
        receiver.recv("recv", stream="comm", size_B=size_B, slot="in")
    odd = position % 2
    return assemble(
        [sender, receiver],
        program=odd,
        groups={"out": np.where(odd == 0, channel, -1), "in": np.where(odd == 1, channel, -1)},
        facts=CollectiveFacts(size_B=size_B, ranks_in_group=2.0, calls=float(spec.repeat)),
        plan={"ranks_in_group": 2, "groups": len(rank) // 2},
    )
