"""Scenario files: what they may say, and reading them."""

from cmsim.scenario.best import Open, words
from cmsim.scenario.forms import whole_key
from cmsim.scenario.load import Scenario, SweepSpace, load_scenario, load_space
from cmsim.scenario.run import Run
from cmsim.scenario.schema import FaultSpec, PerturbSpec, Record, ScenarioSpec, SystemEntry

__all__ = [
    "FaultSpec",
    "Open",
    "PerturbSpec",
    "Record",
    "Run",
    "Scenario",
    "ScenarioSpec",
    "SweepSpace",
    "SystemEntry",
    "load_scenario",
    "load_space",
    "whole_key",
    "words",
]
