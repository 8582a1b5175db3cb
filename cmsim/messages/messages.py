"""The rounds of an algorithm as arrays of messages.

``Algorithm.schedule`` lists every send with its blocks, which is what an algorithm is checked by; a million of them
take seconds. Patterns that are plain (all pairs, neighbours, shifts) are written as arrays here, and a test holds them
equal to the schedule. Everything else comes from the schedule itself. Rounds that repeat stand once, with how often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.collectives import CANDIDATES, Algorithm, GridLike, Round, collective_code
from cmsim.collectives.hierarchical import Stage
from cmsim.errors import InfeasibleError, InputError, did_you_mean

Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Messages:
    """The messages of one round, all sent at once. Ranks are positions in the group; -1 stands for the switch.

    src, dst  shape (messages,)    size_B  of each, shape (messages,), or (1,) where all are equal [B]
    times     how often the round follows itself [1]
    """

    src: Numbers
    dst: Numbers
    size_B: Floats
    times: int = 1

    @property
    def total_B(self) -> float:
        """Bytes of one such round. [B]"""
        return float(np.sum(np.broadcast_to(self.size_B, len(self.src))))

    @property
    def key(self) -> bytes:
        """Equal for rounds that send the same: a digest, as a round may have millions of messages."""
        digest = hashlib.blake2b(digest_size=16)
        for column in (self.src, self.dst, self.size_B):
            digest.update(len(column).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(column).data)
        return digest.digest()


def rounds(algorithm: Algorithm, ranks: int, size_B: float) -> list[Messages]:
    """The rounds of an algorithm, in order.

    ranks: p [1]    size_B: S, as ``Algorithm`` counts it [B]

    >>> from cmsim.collectives import candidates
    >>> [(len(r.src), float(r.size_B[0]), r.times) for r in rounds(candidates("all_reduce")[0], 4, 400.0)]
    [(4, 100.0, 6)]
    """
    if algorithm.arrays is not None:
        return _from_arrays(algorithm.arrays(size_B))
    quick = _QUICK.get((algorithm.collective, algorithm.name))
    if quick is None:
        return _from_schedule(algorithm, ranks, size_B)
    return [] if ranks < 2 else quick(ranks, float(size_B))


def candidate_rounds(
    collective: str,
    name: str,
    ranks: int,
    *,
    inner: int = 1,
    domain: int = 0,
    most: int = 1 << 24,
    grid: GridLike | None = None,
) -> list[Messages]:
    """The rounds of one of the chooser's candidates for S of one byte, blocks and slices of a hierarchy side by side.

    Where a flat algorithm that rotates leaves its domains, it runs as one copy for each member of a domain, with
    shifted places and its part of the bytes, as libraries do with channels: every NIC has its share of what leaves.

    ranks: p [1]    inner: ranks of a block, neighbours in the group, for hierarchical candidates [1]
    domain: members in one domain, neighbours in the group; 0 for all [1]
    most: messages of a round beyond which it is refused [1]    grid: on which the ranks lie, if they lie on one

    InputError: no such candidate. InfeasibleError: more messages than ``most``.

    >>> [len(r.src) for r in candidate_rounds("all_reduce", "hierarchical(direct, ring)", 8, inner=4)]
    [24, 8, 24]
    """
    out: list[Messages] = []
    for stage, algorithm in _phases(collective, name):
        group, copies, rotated = _parts(stage, algorithm, ranks, inner, domain)
        share = float(stage.share(inner))
        # one domain, of which ``inner`` are in a node, or a block that is a whole domain
        near = inner if stage.part == "all" else min(grid.ranks_per_node if grid is not None else 1, group)
        for one in rounds(fitted(algorithm, group, grid=grid, in_node=near), group, share):
            _refuse_beyond(most, len(one.src) * copies, collective, name, ranks)
            if stage.part != "all":
                one = _repeated(one, stage.part, group, copies)
            elif rotated:
                one = _rotated(one, ranks, domain)
            out.append(one)
    return out


def check_count(collective: str, name: str, ranks: int, *, inner: int = 1, domain: int = 0, most: int) -> None:
    """Raises what `candidate_rounds` raises of too many messages, without making any: a hundred million would take
    gigabytes. Algorithms that are written as a schedule are not looked into."""
    for stage, algorithm in _phases(collective, name):
        group, copies, _ = _parts(stage, algorithm, ranks, inner, domain)
        key = (algorithm.collective, algorithm.name)
        if algorithm.on_grid is None and group > 1 and key in _QUICK:
            each = group * (group - 1) if key in _ALL_PAIRS else group
            _refuse_beyond(most, each * copies, collective, name, ranks)


def _phases(collective: str, name: str) -> Sequence[tuple[Stage, Algorithm]]:
    found = {candidate.name: candidate for candidate in CANDIDATES[collective_code(collective)]}
    if name not in found:
        raise InputError(f"no algorithm '{name}' for {collective}. {did_you_mean(name, found)}")
    return found[name].phases


def _parts(stage: Stage, algorithm: Algorithm, ranks: int, inner: int, domain: int) -> tuple[int, int, bool]:
    """Ranks of a part, how often its rounds are laid, and whether that is once for each member of a domain."""
    group = {"all": ranks, "inner": inner, "outer": ranks // inner}[stage.part]
    all_pairs = (algorithm.collective, algorithm.name) in _ALL_PAIRS
    rotated = stage.part == "all" and algorithm.rotates and 1 < domain < ranks and not all_pairs
    return group, domain if rotated else ranks // group, rotated


def _refuse_beyond(most: int, count: int, collective: str, name: str, ranks: int) -> None:
    if count > most:
        raise InfeasibleError(
            f"{collective} by {name} among {ranks:,} ranks has {count:,} messages a round; network: flow lays at most "
            f"{most:,}, one by one. Use network: fluid, or a smaller group."
        )


def fitted(algorithm: Algorithm, ranks: int, *, grid: GridLike | None, in_node: int) -> Algorithm:
    """An algorithm as it is for one group: where it follows the grid that the group lies on, what it is there.

    ranks: p [1]    in_node: of them in one node [1]    InfeasibleError: the group fills no dimensions of a grid
    """
    if algorithm.on_grid is None:
        return algorithm
    lying = algorithm.on_grid(grid, ranks, in_node) if grid is not None else None
    if lying is None:
        raise InfeasibleError(
            f"{algorithm.collective} by {algorithm.name} needs a group that fills dimensions of a grid"
        )
    return lying.algorithm


def _rotated(one: Messages, ranks: int, block: int) -> Messages:
    """A round as one copy for each member of a block, places shifted by one more each, with its part of the bytes."""
    copy = np.arange(block, dtype=np.int32)[:, None]
    # a block that the group does not fill has fewer places to shift through
    first = np.arange(ranks, dtype=np.int32) // block * block
    width = np.minimum(block, ranks - first)

    def shift(position: Numbers) -> Numbers:
        start, size = first[position], width[position]
        there = start + (position - start + copy) % size
        return np.where(position < 0, np.int32(-1), there).astype(np.int32).ravel()

    part_B = one.size_B / block
    return Messages(shift(one.src), shift(one.dst), part_B if len(part_B) == 1 else np.tile(part_B, block), one.times)


def _repeated(one: Messages, part: str, group: int, times: int) -> Messages:
    """A round of one part in all parts at once: blocks of neighbours, or slices of ranks with the same place."""
    copy = np.arange(times, dtype=np.int32)[:, None]

    def spread(position: Numbers) -> Numbers:
        there = copy * np.int32(group) + position if part == "inner" else position * np.int32(times) + copy
        return np.where(position < 0, np.int32(-1), there).astype(np.int32).ravel()

    size_B = one.size_B if len(one.size_B) == 1 else np.tile(one.size_B, times)
    return Messages(spread(one.src), spread(one.dst), size_B, one.times)


def from_matrix(matrix_B: Any) -> list[Messages]:
    """One round of an all-to-all of unequal blocks. [B]

    matrix_B: bytes from row to column; the diagonal stays at home and zeros send nothing
    Raises InputError for anything but a square of finite numbers of 0 or more.
    """
    matrix = np.array(matrix_B, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError(f"the matrix of an all-to-all is a square of bytes; got shape {matrix.shape}")
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        row, column = np.argwhere(~np.isfinite(matrix) | (matrix < 0))[0].tolist()
        raise InputError(f"bytes are finite and not negative; from rank {row} to {column}: {matrix[row, column]}")
    np.fill_diagonal(matrix, 0.0)
    src, dst = np.nonzero(matrix)
    if not len(src):
        return []
    size = matrix[src, dst]
    return [Messages(src.astype(np.int32), dst.astype(np.int32), size[:1] if (size == size[0]).all() else size)]


def _from_arrays(arrays: Sequence[Round]) -> list[Messages]:
    out: list[Messages] = []
    for one in arrays:
        size = one[:, 2]
        if (size == size[0]).all():
            size = size[:1]
        now = Messages(one[:, 0].astype(np.int32), one[:, 1].astype(np.int32), size)
        if out and out[-1].key == now.key:
            out[-1] = Messages(now.src, now.dst, now.size_B, out[-1].times + 1)
        else:
            out.append(now)
    return out


def _from_schedule(algorithm: Algorithm, ranks: int, size_B: float) -> list[Messages]:
    parts, schedule = algorithm.schedule(ranks)
    out: list[Messages] = []
    for sends in schedule:
        table = np.array([(s.src, s.dst, len(s.blocks)) for s in sends], np.int64).reshape(-1, 3)
        src, dst = (np.where(column == ranks, -1, column).astype(np.int32) for column in (table[:, 0], table[:, 1]))
        size: Floats = (table[:, 2] * (size_B / parts)).astype(np.float64)
        if not len(size) or (size == size[0]).all():
            size = np.append(size[:1], 0.0)[:1]
        now = Messages(src, dst, size)
        if out and out[-1].key == now.key:
            out[-1] = Messages(src, dst, size, out[-1].times + 1)
        else:
            out.append(now)
    return out


def _pairs(ranks: int, size_B: float, times: int = 1) -> list[Messages]:
    """Everybody to everybody else, source by source."""
    src = np.repeat(np.arange(ranks, dtype=np.int32), ranks - 1)
    # the peers of rank r are 0 .. p - 1 without r
    dst = np.tile(np.arange(ranks - 1, dtype=np.int32), ranks)
    dst += dst >= src
    return [Messages(src, dst, np.array([size_B]), times)]


def _shift(ranks: int, size_B: float, by: int, times: int = 1) -> Messages:
    """Everybody to the rank ``by`` further on."""
    src = np.arange(ranks, dtype=np.int32)
    return Messages(src, (src + np.int32(by)) % np.int32(ranks), np.array([size_B]), times)


_QUICK: dict[tuple[str, str], Callable[[int, float], list[Messages]]] = {
    ("all_reduce", "ring"): lambda p, S: [_shift(p, S / p, 1, 2 * (p - 1))],
    ("all_gather", "ring"): lambda p, S: [_shift(p, S / p, 1, p - 1)],
    ("reduce_scatter", "ring"): lambda p, S: [_shift(p, S / p, 1, p - 1)],
    ("all_reduce", "two_shot"): lambda p, S: _pairs(p, S / p, 2),
    ("all_reduce", "one_shot"): lambda p, S: _pairs(p, S),
    ("all_gather", "direct"): lambda p, S: _pairs(p, S / p),
    ("reduce_scatter", "direct"): lambda p, S: _pairs(p, S / p),
    ("all_to_all", "direct"): lambda p, S: _pairs(p, S / p),
    ("all_to_all", "pairwise"): lambda p, S: [_shift(p, S / p, k) for k in range(1, p)],
    ("dispatch", "expert"): lambda p, S: _pairs(p, S / p),
    ("combine", "expert"): lambda p, S: _pairs(p, S / p),
}

#: algorithms of which every round goes from everybody to everybody
_ALL_PAIRS = frozenset(key for key in _QUICK if key[1] in ("two_shot", "one_shot", "direct", "expert"))
