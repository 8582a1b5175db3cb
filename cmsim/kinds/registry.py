"""The kinds there are: those of this room, and those that other packages bring.

A package brings one by an entry point: ``[project.entry-points."cmsim.kinds"]`` with ``NAME = "module:KIND"``. A page
is imported when its kind is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from cmsim.errors import InputError, did_you_mean
from cmsim.kinds.kind import Kind
from cmsim.reading.outside import brought, opened

#: entry points of other packages
GROUP = "cmsim.kinds"
#: pages of this room, in the order in which they are shown
BUILT_IN = (
    *("collective", "trace", "training", "prefill", "decode", "encoder", "diffusion", "serving", "rl_step"),
    *("reliability", "jobs"),
)


def get(name: str) -> Kind:
    """The kind of that name. Raises InputError with the names there are, and where its package does not hold one."""
    if name in BUILT_IN:
        kind: Kind = importlib.import_module(f"cmsim.kinds.{name}").KIND
        return kind
    outside = brought(GROUP, BUILT_IN)
    if name not in outside:
        raise InputError(f"no workloads of kind '{name}'. {did_you_mean(name, names())}")
    its: Kind = opened(outside[name], Kind)
    return its


def names() -> tuple[str, ...]:
    """All kinds, those of other packages last."""
    return (*BUILT_IN, *brought(GROUP, BUILT_IN))


def known(name: object) -> bool:
    """Whether there is a kind of that name."""
    return isinstance(name, str) and (name in BUILT_IN or name in brought(GROUP, BUILT_IN))


def every() -> list[Kind]:
    """All kinds, their pages imported."""
    return [get(name) for name in names()]


def marked(metrics: Mapping[str, Any]) -> Kind:
    """The kind of a result that does not say its own, by a metric that only one has; a trace has none of its own."""
    return next((kind for name in BUILT_IN if (kind := get(name)).mark in metrics), get("trace"))


def resolved(reference: str) -> Any:
    """What a kind names by its place, ``module:name``."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
