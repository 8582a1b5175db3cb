"""Putting nodes and links into a graph, both directions apart.

Node names are tuples that begin with their kind: ``("rank", 0)``, ``("l1", node, plane)``. Every link carries
``capacity_Bps`` and ``latency_s`` of one direction, the ``tier`` it belongs to, and ``lanes``, the physical lanes
that it stands for (what modules and cables are counted from).
"""

from __future__ import annotations

from typing import Any

Node = tuple[str | int, ...]


def add_node(graph: Any, name: Node, /, **attributes: int) -> None:
    """A node whose ``kind`` is the first part of its name; ``attributes`` say where it sits."""
    graph.add_node(name, kind=name[0], **attributes)


def join(graph: Any, a: Node, b: Node, *, capacity_Bps: float, latency_s: float, tier: str, lanes: float = 1) -> None:
    """A link from ``a`` to ``b`` and another back, each with the full capacity. [B/s], [s]"""
    for start, end in ((a, b), (b, a)):
        graph.add_edge(start, end, capacity_Bps=capacity_Bps, latency_s=latency_s, tier=tier, lanes=lanes)
