"""The core of a mixer that keeps a state of fixed size instead of keys and values: linear attention, state spaces.

A head's state is a matrix of ``key_dim`` x ``value_dim``. A token multiplies with it ``products`` times: it adds the
outer product of its key and value, and its query reads (2); the delta rule first reads what the key stands for (3).
``heads`` are those of one rank. Decays and gates work element by element and are left out, as softmax is in attention.
"""

from __future__ import annotations

from cmsim.compute.work import Column, Work


def recurrence_chunked(
    tokens: Column,
    *,
    sequences: Column,
    heads: Column,
    groups: Column,
    key_dim: int,
    value_dim: int,
    products: int,
    chunk: int,
    element_bytes: float,
    state_bytes: float,
) -> Work:
    """``tokens`` of ``sequences`` whole sequences, in chunks: inside a chunk as attention does, between them by states.

    flops = T heads (2 p d_k d_v + c (d_k + d_v)), c = ``chunk``, p = ``products``;  bytes = queries and keys of
    ``groups``, values and results of ``heads``, and every chunk's state written and read.

    Source: Dao and Gu, arXiv:2405.21060, section 6 (chunks of a state-space layer); Yang et al., arXiv:2412.06464,
    section 3.3 (the delta rule's).
    """
    state = heads * key_dim * value_dim
    flops = tokens * (2.0 * products * state + chunk * heads * (key_dim + value_dim))
    moved_B = tokens * (2 * groups * key_dim + 2 * heads * value_dim) * element_bytes
    return Work(flops, moved_B + 2 * (tokens / chunk + sequences) * state * state_bytes)


def recurrence_step(
    tokens: Column,
    *,
    sequences: Column,
    heads: Column,
    groups: Column,
    key_dim: int,
    value_dim: int,
    products: int,
    element_bytes: float,
    state_bytes: float,
) -> Work:
    """``tokens`` new tokens of ``sequences`` sequences together: every state read and written once.

    >>> recurrence_step(1, sequences=1, heads=1, groups=1, key_dim=2, value_dim=4, products=2, element_bytes=2,
    ...                 state_bytes=4)
    Work(flops=32.0, bytes_B=88)
    """
    state = heads * key_dim * value_dim
    moved_B = tokens * (2 * groups * key_dim + 2 * heads * value_dim) * element_bytes
    return Work(tokens * 2.0 * products * state, moved_B + 2 * sequences * state * state_bytes)


def short_convolution(tokens: Column, channels: Column, taps: int, *, sequences: Column, element_bytes: float) -> Work:
    """A convolution of ``taps`` tokens over each channel by itself, with the tokens before kept."""
    kept = sequences * channels * (taps - 1)
    return Work(2.0 * taps * tokens * channels, 2 * (tokens * channels + kept) * element_bytes)
