"""Accelerators, stacks and systems as data, read from ``topologies/``."""

from cmsim.hardware.frameworks import ExpertCosts, TrainingTuning
from cmsim.hardware.link_table import Cable
from cmsim.hardware.power import BoardWatts, at_share, band, board_watts
from cmsim.hardware.software import CallCost, call_cost, small_sum
from cmsim.hardware.specs import (
    AcceleratorSpec,
    Assumed,
    Source,
    SystemSpec,
)
from cmsim.hardware.stacks import CastExperts, LateRanks, ServingTuning, Sharing, StackSpec
from cmsim.hardware.system import (
    ACCELERATORS,
    STACKS,
    SYSTEMS,
    System,
    load_accelerator,
    load_stack,
    load_system,
    stack_data,
)

__all__ = [
    "ACCELERATORS",
    "STACKS",
    "SYSTEMS",
    "AcceleratorSpec",
    "Assumed",
    "BoardWatts",
    "Cable",
    "CallCost",
    "CastExperts",
    "ExpertCosts",
    "LateRanks",
    "ServingTuning",
    "Sharing",
    "Source",
    "StackSpec",
    "System",
    "SystemSpec",
    "TrainingTuning",
    "at_share",
    "band",
    "board_watts",
    "call_cost",
    "load_accelerator",
    "load_stack",
    "load_system",
    "small_sum",
    "stack_data",
]
