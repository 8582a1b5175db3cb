"""Chakra execution traces (.et, JSON), their communicators, and writing them."""

from cmsim.traces.chakra.job import holds, sniff
from cmsim.traces.chakra.to_trace import open_

__all__ = ["holds", "open_", "sniff"]
