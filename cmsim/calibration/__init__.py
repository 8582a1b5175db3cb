"""Calibration: measured tables in, predictions and fits out."""

from cmsim.calibration.expert import expert_us
from cmsim.calibration.expert_fit import ExpertFit
from cmsim.calibration.explain import explain
from cmsim.calibration.fit import Fit, calibrate
from cmsim.calibration.kernels import KernelsFit
from cmsim.calibration.logs import read_log
from cmsim.calibration.predict import KINDS, predict
from cmsim.libraries import LibraryCandidate

__all__ = [
    "KINDS",
    "ExpertFit",
    "Fit",
    "KernelsFit",
    "LibraryCandidate",
    "calibrate",
    "expert_us",
    "explain",
    "predict",
    "read_log",
]
