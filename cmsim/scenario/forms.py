"""``workload:`` is short for ``workloads:`` with one entry: in files, in those they extend, and in dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim import reading
from cmsim.errors import InputError


def alike(base: dict[str, Any], over: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two scenarios, one to be laid over the other, in one form: ``workload`` lies over the one entry of the base."""
    there = base.get("workloads")
    if "workload" in over and "workloads" not in over and isinstance(there, dict) and len(there) == 1:
        [name] = there
        return base, _named(over, name)
    if "workload" in base and "workloads" in over and "workload" not in over:
        return _named(base), over
    return base, over


def _named(data: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """Short form as long form; the one workload gets its kind's name if no other."""
    out = dict(data)
    one = out.pop("workload")
    return out | {"workloads": {name or _kind_said(one) or "workload": one}}


def long_form(document: reading.Document, data: dict[str, Any]) -> dict[str, Any]:
    """``workload:`` as the one entry of ``workloads``, named by its kind."""
    if "workload" not in data:
        return data
    if "workloads" in data:
        raise InputError(document.problem(("workload",), "give `workload` or `workloads`, not both"))
    return _named(data)


def whole_key(data: Mapping[str, Any], key: str) -> str:
    """A dotted key as it stands in long form: ``workload.x`` is of the one workload, ``systems[0]`` is ``systems.0``.

    One workload alone is known by its kind, too. A key stays in this form as what it is in a run's point.
    """
    head, *rest = reading.parts_of(key)
    workloads = data.get("workloads")
    if isinstance(workloads, dict) and len(workloads) == 1:
        [(name, one)] = workloads.items()
        if head == "workload":
            return ".".join(("workloads", str(name), *rest))
        if head == "workloads" and rest and rest[0] not in workloads and rest[0] == _kind_said(one):
            return ".".join(("workloads", str(name), *rest[1:]))
    return ".".join((head, *rest))


def _kind_said(workload: Any) -> str | None:
    kind = workload.get("kind") if isinstance(workload, dict) else None
    return kind if isinstance(kind, str) else None
