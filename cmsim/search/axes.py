"""What a search varies: one table of keys, each with the values it may take.

A key that the schema of training lacks is left out; one that a scenario restricts takes the values given there, and no
others. Keys that say what is trained (formats, lengths, the batch) are no axes: another value answers another question.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import System
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate.choices import sizes
from cmsim.workload.model import ModelSpec
from cmsim.workload.moe import divisors

#: what an axis changes: where ranks stand, what a pass takes, the order of passes, what comes once a step
LAYOUT, PASS, ORDER, STEP = "layout", "pass", "order", "step"
#: context parallelism is not tried on chunks of fewer tokens, unless somebody asks [1]
CHUNK = 2048
#: virtual stages of a rank that are tried, at most [1]
_MOST_VIRTUAL = 12


@dataclass(frozen=True)
class Question:
    """What is trained on what."""

    spec: TrainingSpec
    system: System
    model: ModelSpec
    base: Path | None = None

    @property
    def ranks(self) -> int:
        return self.spec.ranks or self.system.ranks


@dataclass(frozen=True)
class SearchAxis:
    """A key of the workload, dotted, and its values where nobody restricts them; None: only the scenario's own.

    weighs: whether memory depends on it
    """

    key: str
    role: str
    values: Callable[[Question], Sequence[Any]] | None
    weighs: bool = True


def _size(key: str) -> Callable[[Question], Sequence[Any]]:
    return lambda asked: sizes(key, asked.spec, asked.system, base=asked.base)


def _chunks(asked: Question) -> Sequence[Any]:
    """Context parallel where every rank has a chunk worth it."""
    few = sizes("parallel.cp", asked.spec, asked.system, base=asked.base)
    return [one for one in few if one == 1 or asked.spec.sequence_length // one >= CHUNK]


def _experts(asked: Question) -> Sequence[Any]:
    """Expert parallel sizes that divide ranks and experts."""
    if not asked.model.experts:
        return [1]
    return [one for one in divisors(asked.ranks) if asked.model.experts % one == 0]


def _batches(asked: Question) -> Sequence[Any]:
    return divisors(asked.spec.global_batch)


def _virtual(asked: Question) -> Sequence[Any]:
    return [one for one in divisors(asked.model.layers) if one <= _MOST_VIRTUAL]


def _listed(key: str, *known: Any) -> Callable[[Question], Sequence[Any]]:
    """Those of the values known here that the key takes."""

    def values(_: Question) -> Sequence[Any]:
        takes = _literals(field_of(key))
        return [one for one in known if not takes or one in takes]

    return values


AXES = (
    SearchAxis("parallel.tp", LAYOUT, _size("parallel.tp")),
    SearchAxis("parallel.cp", LAYOUT, _chunks),
    SearchAxis("parallel.pp", LAYOUT, _size("parallel.pp")),
    SearchAxis("parallel.dp", LAYOUT, None),
    SearchAxis("parallel.cp_comm_type", LAYOUT, _listed("parallel.cp_comm_type", "all_gather", "p2p", "a2a")),
    SearchAxis("parallel.ep", LAYOUT, _experts),
    SearchAxis("parallel.expert_tp", LAYOUT, None),
    SearchAxis("micro_batch", PASS, _batches),
    SearchAxis("recompute", PASS, _listed("recompute", "none", "selective", "full")),
    SearchAxis("parallel.sequence_parallel", PASS, _listed("parallel.sequence_parallel", True, False)),
    SearchAxis("tp_overlap", PASS, _listed("tp_overlap", "none", "pipelined"), weighs=False),
    SearchAxis("offload.activations", PASS, None),
    SearchAxis("overlap_experts", ORDER, None),
    SearchAxis("schedule", ORDER, _listed("schedule", "1f1b", "interleaved", "zb_h1")),
    SearchAxis("parallel.virtual_stages", ORDER, _virtual),
    SearchAxis("zero_stage", STEP, _listed("zero_stage", 0, 1, 2, 3)),
    SearchAxis("fsdp", STEP, None),
    SearchAxis("offload.optimizer", STEP, None),
    SearchAxis("overlap_data_parallel", STEP, None),
)


def there() -> dict[str, SearchAxis]:
    """The axes whose keys training has, by their keys."""
    return {axis.key: axis for axis in AXES if field_of(axis.key) is not None}


def values_of(asked: Question, given: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Every axis that is varied and its values: those given, else its own. Others stay as the scenario has them.

    given: by key; a last part that is the only one of its kind will do. Raises InputError for an unknown axis, an empty
    list, and a value that the key does not take.
    """
    known, chosen = there(), {}
    problems: list[Problem] = []
    for name, values in given.items():
        key = _whole(name, known)
        if key is None:
            heads = {*known, *(one.rpartition(".")[2] for one in known)}
            problems.append(Problem(f"no such axis. {did_you_mean(name, heads, limit=40)}", key=f"search.axes.{name}"))
        elif isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            problems.append(Problem(f"expected a list of values, got {values!r}", key=f"search.axes.{name}"))
        else:
            # some values are lists themselves, of modules that are recomputed
            chosen[key] = tuple(dict.fromkeys(tuple(one) if isinstance(one, list) else one for one in values))
            problems += _refused(key, chosen[key], asked.spec)
    if problems:
        raise InputError(problems)
    out = {}
    for key, axis in known.items():
        if key in chosen:
            out[key] = chosen[key]
        elif axis.values is not None:
            out[key] = tuple(axis.values(asked))
        elif key == "parallel.dp":  # what remains of the ranks, unless somebody wants some of it only
            out[key] = ("auto",)
    # how keys and values travel matters to nobody who does not split them
    if out["parallel.cp"] == (1,) and "parallel.cp_comm_type" not in chosen:
        out.pop("parallel.cp_comm_type", None)
    return out


