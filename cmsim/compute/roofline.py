"""Time of kernels: the slower of arithmetic and memory, each at the share of its peak that its class reaches.

A kernel class says which engine works and whose efficiency applies; the efficiencies themselves are data
(``topologies/stacks``). To add a class: one line in ``KERNELS`` and an efficiency in the stacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.compute.variants import share_of
from cmsim.errors import InfeasibleError, InputError, Problem, did_you_mean

MATRIX, VECTOR, EITHER = "matrix", "vector", "either"


@dataclass(frozen=True)
class KernelClass:
    """The engine a class runs on (``matrix``, ``vector``, or ``either``) and what it stands for."""

    engine: str
    doc: str

    @property
    def matrix(self) -> bool:
        return self.engine == MATRIX


#: kernel classes by name
KERNELS: dict[str, KernelClass] = {
    "gemm": KernelClass(MATRIX, "matrix multiplication: projections, dense FFN, output head, convolution"),
    "grouped_gemm": KernelClass(MATRIX, "one multiplication per expert in one launch"),
    "attention_prefill": KernelClass(MATRIX, "fused attention over a prompt or a training sequence"),
    "attention_decode": KernelClass(MATRIX, "fused attention of a few new tokens over a cache of keys and values"),
    "mla_prefill": KernelClass(MATRIX, "latent attention over a prompt, keys and values expanded"),
    "mla_decode": KernelClass(MATRIX, "latent attention of a few new tokens over the cached latents, absorbed"),
    "norm": KernelClass(VECTOR, "RMSNorm or LayerNorm, with or without the residual sum"),
    "activation": KernelClass(VECTOR, "SiLU or GELU, gated or not"),
    "rope": KernelClass(VECTOR, "rotary positions"),
    "quantise": KernelClass(VECTOR, "change of precision with block scales, either way"),
    "embedding": KernelClass(VECTOR, "gather from the token table"),
    "optimizer": KernelClass(VECTOR, "update of weights and optimizer state"),
    "sampling": KernelClass(VECTOR, "softmax over the vocabulary and choice of a token"),
    "recurrence": KernelClass(EITHER, "the core of a layer with a state over whole sequences, in training"),
    "generic": KernelClass(EITHER, "anything else: on the matrix engine where a precision is named, else on vectors"),
}

#: classes that are priced as another where a stack says nothing of them
_LIKE = {"recurrence": "generic"}

#: what held an op back, by code; ``host`` is for the engine, which knows when ops are issued
BOUNDS = ("compute", "memory", "overhead", "host")
COMPUTE_BOUND, MEMORY_BOUND, OVERHEAD_BOUND = range(3)


@dataclass(frozen=True)
class Efficiency:
    """What a kernel class reaches: shares of peak rate and of peak bandwidth (0, 1], fixed device time [s].

    compute_by_precision: the share of the peak rate in precisions where it is not ``compute``; see `variants`
    """

    compute: float
    memory: float
    overhead_s: float = 0.0
    compute_by_precision: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rates:
    """What one rank can do.

    peak_FLOPps   dense peak of the matrix engine by precision name [FLOP/s]
    vector_FLOPps peak of the vector units [FLOP/s]
    memory_Bps    peak memory bandwidth [B/s]
    efficiency    by kernel class
    name          of the accelerator and stack, for errors
    """

    peak_FLOPps: Mapping[str, float]
    vector_FLOPps: float
    memory_Bps: float
    efficiency: Mapping[str, Efficiency]
    name: str = field(default="this accelerator")


@dataclass(frozen=True)
class KernelTimes:
    """Time of each kernel [s], and what bound it (code into ``BOUNDS``)."""

    time_s: NDArray[np.float64]
    bound: NDArray[np.int8]


def price(
    kernel_id: NDArray[Any],
    precision_id: NDArray[Any],
    flops: NDArray[Any],
    bytes_B: NDArray[Any],
    cores: NDArray[Any],
    *,
    kernels: Sequence[str],
    precisions: Sequence[str],
    rates: Rates,
) -> KernelTimes:
    """Time of every row of a table of kernels by the roofline of its class.

    kernel_id     into ``kernels``; rows with -1 (communication, host) cost nothing
    precision_id  into ``precisions``; -1 where no matrix engine is used
    flops, bytes_B  work of each row [FLOP], [B]
    cores         share of the cores the row may use: scales the peak rate, not the bandwidth [1]

    A kernel without work costs its class's overhead. Raises InputError, all problems at once, for a kernel class
    that does not exist or that the stack has no efficiency for; InfeasibleError for a precision the chip lacks.
    """
    flops, bytes_B = np.asarray(flops, np.float64), np.asarray(bytes_B, np.float64)
    kernel_id, precision_id = np.asarray(kernel_id, np.int64), np.asarray(precision_id, np.int64)
    # One spare last row and column each, so that the number -1 finds it.
    shape = (len(kernels) + 1, len(precisions) + 1)
    used = np.zeros(shape, bool)
    # Work of no flops needs no engine, so its precision need not exist on the chip.
    used[kernel_id[flops > 0], precision_id[flops > 0]] = True
    present = np.zeros(shape[0], bool)
    present[kernel_id] = True

    memory = np.ones(shape[0])
    overhead_s = np.zeros(shape[0])
    reachable = np.ones(shape)
    problems: list[Problem] = []
    kinds: set[type[InputError | InfeasibleError]] = set()
    for i in np.flatnonzero(present[:-1]).tolist():
        try:
            reached = _efficiency(kernels[i], rates)
            memory[i] = reached.memory
            overhead_s[i] = reached.overhead_s
            for j in np.flatnonzero(used[i]).tolist():
                precision = precisions[j] if j < len(precisions) else ""
                share = share_of(precision, reached.compute_by_precision, reached.compute)
                reachable[i, j] = _engine_FLOPps(kernels[i], precision, rates) * share
        except (InputError, InfeasibleError) as error:
            problems += error.problems
            kinds.add(type(error))
    if problems:
        raise (InputError if InputError in kinds else InfeasibleError)(problems)

    compute_s = flops / (reachable[kernel_id, precision_id] * cores)
    memory_s = bytes_B / (rates.memory_Bps * memory[kernel_id])
    work_s = np.maximum(compute_s, memory_s)
    fixed_s = overhead_s[kernel_id]
    bound = np.where(compute_s >= memory_s, COMPUTE_BOUND, MEMORY_BOUND)
    bound = np.where(fixed_s >= work_s, OVERHEAD_BOUND, bound)
    time_s = np.where(kernel_id < 0, 0.0, work_s + fixed_s)
    return KernelTimes(time_s, bound.astype(np.int8))


def _efficiency(kernel: str, rates: Rates) -> Efficiency:
    if kernel not in KERNELS:
        raise InputError(f"no kernel class '{kernel}'. {did_you_mean(kernel, KERNELS, limit=len(KERNELS))}")
    if kernel not in rates.efficiency and _LIKE.get(kernel) in rates.efficiency:
        return rates.efficiency[_LIKE[kernel]]
    if kernel not in rates.efficiency:
        hint = did_you_mean(kernel, rates.efficiency, limit=len(KERNELS))
        raise InputError(f"{rates.name} has no efficiency for kernel class '{kernel}'. {hint}")
    return rates.efficiency[kernel]


def _engine_FLOPps(kernel: str, precision: str, rates: Rates) -> float:
    """Peak of the engine that runs the class: the vector units', or the matrix engine's in that precision."""
    engine = KERNELS[kernel].engine
    if engine == VECTOR or (engine == EITHER and not precision):
        return rates.vector_FLOPps
    if precision in rates.peak_FLOPps:
        return rates.peak_FLOPps[precision]
    hint = did_you_mean(precision, rates.peak_FLOPps)
    if not precision:
        raise InputError(f"kernel class '{kernel}' runs on the matrix engine and needs a precision. {hint}")
    raise InfeasibleError(f"{rates.name} has no {precision} peak, which kernel class '{kernel}' asks for. {hint}")
