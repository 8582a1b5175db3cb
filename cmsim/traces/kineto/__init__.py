"""Profiles of PyTorch (Kineto, Chrome trace JSON), one file a rank."""

from cmsim.traces.kineto.file import open_, sniff

__all__ = ["open_", "sniff"]
