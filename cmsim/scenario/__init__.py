"""Scenario files: what they may say, and reading them."""

from cmsim.scenario.best import METRICS, Open, more_is_better, words
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
    Record,
    ScenarioSpec,
    SystemEntry,
    TraceSpec,
    TrainingSpec,
    WorkloadSpec,
)

__all__ = [
    "METRICS",
    "WORKLOAD_KINDS",
    "CollectiveSpec",
    "DecodeSpec",
    "EncoderSpec",
    "ExchangeSpec",
    "FaultSpec",
    "Open",
    "PerturbSpec",
    "PrefillSpec",
    "Record",
    "Run",
    "Scenario",
    "ScenarioSpec",
    "SystemEntry",
    "TraceSpec",
    "TrainingSpec",
    "WorkloadSpec",
    "load_scenario",
    "more_is_better",
    "words",
]
