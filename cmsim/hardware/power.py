"""Watts of a package under load: its own, or carried over from a measured one; and the band they lie in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cmsim.errors import InputError
from cmsim.hardware.specs import SHARED_WATTS, AcceleratorPower, AcceleratorSpec, Assumed, Source
from cmsim.reading import Document

#: range of a factor on carried watts, where the file gives none: assumed, as in the built-in files
_CARRIED = (0.8, 1.25)
#: ends the reason of a watt that was carried over
_MEASURED_ON = "on which it was measured"
#: whose ranges make the band: what decides power under load
_BANDED = (*SHARED_WATTS, "max_W")


@dataclass(frozen=True)
class BoardWatts:
    """Power of one package. [W]

    idle      at rest    active   at work, engines at rest    compute, memory, link   added by busy engines
    limit     in force    built   the limit as delivered    clock   share of the full one that is allowed [1]
    """

    idle: float
    active: float
    compute: float
    memory: float
    link: float
    limit: float
    built: float
    clock: float = 1.0


def carried(chip: AcceleratorSpec, document: Document, load: Callable[[str], AcceleratorSpec]) -> AcceleratorSpec:
    """The accelerator of a document with all its watts, each with a source.

    What the file leaves out is taken from the part named in ``power.shares_of``: what load adds over low idle
    (``active_W`` less ``idle_W``) and what busy engines add keep their share of the board limit. ``load`` reads an
    accelerator by name. Raises InputError for a part that has no watts of its own to share.
    """
    power = chip.power
    missing = [key for key in SHARED_WATTS if getattr(power, key) is None]
    if not missing:
        return _checked(chip, document)
    assert power.shares_of is not None  # the file's own check
    kin = load(power.shares_of).power
    if kin.shares_of is not None or kin.active_W is None or kin.compute_W is None or kin.memory_W is None:
        what = f"'{power.shares_of}' has no measured watts of its own to share"
        raise InputError(document.problem(("power", "shares_of"), what))
    shares = {
        "active_W": (kin.active_W - kin.idle_W) / kin.max_W,
        "compute_W": kin.compute_W / kin.max_W,
        "memory_W": kin.memory_W / kin.max_W,
    }
    given = chip.sources.get("power.shares_of")
    low, high = given.assumed if isinstance(given, Assumed) else _CARRIED
    limits = _range(chip.sources.get("power.max_W"), power.max_W)
    found: dict[str, float] = {}
    sources: dict[str, Source] = {}
    for key in missing:
        base_W = power.idle_W if key == "active_W" else 0.0
        found[key] = base_W + shares[key] * power.max_W
        span = (round(base_W + low * shares[key] * limits[0], 1), round(base_W + high * shares[key] * limits[1], 1))
        over = "over idle, " if key == "active_W" else ""
        why = f"{shares[key]:.3g} of the limit {over}as the {power.shares_of}, {_MEASURED_ON}"
        sources[f"power.{key}"] = Assumed(assumed=span, why=why)
    return _checked(
        chip.model_copy(
            update={"power": power.model_copy(update=found), "sources": {**chip.sources, **sources}},
        ),
        document,
    )


def at_share(chip: AcceleratorSpec, factor: float) -> dict[str, float]:
    """Watts of an accelerator that were carried over, each with its share of the limit ``factor`` times as large; empty
    where the file has them all. [W]"""
    power, found = chip.power, {}
    for key in SHARED_WATTS:
        source = chip.sources.get(f"power.{key}")
        if isinstance(source, Assumed) and source.why.endswith(_MEASURED_ON):
            base_W = power.idle_W if key == "active_W" else 0.0
            found[key] = base_W + factor * (getattr(power, key) - base_W)
    return found


def board_watts(chip: AcceleratorSpec) -> BoardWatts:
    """What a package draws, from an accelerator whose watts are all there (see `carried`)."""
    return _watts(chip.power)


def band(chip: AcceleratorSpec) -> tuple[BoardWatts, BoardWatts] | None:
    """The least and the most a package may draw: all watts under load at the low, and at the high end of the range
    that the file assumes for them. None where none of them is assumed: it was measured."""
    ranges = {key: _range(chip.sources.get(f"power.{key}"), getattr(chip.power, key)) for key in _BANDED}
    if all(low == high for low, high in ranges.values()):
        return None
    low, high = (_watts(chip.power.model_copy(update={key: ends[i] for key, ends in ranges.items()})) for i in (0, 1))
    return low, high


def _watts(power: AcceleratorPower) -> BoardWatts:
    active_W, compute_W, memory_W = (getattr(power, key) for key in SHARED_WATTS)
    # a limit that was set is known; one as delivered may not be
    limit_W = min(power.held_W, power.max_W)
    idle_W = min(power.idle_W, limit_W)
    return BoardWatts(
        idle_W,
        min(max(active_W, idle_W), limit_W),
        compute_W,
        memory_W,
        power.link_W,
        limit_W,
        power.max_W,
        power.clock,
    )


def _range(source: Source | None, value: float) -> tuple[float, float]:
    """Of an assumed number, never on the wrong side of it; else the number itself."""
    if not isinstance(source, Assumed):
        return value, value
    return min(source.assumed[0], value), max(source.assumed[1], value)


def _checked(chip: AcceleratorSpec, document: Document) -> AcceleratorSpec:
    power = chip.power
    assert power.active_W is not None
    if power.held_W < power.active_W or (power.limit_W is not None and power.held_W == power.active_W):
        what = (
            f"the limit in force, {power.held_W:g} W, is at or below active_W ({power.active_W:g}): nothing could run"
        )
        raise InputError(document.problem(("power", "max_W" if power.limit_W is None else "limit_W"), what))
    return chip
