"""Profiles of PyTorch (Kineto, Chrome trace JSON), one file a rank."""

from cmsim.traces.kineto.file import holds, open_, sniff

__all__ = ["holds", "open_", "sniff"]
