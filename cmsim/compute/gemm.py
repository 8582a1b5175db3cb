"""Matrix multiplication: plain, grouped (experts) and the convolution that becomes one."""

from __future__ import annotations

from cmsim.compute.work import Column, Work


def gemm(
    m: Column, n: Column, k: Column, *, in_bytes: float, out_bytes: float, weight_bytes: float | None = None
) -> Work:
    """C = A B with A (m, k), B (k, n).

    flops = 2 m n k;  bytes = m k in + k n weight + m n out

    m, n, k: rows of A, columns of B, inner size [1]    in_bytes, weight_bytes (default ``in_bytes``), out_bytes:
    of one element of A, B, C [B]

    Leaves out: weights that stay in a cache between calls, accumulation into C (read it too: add m n out).

    >>> gemm(2, 3, 4, in_bytes=1, out_bytes=2)
    Work(flops=48.0, bytes_B=32)
    """
    weight = in_bytes if weight_bytes is None else weight_bytes
    return Work(2.0 * m * n * k, m * k * in_bytes + k * n * weight + m * n * out_bytes)


def grouped_gemm(
    tokens: Column,
    n: Column,
    k: Column,
    experts_active: Column,
    *,
    in_bytes: float,
    out_bytes: float,
    weight_bytes: float | None = None,
) -> Work:
    """One multiplication per expert, launched together: every active expert's weights are read once.

    flops = 2 tokens n k;  bytes = tokens k in + experts_active k n weight + tokens n out

    tokens: rows over all experts of the rank, a token counted once per expert it goes to [1]
    experts_active: experts of the rank that got at least one token [1]
    """
    weight = in_bytes if weight_bytes is None else weight_bytes
    bytes_B = tokens * k * in_bytes + experts_active * k * n * weight + tokens * n * out_bytes
    return Work(2.0 * tokens * n * k, bytes_B)


def conv2d(
    batch: Column,
    channels_in: Column,
    channels_out: Column,
    kernel: int,
    out_size: Column,
    in_size: Column,
    *,
    element_bytes: float,
    groups: int = 1,
) -> Work:
    """A square convolution, as the matrix multiplication M = batch out^2, N = channels_out, K = channels_in kernel^2.

    Sizes in pixels per side [px]. Leaves out: the im2col copy (libraries form it on the fly).
    """
    per_output = channels_in / groups * kernel**2
    outputs = batch * channels_out * out_size**2
    weights = channels_out * per_output
    return Work(2.0 * outputs * per_output, (batch * channels_in * in_size**2 + weights + outputs) * element_bytes)


def conv_out_size(in_size: int, kernel: int, *, stride: int = 1, padding: int = 0) -> int:
    """Pixels per side after a convolution: floor((in + 2 padding - kernel) / stride) + 1. [px]

    >>> conv_out_size(224, 7, stride=2, padding=3)
    112
    """
    return (in_size + 2 * padding - kernel) // stride + 1
