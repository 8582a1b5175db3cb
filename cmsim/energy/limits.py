"""What caps of an accelerator, a rack, a supernode and a hall leave to each accelerator. [W]

A cap holds with everything beside the accelerators at the most that a run makes it draw, so that no run passes it. What
is left is shared alike over the accelerators, each of which is then held to its share as a board is to its limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cmsim.energy.parts import full_W, scale_up_modules, switch_chips
from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import BoardWatts, System, board_watts
from cmsim.hardware.supplies import lost_W, overhead_W
from cmsim.topology import powered

#: halvings of the interval that what is delivered lies in
_HALVINGS = 60


@dataclass(frozen=True)
class Cap:
    """A cap: of what, in watts, and what each accelerator has of it. [W]"""

    of: str
    cap_W: float
    leaves_W: float


def limited(system: System, cap_W: Mapping[str, float], clock: float = 1.0) -> System:
    """The system under caps and at a clock, with a note.

    cap_W: of accelerator (a package), rack (a cabinet, at its wall), supernode (a domain with its share of what joins
    domains, at the wall) and hall (all accelerators of the system, PUE included) [W]; a domain or rack that is there in
    part has its share of a cap

    Raises InfeasibleError where a cap leaves an accelerator no more than it draws at work with engines at rest.
    """
    board, power = board_watts(system.accelerator), system.accelerator.power
    told: dict[str, Any] = {}
    notes = []
    if caps := sorted(_caps(system, board, cap_W), key=lambda cap: cap.leaves_W):
        least = caps[0]
        if least.leaves_W <= board.active:
            raise _infeasible(system, board, least)
        if least.leaves_W < board.limit:
            told["limit_W"] = least.leaves_W
            whose = "" if least.of == "accelerator" else f" leaves {least.leaves_W:,.4g} W to each accelerator, which"
            notes.append(
                f"the cap of {least.cap_W:,.6g} W of {_NAMES[least.of]}{whose} is under the limit of "
                f"{board.limit:,.4g} W: clocks fall until it holds"
            )
        else:
            notes.append(
                f"the cap of {least.cap_W:,.6g} W of {_NAMES[least.of]} leaves {least.leaves_W:,.4g} W to each "
                f"accelerator: its limit of {board.limit:,.4g} W holds anyway"
            )
    if clock < board.clock:
        told["clock"] = clock
    if not told and not notes:
        return system
    chip = system.accelerator.model_copy(update={"power": power.model_copy(update=told)})
    return replace(system, accelerator=chip, notes=(*system.notes, *notes))


_NAMES = {
    "accelerator": "an accelerator",
    "rack": "a rack",
    "supernode": "a supernode",
    "hall": "the hall",
}


def _caps(system: System, board: BoardWatts, cap_W: Mapping[str, float]) -> Iterator[Cap]:
    spec = system.spec
    domains = system.packages / spec.accelerators
    counts = {"rack": domains * spec.racks, "supernode": domains, "hall": 1.0}
    for of, watts in cap_W.items():
        if of == "accelerator":
            yield Cap(of, watts, watts)
        else:
            pue = spec.facility.pue if of == "hall" else 1.0
            yield Cap(of, watts, _each_W(system, board, watts * counts[of] / pue))


def _each_W(system: System, board: BoardWatts, it_W: float) -> float:
    """What accelerators may draw each, so that all together draw ``it_W`` at the wall of the racks. [W]"""
    facility = system.spec.facility
    sized_W = full_W(system, board)
    low, high = 0.0, max(it_W, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = middle + float(lost_W(middle, full_W=sized_W, facility=facility)) <= it_W
        low, high = (middle, high) if fits else (low, middle)
    return (low / (1 + facility.fan_fraction) - beside_W(system, board)) / system.packages


def beside_W(system: System, board: BoardWatts) -> float:
    """The most that a run makes everything draw that is no accelerator, before fans and supplies. [W]"""
    parts = powered(system, board, chips=switch_chips(system), modules=scale_up_modules(system))
    node = system.spec.node
    fed_W = system.packages / node.accelerators * node.cpus * (node.cpu_active_W - node.cpu_idle_W) * node.cpu_feeding
    return (
        parts.hosts_idle_W
        + fed_W
        + parts.chips_idle_W
        + parts.chips * parts.chip_added_W
        + parts.modules_W
        + parts.nics_W
        + parts.outside_W
    )


def _infeasible(system: System, board: BoardWatts, cap: Cap) -> InfeasibleError:
    """With the least cap that would do, in words and in the budget."""
    facility, of = system.spec.facility, cap.of
    least_W = board.active
    if of != "accelerator":
        direct_W = (system.packages * board.active + beside_W(system, board)) * (1 + facility.fan_fraction)
        it_W = direct_W + float(lost_W(direct_W, full_W=full_W(system, board), facility=facility))
        domains = system.packages / system.spec.accelerators
        if of == "hall":
            least_W = it_W + overhead_W(it_W, facility.pue)
        else:
            least_W = it_W / (domains * (system.spec.racks if of == "rack" else 1.0))
    message = (
        f"got {cap.cap_W:,.6g} W of {_NAMES[of]}, which leaves {max(cap.leaves_W, 0):.4g} W to each accelerator; at "
        f"work with engines at rest it draws {board.active:.4g} W (idle {board.idle:.4g}). "
        f"Allowed: above {least_W:,.6g} W"
    )
    budget = {"what": "power", "needed_W": least_W, "available_W": cap.cap_W}
    return InfeasibleError(Problem(message, key=f"power.cap_W.{of}"), budget)


__all__ = ["Cap", "beside_W", "limited"]
