"""Kinds of kernels: what a table of each has for columns, and which page prices it. One module a kind."""

from cmsim.kernels.kinds import attention, gemm, mla, moe
from cmsim.kernels.kinds.kind import KernelKind, KernelRows

#: by name, as ``cmsim predict`` takes it
KINDS: dict[str, KernelKind] = {
    one.name: one for one in (gemm.KIND, attention.CONTEXT, attention.GENERATION, mla.CONTEXT, mla.GENERATION, moe.KIND)
}

__all__ = ["KINDS", "KernelKind", "KernelRows"]
