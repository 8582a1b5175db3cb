"""Results in the form of other people's tools."""

from cmsim.export.perfetto import write_perfetto

__all__ = ["write_perfetto"]
