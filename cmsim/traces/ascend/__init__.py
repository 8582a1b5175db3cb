"""Profiler folders of Ascend, and each of their files by itself."""

from cmsim.traces.ascend.files import open_, sniff

__all__ = ["open_", "sniff"]
