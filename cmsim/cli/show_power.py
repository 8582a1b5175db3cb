"""``cmsim show NAME --power``: what each part draws in each state, where each number is from, and what a total leaves
over beside a published one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmsim.hardware import System

_KILO, _PICO = 1e3, 1e-12
#: loads that the efficiency of supplies is told at [1], and temperatures outside [C]
_LOADS, _OUTSIDE_C = (0.1, 0.2, 0.5, 1.0), (0, 15, 25, 35)


@dataclass(frozen=True)
class State:
    """A part in a state: watts of one, how many there are, what else is to be said, and the keys it follows from."""

    part: str
    state: str
    each_W: float
    count: float
    says: str
    keys: tuple[str, ...]

    def document(self, sources: Mapping[str, Any]) -> dict[str, Any]:
        told = [_source(key, sources) for key in self.keys]
        return {
            "part": self.part,
            "state": self.state,
            "each_W": self.each_W,
            "count": self.count,
            "total_kW": self.each_W * self.count / _KILO,
            "says": self.says,
            "keys": list(self.keys),
            "sources": told,
        }


def document(system: System) -> dict[str, Any]:
    """Parts by state, what feeds and cools them, and totals beside published ones with what is left over."""
    from cmsim.hardware.common_parts import common_parts

    common = common_parts()
    sources = {
        **system.spec.sources,
        **{f"accelerator.{key}": value for key, value in system.accelerator.sources.items()},
        **{f"common.{key}": value for key, value in common.sources.items()},
    }
    states = [*_accelerator(system), *_hosts(system, common.host_memory_share), *_fabrics(system)]
    return {
        "kind": "power",
        "name": system.spec.name,
        "accelerators": system.packages,
        "states": [one.document(sources) for one in states],
        "modules": _modules(system, common),
        "feeds_and_cools": [
            {**row, "sources": [_source(key, sources) for key in row["keys"]]} for row in _behind(system)
        ],
        "totals": list(_totals(system)),
    }


def _source(key: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    """Where a key is from: of itself, or of the nearest key around it."""
    above = key
    while above and above not in sources:
        above = above.rpartition(".")[0]
    found: Any = sources.get(above)
    if hasattr(found, "assumed"):
        return {"key": key, "source": found.why, "assumed": list(found.assumed)}
    return {"key": key, "source": str(found) if found is not None else "not given: the default of the schema"}


def _accelerator(system: System) -> Iterator[State]:
    from cmsim.compute import ATTAINABLE_MEMORY
    from cmsim.compute.power import ATTAINABLE_COMPUTE
    from cmsim.hardware import board_watts
    from cmsim.topology import fabric

    chip, board, n = system.accelerator, board_watts(system.accelerator), system.packages
    power, of = chip.power, "accelerator.power."

    def row(state: str, watts: float, says: str, *keys: str) -> State:
        return State("accelerator", state, watts, n, says, tuple(of + key for key in keys))

    if power.sleep_W is not None:
        yield row("asleep", power.sleep_W, "contexts gone", "sleep_W")
    yield row("idle", board.idle, "clocks down", "idle_W")
    yield row("active idle", board.active, "contexts there, clocks up, engines at rest", "active_W")
    for name, peak in chip.peak_TFLOPps.items():
        pJ = board.compute / (peak * ATTAINABLE_COMPUTE)
        long = power.pJ_per_FLOP.get(name)
        held = "" if long is None else f", {long:g} in long work"
        keys = ("compute_W",) if long is None else ("compute_W", "pJ_per_FLOP")
        yield row(f"+ matrix engines, {name}", board.compute, f"{pJ:.3g} pJ/FLOP{held}", *keys)
    pJ = board.compute / (chip.vector_TFLOPps * ATTAINABLE_COMPUTE)
    yield row("+ vector engines", board.compute, f"{pJ:.3g} pJ/FLOP", "compute_W")
    pJ = board.memory / (chip.memory_GBps * ATTAINABLE_MEMORY) * _KILO
    yield row("+ memory", board.memory, f"{pJ:.3g} pJ/B at {ATTAINABLE_MEMORY:g} of its bandwidth", "memory_W")
    port_Bps = fabric(system).port_Bps * system.ranks_per_package
    pJ = board.link / (2 * port_Bps * 8) / _PICO
    yield row("+ link", board.link, f"{pJ:.3g} pJ/bit, both directions at full rate", "link_W")
    yield row("at its limit", board.limit, "", "max_W" if power.limit_W is None else "limit_W")


def _hosts(system: System, memory_share: float) -> Iterator[State]:
    node, nodes = system.spec.node, system.nodes
    sockets, share = nodes * node.cpus, ("common.host_memory_share",)
    feeding_W = node.cpu_idle_W + node.cpu_feeding * (node.cpu_active_W - node.cpu_idle_W)
    for state, watts, *keys in (
        ("idle", node.cpu_idle_W, "node.cpu_idle_W"),
        ("feeding accelerators", feeding_W, "node.cpu_idle_W", "node.cpu_feeding"),
        ("all cores at work", node.cpu_active_W, "node.cpu_active_W"),
    ):
        told = tuple(str(key) for key in keys)
        yield State("host CPU", state, watts * (1 - memory_share), sockets, "without its memory", told + share)
        yield State("host DRAM", state, watts * memory_share, sockets, f"{memory_share:g} of a socket", told + share)
    yield State("boards, drives, DPU", "always", node.other_W, nodes, "of one node", ("node.other_W",))
    out = system.spec.scale_out
    yield State("NIC", "always", out.nic_W, system.packages, "", ("scale_out.nic_W",))


def _fabrics(system: System) -> Iterator[State]:
    from cmsim.hardware import board_watts
    from cmsim.topology import fabric, powered, wiring

    inner, out = system.spec.scale_up.power, system.spec.scale_out
    parts = wiring(system).parts(system, system.spec.scale_up)
    there = powered(system, board_watts(system.accelerator), chips=parts.switch_chips, modules=parts.modules)
    if parts.switch_chips:
        moved_Bps = system.ranks * fabric(system).port_Bps / parts.switch_chips
        pJ = inner.chip_dynamic_W / (2 * moved_Bps) / _PICO
        key = "scale_up.power."
        yield State("switch chip", "no traffic", inner.chip_static_W, there.chips, "", (key + "chip_static_W",))
        says = f"{pJ:.3g} pJ/B in and out"
        yield State("switch chip", "+ full traffic", inner.chip_dynamic_W, there.chips, says, (key + "chip_dynamic_W",))
    kind = inner.instead or inner.module
    if parts.modules:
        yield State("scale-up module", "always", inner.module_W, parts.modules, kind, ("scale_up.power.module_W",))
    kind = out.instead or out.module
    yield State("scale-out module", "always", out.module_W, there.outer_modules, kind, ("scale_out.module_W",))
    says = "a share of the network's" if there.outer_switches % 1 else ""
    yield State("scale-out switch", "always", out.switch_W, there.outer_switches, says, ("scale_out.switch_W",))


def _modules(system: System, common: Any) -> list[dict[str, Any]]:
    """What one module of each kind draws, or would draw. [W]"""
    out = []
    for name, fabric in (("scale-up", system.spec.scale_up.power), ("scale-out", system.spec.scale_out)):
        if fabric.module_W:
            # watts are of the kind that is there now
            as_built = fabric.model_copy(update={"module": fabric.instead or fabric.module})
            each = {kind: common.module_W(as_built, kind) for kind in common.modules}
            out.append({"fabric": name, "kind": as_built.module, "each_W": each})
    return out


def _behind(system: System) -> Iterator[dict[str, Any]]:
    """Fans, supplies by load, and the building by the temperature outside."""
    from cmsim.hardware.common_parts import common_parts, pue_at
    from cmsim.hardware.supplies import efficiency

    facility = system.spec.facility
    yield {
        "part": "fans and pumps",
        "at": "always",
        "value": facility.fan_fraction,
        "unit": "of what they cool",
        "keys": ["facility.fan_fraction"],
    }
    keys = ["facility.psu_curve"] if facility.psu_curve else ["facility.psu_efficiency", "facility.psu_standing_loss"]
    for load in _LOADS:
        share = efficiency(load, facility)
        yield {"part": "rectifiers", "at": f"{load:.0%} load", "value": share, "unit": "efficiency", "keys": keys}
    yield {"part": "building", "at": "as given", "value": facility.pue, "unit": "PUE", "keys": ["facility.pue"]}
    keys = ["facility.pue_by_C"] if facility.pue_by_C else ["common.over_pue_by_C"]
    if facility.outside_C is None:
        for outside_C in _OUTSIDE_C:
            pue = pue_at(facility, outside_C, common_parts())
            yield {"part": "building", "at": f"{outside_C} C outside", "value": pue, "unit": "PUE", "keys": keys}


def _totals(system: System) -> Iterator[dict[str, Any]]:
    """Derived totals of power; beside published ones with what these have over them, which nothing fills. [kW]"""
    from cmsim.topology import totals

    for name, total in totals(system).items():
        if total.unit != "kW":
            continue
        yield {
            "quantity": name,
            "derived_kW": total.value,
            "derivation": total.derivation,
            "published": [
                {"kW": one.value, "left_over_kW": one.value - total.value, "basis": one.basis, "source": one.source}
                for one in system.spec.published
                if one.quantity == name
            ],
        }


def tables(told: Mapping[str, Any]) -> list[Any]:
    """The document as tables."""
    from cmsim.cli import say

    rows = []
    before = same = ""
    for one in told["states"]:
        part = one["part"] if one["part"] != before else ""
        before = one["part"]
        said = "; ".join(dict.fromkeys(_said(source) for source in one["sources"]))
        said, same = ("as above" if said == same else said), said
        each = f"{one['each_W']:.4g}"
        rows.append([part, one["state"], each, f"{one['count']:,.4g}", f"{one['total_kW']:,.4g}", one["says"], said])
    heads = ["part", "state", "W each", "count", "kW", "which is", "source"]
    parts = [
        say.table(
            heads,
            rows,
            title=f"{told['name']}: power by part and state, {told['accelerators']} accelerators; + over active idle",
            left=(0, 1, 5, 6),
            whole=(0, 1, 2, 3, 4),
            marked="ASSUMED",
        )
    ]
    if told["modules"]:
        kinds = list(told["modules"][0]["each_W"])
        rows = [
            [one["fabric"], one["kind"], *(f"{one['each_W'][kind]:.3g}" for kind in kinds)] for one in told["modules"]
        ]
        heads = ["modules of", "there are", *(f"W as {kind}" for kind in kinds)]
        parts.append(say.table(heads, rows, title="kinds of modules", left=(0, 1)))
    rows = [
        [one["part"], one["at"], f"{one['value']:.3f}", one["unit"], "; ".join(_said(each) for each in one["sources"])]
        for one in told["feeds_and_cools"]
    ]
    heads = ["part", "at", "value", "", "source"]
    parts.append(
        say.table(heads, rows, title="what feeds and cools", left=(0, 1, 3, 4), whole=(0, 1, 2, 3), marked="ASSUMED")
    )
    rows = []
    for total in told["totals"]:
        name, derived = total["quantity"], f"{total['derived_kW']:,.4g}"
        if not total["published"]:
            rows.append([name, derived, "", "", total["derivation"]])
        for i, one in enumerate(total["published"]):
            first = [name, derived] if not i else ["", ""]
            said = f"{one['basis']}: {one['source']}" if one["basis"] else one["source"]
            rows.append([*first, f"{one['kW']:,.4g}", f"{one['left_over_kW']:+,.3g}", said])
    heads = ["total", "kW", "published", "left over", "basis and source, or how it is derived"]
    parts.append(say.table(heads, rows, title="totals", left=(0, 4), whole=(0, 1, 2, 3)))
    return parts


def _said(source: Mapping[str, Any]) -> str:
    if "assumed" not in source:
        return str(source["source"])
    low, high = source["assumed"]
    return f"ASSUMED{f', {low:g} to {high:g}' if low < high else ''}: {source['source']}"
