"""Accelerators, stacks and systems as data, read from ``topologies/``."""

from cmsim.hardware.link_table import Cable
from cmsim.hardware.specs import AcceleratorSpec, Assumed, Source, StackSpec, SystemSpec
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
    "Cable",
    "Source",
    "StackSpec",
    "System",
    "SystemSpec",
    "load_accelerator",
    "load_stack",
    "load_system",
    "stack_data",
]
