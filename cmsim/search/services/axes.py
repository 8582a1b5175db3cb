"""What a search of a service varies: keys of the pools that serve it, each with the values it may take.

A key that pools lack is left out; one that a scenario restricts takes the values given there, and no others. Where
prompts and answers have pools of their own each has all keys, ``prefill.parallel.tp`` beside ``decode.parallel.tp``; a
name without its pool is of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import System
from cmsim.kinds.serving import BatchingSpec, PoolSpec, ServingSpec
from cmsim.reading import Document, validate
from cmsim.scenario import Run
from cmsim.search.axes import field_of
from cmsim.workload.model import ModelSpec

#: pools of a service by what they do, in the order in which requests pass them: one that does all, or two
ONE, TWO = ("",), ("prefill", "decode")
#: an axis beside those of pools: how many of them there are
POOLS = "pools"
#: stands for as many copies as carry the load, and somewhat more
AUTO = "auto"


@dataclass(frozen=True)
class ServiceQuestion:
    """What is served on what; ``spec`` is that of ``one``, as `plain` leaves it."""

    one: Run
    spec: ServingSpec
    system: System
    model: ModelSpec
    base: Path | None = None

    def settled(self, values: Mapping[str, Any]) -> ServingSpec:
        """The service with values at dotted keys. Raises InputError where they do not go together."""
        return settled(self.spec, values)


@dataclass(frozen=True)
class PoolAxis:
    """A key of a pool, dotted, and its values where nobody restricts them; None: only the scenario's own.

    values  (question, what the pool does) -> values
    """

    key: str
    values: Callable[[ServiceQuestion, str], Sequence[Any]] | None


def _accelerators(asked: ServiceQuestion, _: str) -> Sequence[int]:
    """Powers of two, numbers halfway between them, and all."""
    most = asked.system.packages
    some = [one for n in range(most.bit_length()) for one in (1 << n, 3 << n)]
    return sorted({*(one for one in some if one <= most), most})


def _tensor(asked: ServiceQuestion, _: str) -> Sequence[int]:
    most = min(asked.system.ranks, asked.model.heads)
    return [1 << n for n in range(most.bit_length()) if asked.model.heads % (1 << n) == 0]


def _attention(asked: ServiceQuestion, _: str) -> Sequence[str]:
    return ["tp", "dp"] if asked.model.experts else ["tp"]


def _experts(asked: ServiceQuestion, _: str) -> Sequence[Any]:
    return [1, "max"] if asked.model.experts else [1]


def _parts(asked: ServiceQuestion, _: str) -> Sequence[int]:
    return [1, 2] if asked.model.experts else [1]


def _sequences(asked: ServiceQuestion, pool: str) -> Sequence[int]:
    return [own(asked.spec, pool).batching.sequences] if pool == "prefill" else [8, 16, 32, 64, 128, 256, 512]  # type: ignore[union-attr]


def _chunks(asked: ServiceQuestion, pool: str) -> Sequence[int]:
    return [own(asked.spec, pool).batching.step_tokens] if pool == "decode" else [2048, 8192]  # type: ignore[union-attr]


AXES = (
    PoolAxis("accelerators", _accelerators),
    PoolAxis("parallel.tp", _tensor),
    PoolAxis("parallel.pp", None),
    PoolAxis("parallel.cp", None),
    PoolAxis("parallel.attention", _attention),
    PoolAxis("parallel.ep", _experts),
    PoolAxis("parallel.expert_tp", None),
    PoolAxis("microbatches", _parts),
    PoolAxis("batching.step_tokens", _chunks),
    PoolAxis("batching.prefix_share", None),
    PoolAxis("batching.sequences", _sequences),
    PoolAxis("replicas", lambda *_: (AUTO,)),
)
#: keys that change how many steps there are of which size, but no step
COUNTED = ("batching.sequences", "replicas")


def there() -> dict[str, PoolAxis]:
    """The axes whose keys pools have, by their keys."""
    return {axis.key: axis for axis in AXES if field_of(axis.key, PoolSpec) is not None}


def pools_of(spec: ServingSpec) -> tuple[str, ...]:
    """The pools of a service as its scenario has them."""
    return ONE if spec.prefill is None else TWO


def dotted(pool: str, key: str) -> str:
    """A key of a pool as scenarios have it."""
    return f"{pool}.{key}" if pool else key


def values_of(
    asked: ServiceQuestion, given: Mapping[str, Sequence[Any]]
) -> dict[tuple[str, ...], dict[str, tuple[Any, ...]]]:
    """By the pools that a service may have: every axis that is varied and its values, those given or else its own.

    given: by key. Raises InputError for an unknown axis, an empty list, and a value that the key does not take.
    """
    known, problems = there(), []
    chosen: dict[str, tuple[Any, ...]] = {}
    forms = [pools_of(asked.spec)]
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            problems.append(Problem(f"expected a list of values, got {values!r}", key=f"search.axes.{name}"))
            continue
        its = tuple(dict.fromkeys(values))
        if name == POOLS:
            wrong = [one for one in its if one not in (1, 2)]
            problems += [Problem(f"got {one!r}. Allowed: 1, 2.", key=f"search.axes.{name}") for one in wrong[:1]]
            forms = [ONE if one == 1 else TWO for one in its]
            continue
        heads = _heads(name, known)
        if not heads:
            names = {POOLS, *known, *(one.rpartition(".")[2] for one in known)}
            problems.append(Problem(f"no such axis. {did_you_mean(name, names, limit=40)}", key=f"search.axes.{name}"))
        for head in heads:
            chosen[head] = its
            problems += _refused(asked, name, head, its)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return {form: dict(_of_form(asked, form, known, chosen)) for form in forms}


def _of_form(
    asked: ServiceQuestion, form: tuple[str, ...], known: Mapping[str, PoolAxis], chosen: Mapping[str, tuple[Any, ...]]
) -> Iterable[tuple[str, tuple[Any, ...]]]:
    for pool in form:
        for key, axis in known.items():
            values = chosen.get(dotted(pool, key))
            if values is None and axis.values is not None:
                values = tuple(axis.values(asked, pool))
            if values is not None:
                yield dotted(pool, key), values


def _heads(name: str, known: Iterable[str]) -> list[str]:
    """The keys that a name is of: of one pool, or of every pool there may be."""
    first, _, rest = name.partition(".")
    pools, wanted = ((first,), rest) if first in TWO else (("", *TWO), name)
    found = [key for key in known if key == wanted or key.rpartition(".")[2] == wanted]
    return [dotted(pool, found[0]) for pool in pools] if len(found) == 1 else []


def _refused(asked: ServiceQuestion, name: str, head: str, values: Sequence[Any]) -> list[Problem]:
    """What the schema says against values of a key."""
    problems = []
    for value in values:
        if value == AUTO and head.rpartition(".")[2] == "replicas":
            continue
        try:
            settled(pooled(asked.spec, TWO if head.partition(".")[0] in TWO else ONE), {head: value})
        except InputError as error:
            problems += [Problem(one.message, key=f"search.axes.{name}") for one in error.problems]
    return problems


def own(spec: ServingSpec, pool: str) -> PoolSpec:
    """A pool as its scenario has it, all that is said of it or of the whole service in one place."""
    its = {"prefill": spec.prefill, "decode": spec.decode}.get(pool)
    other = spec.decode if its is None else None  # a service of two pools as one: as its answers are made
    its = its or other
    said: dict[str, Any] = {
        "parallel": (its and its.parallel) or spec.parallel,
        "precision": (its and its.precision) or spec.precision,
        "microbatches": (its and its.microbatches) or spec.microbatches,
        "batching": (its and its.batching) or spec.batching,
    }
    return PoolSpec(
        replicas=its.replicas if its else spec.replicas,
        accelerators=its.accelerators if its else spec.accelerators or 1,
        **{name: one.model_dump() if hasattr(one, "model_dump") else one for name, one in said.items()},
    )


def plain(spec: ServingSpec) -> ServingSpec:
    """A service without what only makes a run of it longer. Raises InputError where it does not say its load."""
    if spec.arrivals.rate_per_s == "most":
        message = "got most. Allowed: a number, the load that plans are searched for."
        raise InputError(Problem(message, key="arrivals.rate_per_s"))
    return spec.model_copy(update={"goodput": False, "sensitivity": False})


def pooled(spec: ServingSpec, form: tuple[str, ...]) -> ServingSpec:
    """A service with these pools, each with all its keys in its own place."""
    data = spec.model_dump(exclude_unset=True)
    for name in ("prefill", "decode", "replicas", "accelerators"):
        data.pop(name, None)
    if form == TWO:
        data |= {pool: own(spec, pool).model_dump() for pool in TWO}
    else:
        its = own(spec, "").model_dump()
        data |= {name: its[name] for name in ("replicas", "parallel", "microbatches", "batching", "precision")}
        data["accelerators"] = its["accelerators"]
    return _checked(data)


def settled(spec: ServingSpec, values: Mapping[str, Any]) -> ServingSpec:
    """A service with values at dotted keys, checked. Raises InputError where they do not go together."""
    data = spec.model_dump(exclude_unset=True)
    for key, value in values.items():
        *above, last = key.split(".")
        inner = data
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return _checked(data)


def _checked(data: dict[str, Any]) -> ServingSpec:
    return validate(ServingSpec, Document(data, {}, "", ""))


def batching_of(spec: ServingSpec, pool: str) -> BatchingSpec:
    """How a pool makes steps."""
    found = own(spec, pool).batching
    assert found is not None
    return found
