"""Memory-bound kernels: one pass over their operands on the vector units. A fused chain is one pass.

Bytes are counted exactly (reads plus writes); operations per element are our own count of the arithmetic and
matter only where vectors are slow beside memory.
"""

from __future__ import annotations

from cmsim.compute.work import Column, Work


def norm(tokens: Column, hidden: Column, *, element_bytes: float, residual: bool = False) -> Work:
    """RMSNorm or LayerNorm: read x, write y; with ``residual`` also read and write the stream it adds to."""
    elements = tokens * hidden
    return Work((5.0 if residual else 4.0) * elements, (4 if residual else 2) * elements * element_bytes)


def activation(tokens: Column, width: Column, *, element_bytes: float, gated: bool = True) -> Work:
    """SiLU or GELU of ``width`` elements; ``gated`` reads a second input of the same width and multiplies."""
    elements = tokens * width
    return Work((6.0 if gated else 5.0) * elements, (3 if gated else 2) * elements * element_bytes)


def rope(tokens: Column, heads: Column, rope_dim: Column, *, element_bytes: float) -> Work:
    """Rotary positions on ``heads`` (query and key heads together): read and write the rotated part."""
    elements = tokens * heads * rope_dim
    return Work(3.0 * elements, 2 * elements * element_bytes)


def quantise(
    tokens: Column,
    width: Column,
    *,
    in_bytes: float,
    out_bytes: float,
    scale_block: int = 128,
    scale_bytes: float = 4.0,
) -> Work:
    """Scale and round, or the way back: read one precision, write the other, one scale per block of a row."""
    elements = tokens * width
    return Work(3.0 * elements, elements * (in_bytes + out_bytes + scale_bytes / scale_block))


def embedding(tokens: Column, hidden: Column, *, weight_bytes: float, out_bytes: float) -> Work:
    """Gather one row of the table per token; no arithmetic."""
    return Work(0.0 * tokens * hidden, tokens * hidden * (weight_bytes + out_bytes))


def sampling(tokens: Column, vocab: Column, *, element_bytes: float) -> Work:
    """Softmax and choice over the logits: two reads of them (maximum and sum, then the draw)."""
    elements = tokens * vocab
    return Work(4.0 * elements, 2 * elements * element_bytes)


def optimizer(
    parameters: Column, *, weight_bytes: float = 2.0, gradient_bytes: float = 4.0, state_bytes: float = 12.0
) -> Work:
    """One Adam step: read gradient and state (fp32 master, two moments), write state and the working weight.

    >>> optimizer(1).bytes_B
    30.0
    """
    return Work(12.0 * parameters, parameters * (gradient_bytes + 2 * state_bytes + weight_bytes))
