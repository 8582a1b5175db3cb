"""The core of a mixer that keeps a state of fixed size instead of keys and values: linear attention, state spaces.

A head's state is a matrix of ``key_dim`` x ``value_dim``. A token multiplies with it ``products`` times: it adds the
outer product of its key and value, and its query reads (2); the delta rule first reads what the key stands for (3).
``heads`` are those of one rank. Decays and gates work element by element and are left out, as softmax is in attention.
"""

from __future__ import annotations

from cmsim.compute.work import Column, Work

#: decays, sums and states in 32 bits [B]
_SINGLE_B = 4.0


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


def recurrence_scanned(
    tokens: Column,
    *,
    heads: Column,
    groups: Column,
    key_dim: int,
    value_dim: int,
    products: int,
    chunk: int,
    element_bytes: float,
) -> Work:
    """The same as five kernels one after the other, which is how training runs it: sums of decays, every chunk's
    state, states handed on, products of queries and keys in a chunk, results.

    flops = T heads (2 p d_k d_v + c d_v) + 2 T groups c d_k: of a chunk's square what is not causal is left out where
    values are read, not where queries meet keys. bytes = values in, twice, and results; queries and keys twice; six
    numbers of 32 bits a head; a chunk's products written and read in 32 bits; and of every chunk's state 4 + 4 bytes as
    they are made and handed on, and an element each as what a chunk starts from is written and read.

    Source: state-spaces/mamba, ops/triton/ssd_combined.py, ssd_chunk_state.py, ssd_state_passing.py, ssd_bmm.py,
    ssd_chunk_scan.py; Dao and Gu, arXiv:2405.21060, section 6. The count is ours.

    >>> sizes = dict(heads=2, groups=1, key_dim=4, value_dim=8, products=2, chunk=16, element_bytes=2)
    >>> recurrence_scanned(16, **sizes)
    Work(flops=10240.0, bytes_B=5632.0)
    """
    state = heads * key_dim * value_dim
    flops = tokens * (2.0 * products * state + chunk * heads * value_dim + 2.0 * groups * chunk * key_dim)
    operands_B = (3.0 * heads * value_dim + 4.0 * groups * key_dim) * element_bytes + 6 * _SINGLE_B * heads
    inside_B = 2.0 * groups * chunk * _SINGLE_B
    states_B = state / chunk * 2.0 * (_SINGLE_B + element_bytes)
    return Work(flops, tokens * (operands_B + inside_B + states_B))


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
    """``tokens`` new tokens of ``sequences`` sequences together: every state read once, and written after each token,
    so that it can go back where a draft is not taken.

    >>> recurrence_step(1, sequences=1, heads=1, groups=1, key_dim=2, value_dim=4, products=2, element_bytes=2,
    ...                 state_bytes=4)
    Work(flops=32.0, bytes_B=88)
    >>> recurrence_step(4, sequences=1, heads=1, groups=1, key_dim=2, value_dim=4, products=2, element_bytes=2,
    ...                 state_bytes=4)
    Work(flops=128.0, bytes_B=256)
    """
    state = heads * key_dim * value_dim
    moved_B = tokens * (2 * groups * key_dim + 2 * heads * value_dim) * element_bytes
    return Work(tokens * 2.0 * products * state, moved_B + (sequences + tokens) * state * state_bytes)


def short_convolution(tokens: Column, channels: Column, taps: int, *, sequences: Column, element_bytes: float) -> Work:
    """A convolution of ``taps`` tokens over each channel by itself, with the tokens before kept."""
    kept = sequences * channels * (taps - 1)
    return Work(2.0 * taps * tokens * channels, 2 * (tokens * channels + kept) * element_bytes)
