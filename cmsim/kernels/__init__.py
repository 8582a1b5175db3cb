"""Kernels as measured: one page each, from columns to microseconds; constants are data (``topologies/kernels``).

A page prices rows by tiles, waves, bytes and fixed times, with a few named constants; a residual, smooth in the logs of
the columns, may lie on top. To add a kind: a page here, a module in ``kinds`` that declares its columns, a line in
``kinds/__init__.py``; ``cmsim calibrate`` then writes its data file, and runs take it for ops that carry its columns.
"""

from cmsim.kernels.data import (
    FOLDER,
    Found,
    KernelFile,
    Variant,
    choose_variant,
    kernel_data,
    kernel_machine,
)
from cmsim.kernels.machine import Machine
from cmsim.kernels.residual import Residual, Term, fit_residual, read_residuals, write_residuals

__all__ = [
    "FOLDER",
    "Found",
    "KernelFile",
    "Machine",
    "Residual",
    "Term",
    "Variant",
    "choose_variant",
    "fit_residual",
    "kernel_data",
    "kernel_machine",
    "read_residuals",
    "write_residuals",
]
