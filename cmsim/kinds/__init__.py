"""Kinds of workload: a page for each, which says all that is particular to it."""

from cmsim.kinds import common
from cmsim.kinds.common import merged_headline
from cmsim.kinds.kind import (
    PER,
    Executed,
    Facts,
    Frame,
    Itself,
    Kind,
    MachineFacts,
    Measured,
    Metric,
    Metrics,
    PlayedKind,
)
from cmsim.kinds.registry import BUILT_IN, every, get, known, marked, names, resolved

__all__ = [
    "BUILT_IN",
    "PER",
    "Executed",
    "Facts",
    "Frame",
    "Itself",
    "Kind",
    "MachineFacts",
    "Measured",
    "Metric",
    "Metrics",
    "PlayedKind",
    "common",
    "every",
    "get",
    "known",
    "marked",
    "merged_headline",
    "names",
    "resolved",
]
