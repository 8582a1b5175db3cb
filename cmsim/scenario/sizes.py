"""Sizes in lists and sweeps as numbers, so that ``64K`` and 65536 are one point and are called alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmsim import kinds
from cmsim.reading import size_at


def known(spec: Any, path: Sequence[str], value: Any) -> Any:
    """A value of a key, or a list of them; text that is a size as its number, all else as it is."""
    size = size_at(spec, path)
    if size is None:
        return value
    return [size.known(one) for one in value] if isinstance(value, list) else size.known(value)


def swept(data: Mapping[str, Any], key: str, values: Any) -> Any:
    """Values of a swept key in long form; of ``{from, to, steps, scale}`` both ends."""
    section, *rest = key.split(".")
    workloads = data.get("workloads")
    if section != "workloads" or len(rest) < 2 or not isinstance(workloads, dict):
        return values
    one = workloads.get(rest[0])
    kind = one.get("kind") if isinstance(one, dict) else None
    if not kinds.known(kind):
        return values
    path = rest[1:] if rest[1] != "per_system" else rest[3:]
    spec = kinds.get(str(kind)).spec
    if isinstance(values, dict):
        return values | {end: known(spec, path, values[end]) for end in ("from", "to") if end in values}
    return known(spec, path, values)