def _whole(name: str, known: Iterable[str]) -> str | None:
    found = [key for key in known if key == name or key.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else None


def _refused(key: str, values: Sequence[Any], spec: TrainingSpec) -> list[Problem]:
    """What the schema says against values of a key."""
    from cmsim.scenario.best import put

    problems = []
    for value in values:
        try:
            put(spec, tuple(key.split(".")), value)
        except InputError as error:
            problems += [Problem(one.message, key=f"search.axes.{key}") for one in error.problems]
    return problems


def plain(spec: TrainingSpec) -> TrainingSpec:
    """A workload without what belongs to one plan only: layers of each stage (plans are cut evenly), and how weights
    are sharded, which follows from ``zero_stage``."""
    data = spec.model_dump(exclude_unset=True)
    data.get("parallel", {}).pop("stage_layers", None)
    for key in ("fsdp", "fsdp_shards", "reshard_after_forward"):
        if data.pop(key, None) is not None:
            data.pop("zero_stage", None)
    return TrainingSpec.model_validate(data)


def settled(spec: TrainingSpec, values: Mapping[str, Any]) -> TrainingSpec:
    """A workload with values at dotted keys, checked. Raises InputError where they do not go together."""
    from cmsim.reading import Document, validate

    data = spec.model_dump(exclude_unset=True)
    if "zero_stage" in values and "fsdp" not in values:  # which follows from it
        data.pop("fsdp", None)
    for key, value in values.items():
        *above, last = key.split(".")
        inner = data
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return validate(TrainingSpec, Document(data, {}, "", ""))


def at(spec: TrainingSpec, values: Mapping[str, Any]) -> TrainingSpec:
    """A workload with values at dotted keys, which are checked already: a tenth of the time of `settled`."""
    if "zero_stage" in values and "fsdp" not in values and field_of("fsdp") is not None:
        values = {**values, "fsdp": "full" if values["zero_stage"] == 3 else "none"}
    nested: dict[str, dict[str, Any]] = {}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            flat[key] = value
    inner = {head: getattr(spec, head).model_copy(update=its) for head, its in nested.items()}
    return spec.model_copy(update={**flat, **inner})


def has(key: str) -> bool:
    """Whether training has a dotted key."""
    return field_of(key) is not None


def field_of(key: str, of: type[BaseModel] = TrainingSpec) -> Any:
    """The field of a dotted key of training, or of another spec; None where it has none."""
    model: Any = of
    field = None
    for part in key.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return None
        model = next((one for one in (field.annotation, *typing.get_args(field.annotation)) if _is_model(one)), None)
    return field


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _literals(field: Any) -> set[Any]:
    """The texts that a key takes, where it takes some only."""
    found: set[Any] = set()
    waiting = [field.annotation] if field is not None else []
    while waiting:
        kind = waiting.pop()
        if typing.get_origin(kind) is typing.Literal:
            found.update(typing.get_args(kind))
        waiting += [one for one in typing.get_args(kind) if not isinstance(one, str)]
    return {one for one in found if isinstance(one, str)}
