"""Dispatch and combine of a mixture of experts, as measured: the front of their pages and data."""

from cmsim.libraries.expert import Exchange
from cmsim.libraries.expert import copies as exchange_copies
from cmsim.libraries.expert_data import (
    EXPERT_DEFAULTS,
    ExpertLibrary,
    ExpertProfile,
    Operation,
    Payload,
    exchange_us,
    expert_library,
)
from cmsim.libraries.expert_reach import expert_note, expert_reach

__all__ = [
    "EXPERT_DEFAULTS",
    "Exchange",
    "ExpertLibrary",
    "ExpertProfile",
    "Operation",
    "Payload",
    "exchange_copies",
    "exchange_us",
    "expert_library",
    "expert_note",
    "expert_reach",
]
