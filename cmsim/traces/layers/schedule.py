"""One training pass of a layer-wise text workload as ops: the order of each policy, the groups, what waits for what.

Policies say which group meets for which collective and when a rank waits for it, as in the simulators' own loops:

- a forward collective ends before the next layer starts (under DLRM: before the last bottom layer is left);
- backward goes from the last layer to the first. ``DATA`` and the DLRM policies take the weight gradient first and then
  the input gradient, of all layers but the first; the others the input gradient first;
- the input gradient's collective ends before the weight gradient starts (transformers), or runs beside it and ends
  before the next layer;
- the weight gradient's collective runs beside all that follows. When it has ended (or the weight gradient, where there
  is none) the update delay follows, on a queue of its own: it holds back nothing in a pass of its own;
- with recomputation, a layer that initiates it has the layers from the last checkpoint up to itself run forward again.

Left out: that the simulators also add the update delay after the other collectives of a layer, and that a forward pass
waits for the weights of the pass before.

Groups, in the order of Megatron-LM and AICB (tensor, expert, data, pipeline; tensor fastest), for rank 0:

    tp     0, 1, ... (tp)                  ep     0, tp, 2 tp, ... (ep)
    dp     0, tp, 2 tp, ... (dp)           dp_ep  0, tp ep, 2 tp ep, ... (dp / ep)

with dp = ranks / (tp pp). SimAI's network instead strides data-parallel groups by tp pp, which is the same without a
pipeline, and with one puts ranks of several stages into an expert group.

One page of more than 500 lines: the loop of each policy stands beside those that it differs from.

Source: ASTRA-sim 1.0 and SimAI, workload/Workload.cc and Layer.cc, system/MockNcclGroup.cc; AICB, workload_applyer.py
(order "tp-cp-ep-dp-pp").
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cmsim.reading.bytes_in import bad
from cmsim.traces.recorded import Communicator, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE

NONE = "NONE"
#: collectives by word; one that is not here is no-op
WORDS = {
    "ALLREDUCE": ("all_reduce",),
    "ALLTOALL": ("all_to_all",),
    "ALLGATHER": ("all_gather",),
    "REDUCESCATTER": ("reduce_scatter",),
    "ALLREDUCEALLTOALL": ("all_reduce", "all_to_all"),
}
#: longest first
SUFFIXES = ("_DP_EP", "_EP")
CUSTOMIZED = "HYBRID_CUSTOMIZED"
RECOMPUTE = "HYBRID_TRANSFORMER_FWD_IN_BCKWD"

#: ranks above which a header is taken for damaged
_MOST_RANKS = 2**20
FORWARD, INPUT, WEIGHT = range(3)
_PHASES = ("forward", "input gradient", "weight gradient")


class LayerLine(NamedTuple):
    """One record; the tuples go by phase: forward, input gradient, weight gradient.

    policy  the layer's own under ``HYBRID_CUSTOMIZED``, else empty
    """

    name: str
    compute_ns: tuple[int, ...]
    comm: tuple[str, ...]
    size_B: tuple[int, ...]
    update_ns: int
    policy: str = ""


@dataclass(frozen=True)
class Policy:
    """What a policy has communicate, and in which order a rank works.

    roles         group of the forward, input-gradient and weight-gradient collectives; "" where there are none
    split         how ranks divide: "all" (one group), "header" (the header's groups, data-parallel across them),
                  "model first" and "data first" (two dimensions of ranks; the first is the faster one)
    weight_first  weight gradient before input gradient, and no input gradient of the first layer
    beside        the input gradient's collective runs beside the weight gradient, and the first layer has none
    backward      whether there is a backward pass
    """

    roles: tuple[str, str, str]
    split: str = "all"
    weight_first: bool = False
    beside: bool = False
    backward: bool = True


_TRANSFORMER = Policy(("tp", "tp", "dp"), "header")
_DLRM = Policy(("", "", "dp"), weight_first=True)
POLICIES: dict[str, Policy] = {
    "DATA": Policy(("", "", "dp"), weight_first=True),
    "MODEL": Policy(("tp", "tp", ""), beside=True),
    "HYBRID_TRANSFORMER": _TRANSFORMER,
    RECOMPUTE: _TRANSFORMER,
    "HYBRID_DLRM": _DLRM,
    "HYBRID_DLRM_ENHANCED": _DLRM,
    "HYBRID_DATA_MODEL": Policy(("tp", "tp", "dp"), "model first", beside=True),
    "HYBRID_MODEL_DATA": Policy(("tp", "tp", "dp"), "data first", beside=True),
    CUSTOMIZED: Policy(("tp", "tp", "dp"), "header", beside=True),
    "MICRO": Policy(("", "", "dp")),
    "DISTRIBUTED_INFERENCE": Policy(("tp", "tp", ""), backward=False),
}

#: kernel class by name of a layer, the first that fits
_KERNELS = tuple(
    (kernel, re.compile(pattern, re.IGNORECASE))
    for kernel, pattern in (
        ("optimizer", r"optim|grad_?(norm|param|gather)"),
        ("embedding", r"embed"),
        ("norm", r"norm"),
        ("grouped_gemm", r"moe|expert"),
        (
            "gemm",
            r"linear|lora|proj|_(q|kv|o)_|mlp|ffn|dense|conv|gemm|mat_?mul|logit|final_|^fc\d*$|^[qkv]\d*$|^x\dw\d",
        ),
        ("attention_prefill", r"attention|attn|mla|^qkv"),
        ("activation", r"[gr]elu|silu|swiglu"),
    )
)
_OTHER = "generic"
_NS_PER_US = 1e3


@functools.lru_cache(maxsize=4096)
def kernel_of(name: str) -> str:
    """Kernel class (``cmsim.compute.KERNELS``) of a layer, by its name; "generic" where that does not tell.

    >>> [kernel_of(name) for name in ("attention_column", "mlp_moelayer", "layer_64_1_conv4", "grad_norm", "softmax")]
    ['attention_prefill', 'grouped_gemm', 'gemm', 'optimizer', 'generic']
    """
    return next((kernel for kernel, pattern in _KERNELS if pattern.search(name)), _OTHER)


def trace(
    path: Path,
    format: str,
    policy: str,
    header: Mapping[str, Any],
    layers: Sequence[LayerLine],
    *,
    full_size: bool,
    ranks: int | None,
    notes: Sequence[str] = (),
) -> Trace:
    """The pass of one rank, which all ranks run.

    full_size  whether an all-gather's bytes are those of the whole array (SimAI) or of one rank's part (ASTRA-sim)
    ranks      size of the job; None where the header says it (``all_gpus``)

    Raises InputError where the number of ranks is not known or the groups do not divide it.
    """
    known = POLICIES.get(policy)
    said = [*notes]
    if known is None:
        known = _TRANSFORMER if "model_parallel_NPU_group" in header else Policy(("tp", "tp", "dp"))
        said.append(f"policy {policy} is not known: run as HYBRID_TRANSFORMER runs, over {_over(known)}")
    groups = _Groups(path, header, ranks, said)
    ops = _Ops(groups, full_size, said)
    if policy == "MICRO":
        _micro(ops, known, layers)
    elif policy in ("HYBRID_DLRM", "HYBRID_DLRM_ENHANCED"):
        _dlrm(path, ops, policy, header, layers)
    else:
        _pass(path, ops, policy, known, header, layers)
    ops.report(full_size)
    if not ops.kind:
        raise bad(path, "holds no op to replay: no compute time and no collective")
    _pipeline(path, header, said)
    return Trace(
        format=format,
        source=str(path),
        ranks={
            0: rank_trace(
                0,
                name=ops.name,
                kind=ops.kind,
                stream=ops.stream,
                duration_us=ops.duration_us,
                kernel=ops.kernel,
                bytes_B=ops.size_B,
                collective=ops.collective,
                group=ops.group,
                deps=(ops.row, ops.dep),
            )
        },
        communicators=tuple(groups.made),
        world_size=groups.ranks,
        notes=tuple(said),
    )


def _over(policy: Policy) -> str:
    return "the header's groups" if policy.split == "header" else "all ranks"


def _micro(ops: _Ops, policy: Policy, layers: Sequence[LayerLine]) -> None:
    """Layers one after the other, each waiting for its collectives: that is what such a file measures."""
    for layer in layers:
        for phase in (FORWARD, INPUT, WEIGHT):
            ops.compute(layer, phase)
            ops.wait(ops.collectives(layer, phase, policy.roles[phase], policy.split))
        ops.update(layer, ops.frontier)


def _pass(
    path: Path, ops: _Ops, name: str, policy: Policy, header: Mapping[str, Any], layers: Sequence[LayerLine]
) -> None:
    own = [_own(ops, layer, policy) if name == CUSTOMIZED else policy for layer in layers]
    for layer, rules in zip(layers, own, strict=True):
        ops.compute(layer, FORWARD)
        ops.wait(ops.collectives(layer, FORWARD, rules.roles[FORWARD], rules.split))
    if not policy.backward:
        ops.skip("compute time of the backward pass, which inference has not", *_backward(layers))
        return
    again = _recomputed(path, header) if name == RECOMPUTE else {}
    for i in range(len(layers) - 1, -1, -1):
        layer, rules = layers[i], own[i]
        for j in again.get(i, ()):
            ops.compute(layers[j], FORWARD, again=True)
            ops.wait(ops.collectives(layers[j], FORWARD, own[j].roles[FORWARD], own[j].split, again=True))
        if policy.weight_first:
            ops.weight_gradient(layer, rules)
            if i:
                ops.compute(layer, INPUT)
            else:
                ops.skip("input gradient of the first layer, which nothing needs", layer.compute_ns[INPUT])
            continue
        ops.compute(layer, INPUT)
        if policy.beside:
            pending = ops.collectives(layer, INPUT, rules.roles[INPUT] if i else "", rules.split)
            ops.weight_gradient(layer, rules)
            ops.wait(pending)
        else:
            ops.wait(ops.collectives(layer, INPUT, rules.roles[INPUT], rules.split))
            ops.weight_gradient(layer, rules)


def _dlrm(path: Path, ops: _Ops, name: str, header: Mapping[str, Any], layers: Sequence[LayerLine]) -> None:
    """Layer 0 is the embedding: its collectives go over all ranks, beside the bottom layers."""
    bare = header.get("positional", [None])[0]
    last = header.get("DLRM_LAST_BOTTOM_LAYER", bare)
    if last is None:
        last = 0
        ops.notes.append("the header does not name the last bottom layer: the embedding's collective is waited for")
    last = _count(path, "the last bottom layer", last, least=0)
    if last >= len(layers):
        raise bad(path, f"the last bottom layer is {last}; layers are 0 to {len(layers) - 1}")
    pending: _Pending = ([], [])
    for i, layer in enumerate(layers):
        ops.compute(layer, FORWARD)
        made = ops.collectives(layer, FORWARD, "" if i else "all", "all")
        pending = pending if i else made
        if i == last:
            ops.wait(pending)
    pending = ([], [])
    for i in range(len(layers) - 1, -1, -1):
        layer = layers[i]
        ops.weight_gradient(layer, _DLRM)
        if i:
            ops.compute(layer, INPUT)
            ops.collectives(layer, INPUT, "", "all")
        else:
            ops.skip("input gradient of the first layer, which nothing needs", layer.compute_ns[INPUT])
        if i == last + 1 or (i == 0 and last + 1 == len(layers)):
            pending = ops.collectives(layers[0], INPUT, "all", "all")
    if name == "HYBRID_DLRM":
        ops.wait(pending)


def _own(ops: _Ops, layer: LayerLine, default: Policy) -> Policy:
    """The layer's own policy under ``HYBRID_CUSTOMIZED``."""
    if layer.policy not in POLICIES or layer.policy == CUSTOMIZED:
        ops.unknown_policies[layer.policy] += 1
        return Policy(default.roles)
    return POLICIES[layer.policy]


def _backward(layers: Sequence[LayerLine]) -> tuple[int, ...]:
    return tuple(layer.compute_ns[INPUT] + layer.compute_ns[WEIGHT] for layer in layers)


def _recomputed(path: Path, header: Mapping[str, Any]) -> dict[int, range]:
    """Layers to run forward again before the backward of a layer."""
    checkpoints = sorted(header.get("checkpoints", ()))
    again: dict[int, range] = {}
    for layer in header.get("checkpoint_initiates", ()):
        before = [c for c in checkpoints if c <= layer]
        if not before:
            raise bad(path, f"checkpoint_initiates: no checkpoint at or before layer {layer}")
        again[layer] = range(before[-1], layer)
    return again


def _pipeline(path: Path, header: Mapping[str, Any], notes: list[str]) -> None:
    stages, chunks, batches = (_count(path, key, header.get(key, 1)) for key in ("pp", "vpp", "ga"))
    if stages == 1:
        return
    between = f", nor are the {header['pp_comm']} bytes from stage to stage" if "pp_comm" in header else ""
    notes.append(
        f"pipeline of {stages} stages: the file holds the work of one stage. Its idle time, about "
        f"(pp - 1) / (vpp ga) = {100 * (stages - 1) / (chunks * batches):.1f}% of the work, is not modelled{between}"
    )


def _count(path: Path, what: str, value: Any, least: int = 1) -> int:
    try:
        number = int(value)
    except ValueError:
        raise bad(path, f"{what}: expected a whole number, got '{value:.40}'") from None
    if not least <= number <= _MOST_RANKS:
        raise bad(path, f"{what}: expected {least} to {_MOST_RANKS}, got {number}")
    return number


class _Groups:
    """Which ranks meet, for rank 0."""

    def __init__(self, path: Path, header: Mapping[str, Any], ranks: int | None, notes: list[str]):
        stated = _count(path, "all_gpus", header["all_gpus"]) if "all_gpus" in header else None
        if ranks is None and stated is None:
            raise bad(path, "the file does not say how many ranks the job has: give their number (ranks)")
        if ranks is not None and stated is not None and ranks != stated:
            notes.append(f"the file is for {stated} ranks; {ranks} are asked for: sizes stay, data parallelism changes")
        self.ranks = _count(path, "ranks", stated if ranks is None else ranks)
        self.made: list[Communicator] = []
        self._path, self._notes = path, notes
        self._size = {
            key: _count(path, name, header[name]) if name in header else 0
            for key, name in (("tp", "model_parallel_NPU_group"), ("pp", "pp"), ("ep", "ep"))
        }
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def of(self, role: str, split: str) -> tuple[int, int]:
        """Number of the communicator (-1 for a rank on its own) and its size."""
        if (role, split) not in self._known:
            stride, size = self._progression(role, split)
            number = -1
            if size > 1:
                members = tuple(range(0, stride * size, stride))
                alike = [c for c in self.made if c.name.split(" ")[0] == role]
                number = next((self.made.index(c) for c in alike if c.members == members), len(self.made))
                if number == len(self.made):
                    name = f"{role} {len(alike) + 1}" if alike else role
                    self.made.append(Communicator(name, members, size))
            self._known[role, split] = number, size
        return self._known[role, split]

    def _progression(self, role: str, split: str) -> tuple[int, int]:
        """Distance from member to member, and how many there are."""
        if split == "all":
            return 1, self.ranks
        if split == "header":
            tp, pp, ep = self._size["tp"], self._size["pp"] or 1, self._size["ep"] or 1
            if not tp:
                raise bad(
                    self._path, "the header does not name the size of a group: model_parallel_NPU_group is missing"
                )
            dp = self._share(tp * pp, f"model_parallel_NPU_group {tp}" + (f" times pp {pp}" if pp > 1 else ""))
            if role in ("ep", "dp_ep") and dp % ep:
                raise bad(self._path, f"ep {ep} does not divide the {dp} ranks of a data-parallel group")
            return {"tp": (1, tp), "dp": (tp, dp), "ep": (tp, ep), "dp_ep": (tp * ep, dp // ep)}[role]
        inner = self._inner(split)
        first = "tp" if split == "model first" else "dp"
        return (1, inner) if role == first else (inner, self.ranks // inner)

    def _share(self, part: int, what: str) -> int:
        if self.ranks % part:
            raise bad(self._path, f"{self.ranks} ranks: {what} does not divide them")
        return self.ranks // part

    def _inner(self, split: str) -> int:
        """Ranks along the faster of two dimensions."""
        tp = self._size["tp"]
        if tp:
            rest = self._share(tp, f"model_parallel_NPU_group {tp}")
            return tp if split == "model first" else rest
        inner = max(d for d in range(1, math.isqrt(self.ranks) + 1) if self.ranks % d == 0)
        if inner == 1 < self.ranks:
            raise bad(self._path, f"{self.ranks} ranks do not make two dimensions: give a number of ranks that does")
        said = (
            f"the file does not say how ranks divide into model and data: taken as {inner} times {self.ranks // inner}"
        )
        if said not in self._notes:
            self._notes.append(said)
        return inner


#: rows to wait for, and what the rank waited for when they were issued
_Pending = tuple[list[int], list[int]]


@dataclass
class _Ops:
    """The columns, and what the next op of the rank waits for (``frontier``)."""

    groups: _Groups
    full_size: bool
    notes: list[str]
    name: list[str] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    stream: list[str] = field(default_factory=list)
    duration_us: list[float] = field(default_factory=list)
    kernel: list[str] = field(default_factory=list)
    size_B: list[float] = field(default_factory=list)
    collective: list[str] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    dep: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=list)
    unknown_policies: Counter[str] = field(default_factory=Counter)
    _unknown: Counter[str] = field(default_factory=Counter)
    _silent: Counter[str] = field(default_factory=Counter)
    _skipped_ns: Counter[str] = field(default_factory=Counter)
    _alone: int = 0
    _empty: int = 0
    _scaled: int = 0
    _placeholders: int = 0
    _timed: int = 0

    def compute(self, layer: LayerLine, phase: int, again: bool = False) -> None:
        """Work of a layer; a time of 0 is no op."""
        ns = layer.compute_ns[phase]
        self._timed += 1
        self._placeholders += ns == 1
        if ns:
            what = "recomputation" if again else _PHASES[phase]
            self._add(f"{layer.name} {what}", COMPUTE, "compute", self.frontier, ns=ns, kernel=kernel_of(layer.name))
            self.frontier = [len(self.kind) - 1]

    def collectives(self, layer: LayerLine, phase: int, role: str, split: str, again: bool = False) -> _Pending:
        """Start what a layer's word names; returns what to wait for."""
        word, size_B = layer.comm[phase], layer.size_B[phase]
        if word == NONE:
            return [], []
        suffix = next((s for s in SUFFIXES if word.endswith(s)), "")
        names = WORDS.get(word.removesuffix(suffix))
        if names is None:
            self._unknown[word] += 1
            return [], []
        if not role:
            self._silent[_PHASES[phase]] += 1
            return [], []
        if suffix:
            role, split = suffix[1:].lower(), "header"
        number, members = self.groups.of(role, split)
        if not size_B or number < 0:
            self._empty += not size_B
            self._alone += bool(size_B)
            return [], []
        last = self.frontier
        for name in names:
            grows = name == "all_gather" and not self.full_size
            self._scaled += grows
            what = "recomputation" if again else _PHASES[phase]
            self._add(
                f"{layer.name} {what} {name}",
                COLLECTIVE,
                f"comm {self.groups.made[number].name}",
                last,
                size_B=float(size_B * members if grows else size_B),
                collective=name,
                group=number,
            )
            last = [len(self.kind) - 1]
        return last, self.frontier

    def wait(self, pending: _Pending) -> None:
        """Hold the next op of the rank until these have ended."""
        rows, since = pending
        if rows:  # they wait for all that was issued before them
            self.frontier = rows if self.frontier is since else [*self.frontier, *rows]

    def weight_gradient(self, layer: LayerLine, rules: Policy) -> None:
        """Compute, a collective that nothing of this pass waits for, and the update behind it."""
        self.compute(layer, WEIGHT)
        made, _ = self.collectives(layer, WEIGHT, rules.roles[WEIGHT], rules.split)
        self.update(layer, made or self.frontier)

    def update(self, layer: LayerLine, after: Sequence[int]) -> None:
        if layer.update_ns:
            self._add(f"{layer.name} update", COMPUTE, "update", after, ns=layer.update_ns, kernel="optimizer")

    def skip(self, what: str, *times_ns: int) -> None:
        self._skipped_ns[what] += sum(times_ns)

    def _add(
        self,
        name: str,
        kind: int,
        stream: str,
        after: Sequence[int],
        *,
        ns: int | None = None,
        kernel: str = "",
        size_B: float = 0.0,
        collective: str = "",
        group: int = -1,
    ) -> None:
        self.row.extend([len(self.kind)] * len(after))
        self.dep.extend(after)
        self.name.append(name)
        self.kind.append(kind)
        self.stream.append(stream)
        self.duration_us.append(math.nan if ns is None else ns / _NS_PER_US)
        self.kernel.append(kernel)
        self.size_B.append(size_B)
        self.collective.append(collective)
        self.group.append(group)

    def report(self, full_size: bool) -> None:
        """Put into the notes what was left out or assumed."""
        say = self.notes.append
        for word, number in sorted(self._unknown.items()):
            say(f"{number} collectives of the unknown kind {word} do nothing, as in the simulators")
        for phase in _PHASES:
            if self._silent[phase]:
                say(f"{self._silent[phase]} collectives of the {phase} are left out: the policy has none there")
        for name, number in sorted(self.unknown_policies.items()):
            say(f"{number} layers of the unknown policy {name:.40} communicate over all ranks")
        if self._alone:
            say(f"{self._alone} collectives of groups of one rank are left out")
        if self._empty:
            say(f"{self._empty} collectives of 0 bytes are left out")
        if self._scaled:
            say(f"{self._scaled} all-gathers: the file's bytes are one rank's part, the whole is that times the group")
        for what, time_ns in self._skipped_ns.items():
            if time_ns:
                say(f"{time_ns} ns left out: {what}")
        if full_size and self._placeholders:
            say(
                f"{self._placeholders} of {self._timed} compute times are 1 ns: placeholders of work that was not timed"
            )
