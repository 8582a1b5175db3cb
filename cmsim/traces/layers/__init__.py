"""Workloads as tables of layers: text of the first ASTRA-sim, and of SimAI."""

from cmsim.traces.layers.text import open_, sniff

__all__ = ["open_", "sniff"]
