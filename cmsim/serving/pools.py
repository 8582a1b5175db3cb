"""Pools of a service: replicas that are alike, and what each of their holders may take."""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.serving.costs import Costs
from cmsim.serving.holder import Limits
from cmsim.serving.scaling import Scaling


@dataclass(frozen=True)
class Pool:
    """Replicas that are alike.

    replicas, holders  how many, and of each    context  tokens a request may have, prompt and answer
    cached  tokens of beginnings that no sequence has and each holder keeps, where there is room for them; 0: none is
    scaling  where replicas come and go with the load
    """

    costs: Costs
    limits: Limits
    replicas: int = 1
    holders: int = 1
    context: int = 1 << 40
    cached: int = 0
    scaling: Scaling | None = None

    def takes(self, prompt: int, output: int) -> bool:
        """Whether a request of so many tokens can ever be served."""
        blocks = -(-(prompt + output) // self.limits.block_tokens)
        return prompt + output <= self.context and blocks <= self.limits.blocks
