"""What runs: ops on streams with dependencies, made from a model (`generate`) or read from a trace (`trace`)."""

from cmsim.workload.ops import OpTable, ProgramBuilder, Programs, assemble

__all__ = ["OpTable", "ProgramBuilder", "Programs", "assemble"]
