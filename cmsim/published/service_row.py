"""A row of a table of served models, and the scenario that it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from cmsim import reading
from cmsim.hardware import STACKS
from cmsim.kinds.serving import ServingSpec
from cmsim.published.build import EXPERTS, STACK, completed_by, has_key, model_of, nested, shown, sizes_of
from cmsim.published.case import Case, NoPlan
from cmsim.published.names import FOLDER, MachineName, ModelName, RecipeRule, found, names
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged


@dataclass(frozen=True)
class ServicePool:
    """Copies of a model that do the same work.

    replicas   copies    ranks  of one    keys  dotted keys of it, without the name of the pool
    """

    replicas: int
    ranks: int
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceRow:
    """What a row says of a service, in our words.

    system, model   as the table spells them
    keys            dotted keys of the workload that the row itself says
    pools           by name: "" for copies that do all, or ``prefill`` and ``decode``
    unsaid          what the row says and no key of this program can    taken  what nobody states of this run
    """

    system: str
    model: str
    keys: Mapping[str, Any]
    pools: Mapping[str, ServicePool]
    unsaid: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


class ServiceRule(RecipeRule):
    """The same of served models. ``set`` may also have keys of each pool's plan, as of the workload."""

    ttft_left_out: str = Field(default="", description="why the time to the first token is no evidence")


class ServingFile(Spec):
    """``serving.yaml``: names and rules of tables of served models; names of ``names.yaml`` come after its own."""

    models: tuple[ModelName, ...]
    machines: tuple[MachineName, ...]
    aiconfigurator: tuple[ServiceRule, ...]
    nightly: tuple[ServiceRule, ...]
    throughput: tuple[ServiceRule, ...]


@while_unchanged(FOLDER)
def serving_file() -> ServingFile:
    document = reading.read_yaml(reading.DATA / FOLDER / "serving.yaml")
    return reading.validate(ServingFile, document)


#: keys that a run may be tried without, where it is refused for them
_MAY_GO = ("parallel.expert_tp", "speculative", "precision.experts", "precision.kv_cache")


def build_service(row: ServiceRow, cells: Mapping[str, str], rules: Sequence[ServiceRule]) -> Case:
    """The scenario of a row; what rules say where the row says nothing.

    cells: the row, for patterns of rules    rules: of its form of table

    Raises NoPlan, with the reason.
    """
    lines = (*serving_file().models, *names().models)
    config, model = model_of(row.model, {}, lines)
    said = {key: value for key, value in row.keys.items() if value is not None}
    completed: dict[str, RecipeRule] = {}
    for rule in rules:
        if rule.holds(cells):
            new = {key: value for key, value in rule.set.items() if key not in said}
            said.update(new)
            completed.update(dict.fromkeys(new, rule))
    entry, pools = _entry(row)
    mixture = any(name in config for name in EXPERTS)
    keys: dict[str, Any] = {key: value for key, value in said.items() if key != STACK}
    for name, pool in pools.items():
        of_pool = {
            key: value for key, value in pool.keys.items() if value is not None and (mixture or not _of_experts(key))
        }
        before = f"{name}." if name else ""
        keys |= {f"{before}{key}": value for key, value in of_pool.items()}
    keys |= _no_more_than_come(keys)
    there: dict[str, Any] = {}
    absent: dict[str, Any] = {}
    for key, value in keys.items():
        (there if has_key(key, ServingSpec) else absent)[key] = value
    if "parallel.expert_tp" in absent or "decode.parallel.expert_tp" in absent:
        _as_experts(there, absent)
    if said.get(STACK) in reading.builtin_files(STACKS):
        entry[STACK] = said[STACK]
    return Case(
        scenario={"systems": [entry], "workload": nested({"kind": "serving", "model": model, **there})},
        documented=completed_by({**there, STACK: entry.get(STACK)}, completed, taken=False),
        taken=(*row.taken, *completed_by(there, completed, taken=True)),
        unsaid=(*row.unsaid, *(f"{key} {shown(value)}" for key, value in absent.items())),
        extras=tuple(key for key in there if any(key.endswith(name) for name in _MAY_GO)),
    )


def _no_more_than_come(keys: Mapping[str, Any]) -> dict[str, Any]:
    """A limit of sequences beyond the users of a closed loop is never met, and asks for steps that nobody runs."""
    users, limit = keys.get("arrivals.concurrency"), keys.get("batching.sequences")
    return {"batching.sequences": min(limit, 1 << (users - 1).bit_length())} if users and limit else {}


def _as_experts(there: dict[str, Any], absent: Mapping[str, Any]) -> None:
    """Experts that ranks share are spread over them where there is no key for it."""
    for key, value in absent.items():
        if key.endswith("parallel.expert_tp"):
            ep = key.replace("expert_tp", "ep")
            there[ep] = (there.get(ep) or 1) * value


def _of_experts(key: str) -> bool:
    return key in ("parallel.ep", "parallel.expert_tp")


def _entry(row: ServiceRow) -> tuple[dict[str, Any], dict[str, ServicePool]]:
    """The systems entry that all pools need, and their plans with the packages of each copy."""
    line = found((*serving_file().machines, *names().machines), row.system, "system")
    if line.why:
        raise NoPlan(line.why)
    size, ranks_each = sizes_of(line.system)
    pools, total = {}, 0
    for name, pool in row.pools.items():
        packages = math.ceil(pool.ranks / ranks_each)
        more: dict[str, Any] = {"accelerators": packages}
        if name or pool.replicas > 1:
            more["replicas"] = pool.replicas
        pools[name] = ServicePool(pool.replicas, pool.ranks, {**pool.keys, **more})
        total += packages * pool.replicas
    entry: dict[str, Any] = {"system": line.system}
    if total <= size:
        entry["accelerators"] = total
    else:
        entry["domains"] = math.ceil(total / size)
    if line.set:
        entry["set"] = dict(line.set)
    return entry, pools
