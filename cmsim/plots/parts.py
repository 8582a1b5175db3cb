"""What ops are parts of, from their names and kernels: attention, experts, ..., forward or backward; which layer and
step they belong to; and what classes of ranks are.

Frames have names of ops, those of our generators, of graph files and of traces. What no word of a name tells is among
``other kernels``; what is computed a second time for the backward pass is named as in the forward pass, and shown so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.results import Result

#: of kernels, first match -> words of a name, or of a class of kernels
_WORDS = (
    ("experts", re.compile(r"expert|router|top-k|\bmoe\b|moe_|grouped_gemm", re.I)),
    (
        "attention",
        re.compile(
            r"attention|attn|fmha|flash|\bmla|^latent|^rope|rotary|^output quantise|^(q|k|v)\b|^(qkv|kv)\b|softmax",
            re.I,
        ),
    ),
    ("feed-forward", re.compile(r"\bffn|\bmlp|feed.?forward", re.I)),
)
_BACKWARD = re.compile(r"backward|dgrad|wgrad|gradient|bprop|backprop|_bwd|bwd_|\bbwd\b|_grad\b", re.I)
_LAYER = re.compile(r"(?:^|[ ./_])(?:layers?|blocks?)[ ._](\d+)(?=[ ./_]|$)", re.I)
#: kind of other ops -> how it is called
OF_KIND = {"collective": "collectives", "send": "send, receive", "recv": "send, receive", "host": "host"}


def part(name: str, kernel: str, kind: str) -> str:
    """What an op is part of; of kernels of the backward pass with that word behind it.

    >>> part("q, k, v dgrad", "gemm", "compute"), part("expert up", "grouped_gemm", "compute")
    ('attention, backward', 'experts')
    >>> part("layer 3 ffn up", "gemm", "compute"), part("dispatch", "", "collective"), part("loss", "", "compute")
    ('feed-forward', 'collectives', 'other kernels')
    """
    if kind != "compute":
        return OF_KIND.get(kind, kind)
    own = without_layer(name)
    found = next((word for word, its in _WORDS if its.search(own)), "")
    found = found or next((word for word, its in _WORDS if its.search(kernel)), "other kernels")
    return f"{found}, backward" if _BACKWARD.search(own) else found


def without_layer(name: str) -> str:
    """A name without the layer in it.

    >>> without_layer("layer 3 ffn up"), without_layer("head")
    ('ffn up', 'head')
    """
    return _LAYER.sub(" ", name).strip() or name


def parts(ops: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """`part` of some rows of a frame, shape (rows,)."""
    known: dict[tuple[str, str, str], str] = {}
    out = np.empty(len(rows), dtype=object)
    columns = (ops[name][rows].tolist() for name in ("op", "kernel", "kind"))
    for i, key in enumerate(zip(*columns, strict=True)):
        if key not in known:
            known[key] = part(*map(str, key))
        out[i] = known[key]
    return out


@dataclass(frozen=True)
class Passes:
    """Layers of one class of ranks in the order in which they begin.

    start_ps  shape (passes,)    number  of the layer, from 0, shape (passes,)
    beat      passes after which everything comes again: those of a micro-batch, or those of all that run side by side
    """

    start_ps: NDArray[np.int64]
    number: NDArray[np.int64]
    beat: int


def passes(result: Result) -> Passes | None:
    """Layers of the class that computes most; None where no name tells any.

    Where names have no numbers a layer begins with its first kernel of attention, and is counted: micro-batches that
    run side by side together, those of training one after the other.
    """
    ops = result.frame_columns("ops")
    rows = _busiest(ops)
    names = ops["op"][rows].astype(str)
    of_layer = {name: int(found[1]) for name in dict.fromkeys(names.tolist()) if (found := _LAYER.search(name))}
    start_ps = ops["start_ps"][rows]
    if of_layer:
        mine = np.array([of_layer.get(name, -1) for name in names.tolist()])
        numbered = np.flatnonzero(mine >= 0)
        new = numbered[np.append(True, np.diff(mine[numbered]) != 0)]
        return Passes(start_ps[new], mine[new], 1)
    begins = next((name for name in names.tolist() if part(name, "", "compute") == "attention"), None)
    if begins is None:
        return None
    start_ps = start_ps[names == begins]
    layers, batches = result.facts.named().get("layers"), int(result.plan.get("micro_batches", 1) or 1)
    each = len(start_ps) // steps(result) or 1
    count = np.arange(len(start_ps)) % each
    if layers:
        return Passes(start_ps, count // batches, batches)
    return Passes(start_ps, count, max(each // batches, 1))


def steps(result: Result) -> int:
    """How many steps, or calls, follow each other in a run."""
    named = result.facts.named()
    return max(int(named.get("steps", named.get("calls", 1)) or 1), 1)


def step_starts(result: Result) -> NDArray[np.int64]:
    """When each step begins in the class that computes most; of a run of one step its beginning. [ps]"""
    ops, count = result.frame_columns("ops"), steps(result)
    rows = _busiest(ops)
    first = ops["start_ps"][rows[ops["op"][rows] == ops["op"][rows[0]]]]
    found: NDArray[np.int64] = first[:: len(first) // count][:count] if len(first) % count == 0 else first[:1]
    return found


def _busiest(ops: Any) -> NDArray[np.int64]:
    """Kernels of the class with most time in them, else all of its first class's ops, in the order of their start."""
    kernels = ops["kind"] == "compute"
    of = ops["rank_class"]
    if kernels.any():
        time = np.bincount(of[kernels], (ops["end_ps"] - ops["start_ps"])[kernels].astype(float))
        rows = np.flatnonzero(kernels & (of == int(np.argmax(time))))
    else:
        rows = np.flatnonzero(of == of[0])
    return rows[np.argsort(ops["start_ps"][rows], kind="stable")]


def class_names(result: Result) -> dict[int, str]:
    """What every class of ranks is, with how many there are: by number of the class.

    Stages where classes fill them in their order, groups of expert parallelism where each is a whole number of them,
    else ranks.
    """
    ops = result.frame_columns("ops")
    there, first = np.unique(ops["rank_class"], return_index=True)
    many = ops["multiplicity"][first]
    return dict(zip(there.tolist(), _names(result, many), strict=True))


def _names(result: Result, many: NDArray[Any]) -> Iterator[str]:
    before = np.append(0, np.cumsum(many))
    stages, experts = int(result.plan.get("pp", 1) or 1), int(result.plan.get("ep", 1) or 1)
    each = before[-1] // stages
    if stages > 1 and before[-1] == result.ranks and np.isin(np.arange(stages + 1) * each, before).all():
        stage = before[:-1] // each
        alone = np.bincount(stage)[stage] == 1
        for i, (here, count) in enumerate(zip(stage.tolist(), many.tolist(), strict=True)):
            letter = "" if alone[i] else f" {chr(97 + int(np.count_nonzero(stage[:i] == here)) % 26)}"
            yield f"stage {here}{letter} × {count:,} ranks"
    else:
        for i, count in enumerate(many.tolist()):
            word = "all" if len(many) == 1 else f"class {i} ×"
            groups = count // experts
            own = f"{groups:,} EP group{'s' * (groups != 1)} of {experts:,}"
            said = own if experts > 1 and count % experts == 0 and groups else f"{count:,} rank{'s' * (count != 1)}"
            yield f"{word} {said}"
