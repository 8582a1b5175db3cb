"""What a kernel draws: by the time its work would need, not by the rate it reached.

    t_c = FLOPs / (0.7 peak)      t_m = bytes / (0.85 bandwidth)      t = max(t_c, t_m)
    P = min(limit, active + compute t_c / t + memory q t_m / t)

A slow kernel burns as much as a fast one: units that wait for operands are clocked, and small tiles pad. So the two
shares are of *attainable* time and the larger of them is 1, however long the kernel really takes. q is 2 B over the
bytes of a weight for grouped products of narrower weights, else 1: what such kernels read goes down with the
format, what they draw does not. Between kernels and in collectives a package draws ``active``.

Under a limit the clock f falls until it holds. Arithmetic takes 1/f the time, and energy on the chip goes as the
square of the voltage and so of f. Of memory's watts a part h is the stacks' own, which keep their clock; the rest
moves bytes across the chip. A clock that is set is the most that f may be:

    s(f) = max(t_c / f, t_m) / t      P(f) = active + (compute f^2 t_c / t + memory (h + (1 - h) f^2) q t_m / t) / s(f)

Kernels are timed in bursts, at clocks that the board does not keep up. What goes on for longer than it averages its
power takes no more energy than its limit leaves: t >= (FLOPs e + bytes m) / (limit - active), with e of the silicon
and the format, at the clocks of such work, and m = memory / (0.85 bandwidth) (`energy_bound_s`). One e serves boards of
one silicon with different limits; steps of 1,000 and 1,200 W then agree within 10 %. Work that is held so to 1/r of its
clock draws all that the board's own limit leaves: a lower one slows it from there, and a clock above 1/r not at all.

Assumes that voltage follows the clock, that ``active`` does not, and one temperature. Leaves out what a cold or a
hot part draws beside (leakage grows 0.5 to 1 % per kelvin) and the averaging windows of meters.
Source: the form and its fit are of this project (docs/models.md, Power); P ~ f V^2 as in Hong and Kim, ISCA 2010,
doi:10.1145/1815961.1815998; a power cap as the third bound of a roofline: Choi et al., IPDPS 2014,
doi:10.1109/IPDPS.2014.54.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.arrays import Floats

#: what well-made kernels reach of peak arithmetic and of peak bandwidth: the rates that attainable time is of
ATTAINABLE_COMPUTE, ATTAINABLE_MEMORY = 0.7, 0.85
#: bytes of a weight below which a grouped product draws as if it read that many
FULL_WEIGHT_B = 2.0
#: share of memory's watts in the stacks themselves: 3.5 to 7 pJ/bit of some 14 that a byte read costs in all
MEMORY_OWN = 0.4
#: halvings of the clock's interval; 2^-30 is far below what a clock can be set to
_HALVINGS = 30
#: clocks do not fall below this share; below it a part skips cycles, and power falls as speed does
_LOWEST = 0.3


def busy_shares(
    flops: Any, bytes_B: Any, *, peak_FLOPps: Any, memory_Bps: float, weight_B: Any = FULL_WEIGHT_B
) -> tuple[Floats, Floats]:
    """How busy each kernel keeps arithmetic and memory: attainable time over the larger of the two, q within. [1]

    flops, bytes_B   work of each kernel [FLOP], [B]    peak_FLOPps  of the engine it runs on; 0: none
    weight_B         bytes of a weight of a grouped product, ``FULL_WEIGHT_B`` for all others

    A kernel without work keeps neither busy.

    >>> compute, memory = busy_shares([7e11, 0.0], [4.25e11, 1.0], peak_FLOPps=1e12, memory_Bps=1e12)
    >>> compute.tolist(), memory.tolist()
    ([1.0, 0.0], [0.5, 1.0])
    """
    peak = np.asarray(peak_FLOPps, np.float64)
    arithmetic = np.asarray(flops, np.float64)
    compute_s = np.divide(arithmetic, peak * ATTAINABLE_COMPUTE, out=np.zeros(arithmetic.shape), where=peak > 0)
    memory_s = np.asarray(bytes_B, np.float64) / (memory_Bps * ATTAINABLE_MEMORY)
    longer_s = np.maximum(compute_s, memory_s)
    compute = np.divide(compute_s, longer_s, out=np.zeros_like(longer_s), where=longer_s > 0)
    memory = np.divide(memory_s, longer_s, out=np.zeros_like(longer_s), where=longer_s > 0)
    return compute, memory * (FULL_WEIGHT_B / np.minimum(weight_B, FULL_WEIGHT_B))


def slowed(
    compute: Floats,
    memory: Floats,
    *,
    active_W: float,
    compute_W: float,
    memory_W: float,
    limit_W: float,
    timed_at_W: float,
    clock: float = 1.0,
    held: Floats | float = 1.0,
) -> Floats:
    """By how much kernels take longer under ``limit_W`` and a clock than under the limit they were timed at. [1]

    compute, memory: as `busy_shares` gives them    clock: the most of the full one that is allowed [1]
    held: how many times longer the limit they were timed at makes them take already (see `energy_bound_s`) [1]

    >>> watts = dict(active_W=100.0, compute_W=600.0, memory_W=300.0, timed_at_W=700.0)
    >>> bound_by = np.array([1.0, 0.0]), np.array([0.0, 1.0])  # arithmetic, memory
    >>> slowed(*bound_by, **watts, limit_W=350.0).round(3).tolist()  # (250 / 600) ** (1 / 3) of the clock
    [1.339, 1.0]
    >>> slowed(*bound_by, **watts, limit_W=700.0, clock=0.8).round(3).tolist()
    [1.25, 1.0]
    """
    held = np.broadcast_to(held, compute.shape)
    top = clock_under(clock, held)
    # what is held draws all there is
    at_rest = _draws_W(compute, memory, compute_W, memory_W)
    scale = np.where((held > 1) & (at_rest > 0), (timed_at_W - active_W) / np.maximum(at_rest, 1e-300), 1.0)

    def time(at_W: float, most: Floats) -> Floats:
        return _time_under(compute, memory, compute_W * scale, memory_W * scale, at_W - active_W, most)

    return np.maximum(time(limit_W, top) / time(timed_at_W, np.ones(compute.shape)), 1.0)


def clock_under(clock: float, held: Floats | float) -> Floats:
    """Share of its clock that is left to work under a clock that is set, which the board's own limit may hold below it
    already. [1]

    >>> clock_under(0.75, np.array([1.0, 1.2, 1.5])).tolist()
    [0.75, 0.8999999999999999, 1.0]
    """
    return np.minimum(clock * np.asarray(held, np.float64), 1.0)


def clocked(compute: Floats, memory: Floats, clock: Floats) -> tuple[Floats, Floats]:
    """Busy shares at a lower clock, in the watts of the full one. [1]

    Arithmetic takes longer, and energy on the chip goes as the clock squared.

    >>> compute, memory = clocked(np.array([1.0, 0.5]), np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    >>> compute.round(4).tolist(), memory.round(4).tolist()
    ([0.125, 0.125], [0.0, 0.55])
    """
    longer = np.maximum(np.maximum(compute / clock, np.minimum(memory, 1.0)), 1e-300)
    longer = np.where((compute > 0) | (memory > 0), longer, 1.0)
    return compute * clock**2 / longer, memory * (MEMORY_OWN + (1 - MEMORY_OWN) * clock**2) / longer


def energy_bound_s(
    flops: Floats, bytes_B: Floats, pJ_per_FLOP: Floats, *, memory_Bps: float, memory_W: float, room_W: float
) -> Floats:
    """The least time of each kernel of long work under the board's limit. [s]

    pJ_per_FLOP  of each kernel's format, 0 where nothing is known: such kernels are not bound
    room_W       what the limit leaves to engines    memory_W  what memory draws at attainable bandwidth

    >>> bound = dict(memory_Bps=1e12, memory_W=85.0, room_W=500.0)
    >>> energy_bound_s(np.array([1e15, 1e15]), np.array([0.0, 5e12]), np.array([1.0, 0.0]), **bound).tolist()
    [2.0, 0.0]
    """
    joules = flops * pJ_per_FLOP * 1e-12 + bytes_B * memory_W / (memory_Bps * ATTAINABLE_MEMORY)
    return np.where(pJ_per_FLOP > 0, joules / room_W, 0.0)


def _draws_W(compute: Floats, memory: Floats, compute_W: float, memory_W: float) -> Floats:
    """Of engines at full clock. [W]"""
    longer = np.maximum(np.maximum(compute, np.minimum(memory, 1.0)), 1e-300)
    draws: Floats = (compute_W * compute + memory_W * memory) / longer
    return draws


def _time_under(
    compute: Floats, memory: Floats, compute_W: Floats, memory_W: Floats, room_W: float, most: Floats
) -> Floats:
    """Time of each kernel over that at full clock, where engines may add ``room_W`` and the clock be at ``most``."""
    # what q adds to memory's power is no time
    arithmetic, traffic = compute, np.minimum(memory, 1.0)

    def at(clock: Floats) -> tuple[Floats, Floats]:
        longer = np.maximum(np.maximum(arithmetic / clock, traffic), 1e-300)
        moved_W = memory_W * (MEMORY_OWN + (1 - MEMORY_OWN) * clock**2) * memory
        return longer, (compute_W * clock**2 * arithmetic + moved_W) / longer

    low, high = np.minimum(_LOWEST, most), most.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = at(middle)[1] <= room_W
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    clock = np.where(at(most)[1] <= room_W, most, low)
    longer, draws_W = at(clock)
    over = np.maximum(draws_W / room_W, 1.0) if room_W > 0 else np.ones(compute.shape)
    busy = (compute > 0) | (memory > 0)
    return np.where(busy, longer * over, 1.0)
