"""Kernel classes of recorded kernels, by their names: a trace says how long a kernel took, not what it did."""

from __future__ import annotations

import re

MATRIX, OTHER = "gemm", "generic"

#: work of the matrix kind: multiplications, convolutions and their gradients, fused attention
_MATRIX = re.compile(
    r"gemm|bmm|mat_?mul|cutlass|xmma|nvjet|cijk|winograd|scudnn|implicit|conv(?!ert)|[wd]grad|fprop|fmha|flash|attention|attn",
    re.IGNORECASE,
)
#: what runs around it under a similar name and moves data only: tables of offsets, transforms, layouts, copies
_AROUND = re.compile(
    r"offsets|winograd_nonfused|winogradtiles|splitk_?reduce|elementwise|softmax|transdata|cache|memcpy|memset|nccl|hccl|c10d",
    re.IGNORECASE,
)


def kernel_class(name: str) -> str:
    """The class (``cmsim.compute.KERNELS``) of a kernel: "gemm" where its name says matrix work, else "generic".

    It decides what a recorded time scales with; a name unknown here counts as bound by memory.

    >>> kernel_class("ampere_sgemm_128x64_nt"), kernel_class("aclnnMatmul_MatMulCommon_MatMulV2")
    ('gemm', 'gemm')
    >>> kernel_class("void computeOffsetsKernel<true, false>"), kernel_class("unrolled_elementwise_kernel<convert>")
    ('generic', 'generic')
    """
    return MATRIX if _MATRIX.search(name) and not _AROUND.search(name) else OTHER
