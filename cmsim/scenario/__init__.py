"""Scenario files: what they may say, and reading them."""

from cmsim.scenario.load import Run, Scenario, load_scenario
from cmsim.scenario.schema import (
    WORKLOAD_KINDS,
    CollectiveSpec,
    DecodeSpec,
    EncoderSpec,
    ExchangeSpec,
    FaultSpec,
    PerturbSpec,
    PrefillSpec,
    ScenarioSpec,
    SystemEntry,
    TraceSpec,
    TrainingSpec,
    WorkloadSpec,
)

__all__ = [
    "WORKLOAD_KINDS",
    "CollectiveSpec",
    "DecodeSpec",
    "EncoderSpec",
    "ExchangeSpec",
    "FaultSpec",
    "PerturbSpec",
    "PrefillSpec",
    "Run",
    "Scenario",
    "ScenarioSpec",
    "SystemEntry",
    "TraceSpec",
    "TrainingSpec",
    "WorkloadSpec",
    "load_scenario",
]
