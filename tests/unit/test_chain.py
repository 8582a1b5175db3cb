"""Chains of pieces: what recurs is built once and copied, and gives the same rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.ops import ProgramBuilder, assemble


def piece(name, comm=True, **changes):
    kernels = [Kernel(f"{name} {i}", "gemm", "bf16", 1e9 + i, 1e6) for i in range(2)]
    return Piece(kernels, Comm(f"{name} sum", "all_reduce", 1e6, "tp") if comm else None, **changes)


def columns(chains, after=None):
    build = ProgramBuilder()
    first = build.compute("first", stream="compute", kernel="norm")
    ends = interleave(build, chains, after=[[first]] * len(chains) if after is None else after)
    build.compute("last", stream="compute", kernel="norm", after=[end for end in ends if end >= 0])
    made = assemble([build], program=np.zeros(2, np.int64), groups={"tp": np.zeros(2, np.int64)})
    table = {field.name: getattr(made.ops, field.name) for field in dataclasses.fields(made.ops)}
    return ends, {name: repr(value.tolist() if hasattr(value, "tolist") else value) for name, value in table.items()}


def unrolled(chain):
    """The same pieces as objects of their own."""
    return [dataclasses.replace(one) for one in chain]


A, B, C = piece("a"), piece("b", stream="experts", cores=0.5), piece("c", comm=False)
EMPTY = Piece([], Comm("gather", "all_gather", 1e6, "tp"))
NOTHING = Piece([], None)

CHAINS = {
    "one piece over and over": [[A] * 5],
    "two by turns": [[C, *[A, B] * 4, C]],
    "a run, another run, a rest": [[*[A] * 3, *[B] * 4, A, B]],
    "two chains alike": [[C, *[A, B] * 4, C]] * 2,
    "two chains of unequal length": [[A] * 6, [A] * 4],
    "communication alone": [[EMPTY] * 3],
    "pieces without anything": [[A, *[NOTHING] * 3, B]],
    "none": [[]],
}


@pytest.mark.parametrize("chains", CHAINS.values(), ids=CHAINS)
def test_what_recurs_is_copied_and_gives_the_same_rows(chains):
    assert columns(chains) == columns([unrolled(chain) for chain in chains])


def test_a_piece_that_waits_for_a_row_of_its_own_is_not_copied():
    waits = piece("waits", after=(0,))
    assert columns([[waits] * 4]) == columns([unrolled([waits] * 4)])


def test_recurring_pieces_merge_into_recurring_pieces():
    merged = joined([C, *[A, C] * 3, A])
    assert len(merged) == 4 and len({id(one) for one in merged}) == 1
    assert [kernel.name for kernel in merged[0].kernels] == ["c 0", "c 1", "a 0", "a 1"]
