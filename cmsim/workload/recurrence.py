"""Sizes of a mixer that keeps a state of fixed size instead of a cache: linear attention, state spaces."""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.workload.whole import busiest

#: bytes of an element of a state: they are summed up over a whole text, and kept wide.
#: Source: configs that say it (mamba_ssm_cache_dtype: float32) [B]
STATE_B = 4.0


@dataclass(frozen=True)
class Recurrence:
    """One layer's mixer: one product in, a short convolution, the core, a gate, one product out.

    heads       value heads, each with a state of key_dim x value_dim
    groups      heads of queries and keys, each shared by several of ``heads``
    scalars     numbers a token brings for each head: steps, decays, strengths of writing
    taps        tokens the convolution sees; 0 without one
    products    with the state per token: 2, of the delta rule 3
    chunk       tokens that are worked together over a prompt
    """

    heads: int
    groups: int
    key_dim: int
    value_dim: int
    scalars: int
    taps: int
    products: int
    chunk: int

    def columns_on(self, tp: int) -> float:
        """Columns of the product in, on the busiest of ``tp`` ranks: queries, keys, values, gates, scalars. [1]"""
        heads, groups = busiest(self.heads, tp), busiest(self.groups, tp)
        return 2 * groups * self.key_dim + heads * (2 * self.value_dim + self.scalars)

    def channels_on(self, tp: int) -> float:
        """Channels of the convolution: queries, keys and values. [1]"""
        return 2 * busiest(self.groups, tp) * self.key_dim + self.width_on(tp)

    def width_on(self, tp: int) -> float:
        """What enters the product out. [1]"""
        return busiest(self.heads, tp) * self.value_dim

    def parameters_on(self, hidden: int, tp: int) -> float:
        """Both products of one layer; convolution and scales count with norms and biases. [1]"""
        return hidden * (self.columns_on(tp) + self.width_on(tp))

    @property
    def flops_per_token(self) -> float:
        """Forward FLOPs of one layer's core, step by step: chunks compute more. The convolution works element by
        element and is left out, as norms are. [FLOP]"""
        return 2.0 * self.products * self.heads * self.key_dim * self.value_dim

    def state_B_on(self, tp: int, *, kept_B: float = 2.0) -> float:
        """One sequence's state in one layer, the convolution's last tokens with it. [B]"""
        state = busiest(self.heads, tp) * self.key_dim * self.value_dim * STATE_B
        return state + max(self.taps - 1, 0) * self.channels_on(tp) * kept_B
