"""Chakra execution traces (.et, JSON), their communicators, and writing them."""

from cmsim.workload.trace.chakra.job import sniff
from cmsim.workload.trace.chakra.to_trace import open_

__all__ = ["open_", "sniff"]
