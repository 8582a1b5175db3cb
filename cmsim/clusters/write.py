"""A system as a description of infragraph: hosts, switches, and the links between them with bandwidth and latency.

Bandwidths are one direction, in gigabytes a second; latencies are those of one link, so that those along a path add up.
What infragraph has no form for (watts, prices, kernels, libraries, dies of a package) is left out.

Source: https://infragraph.dev, Keysight/infragraph 3.1, ``infragraph.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cmsim import reading
from cmsim.clusters.description import MOST_NODES
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.topology.graph import build
from cmsim.units import GIGA, US

#: instances and components of what is written
_HOST, _XPU, _CPU, _NIC, _PORT = "host", "xpu", "cpu", "nic", "port"


def write_cluster(system: System, path: str | Path) -> Path:
    """A description of a system, for infragraph and who reads it.

    Parameters
    ----------
    system
        All its domains, those of several with the network between them.
    path
        File to write, complete or absent: YAML.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        Where the fabric joins dies of a package, a host is partly used, or the file cannot be written.
    """
    data = described(system)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    head = f"# {system.name} as cmsim has it, for infragraph (https://infragraph.dev)\n"
    reading.write_text(Path(path), head + text)
    return Path(path)


def described(system: System) -> dict[str, Any]:
    """The description as data. Raises InputError where it cannot be."""
    made = _Made(system)
    made.fabric()
    if system.domains > 1:
        made.network()
    return made.data()


class _End(NamedTuple):
    """One component: of instance ``number`` of ``kind``, component ``name`` and its number."""

    kind: str
    number: int
    name: str
    at: int


class _Made:
    """A description in the making."""

    def __init__(self, system: System):
        self.system = system
        self.per_host = system.spec.node.accelerators
        #: instances of switches by their kind, and what number each node of the graph has there
        self.switches: dict[str, dict[Any, int]] = {}
        #: ports of a switch that have a link
        self.used: dict[tuple[str, int], int] = {}
        self.links: dict[str, dict[str, Any]] = {}
        self.edges: list[tuple[str, _End, _End]] = []
        if system.packages % self.per_host:
            message = f"{system.packages} accelerators do not fill hosts of {self.per_host}"
            raise InputError(Problem(message, system.name))
        if system.packages > MOST_NODES:
            message = f"{system.packages:,} accelerators; allowed: up to {MOST_NODES:,}, the components that are read"
            raise InputError(Problem(message, system.name))
        self.graph = build(system)

    def fabric(self) -> None:
        """Edges of accelerators, processors and switches. Dies of a package share its links."""
        merged: dict[tuple[Any, Any], dict[str, float]] = {}
        for a, b, said in self._both(("nic", "leaf", "spine")):
            pair = self._whole(a), self._whole(b)
            if pair[0] == pair[1]:
                message = "dies of a package are joined by its fabric, for which infragraph has no form"
                raise InputError(Problem(message, self.system.name))
            one = merged.setdefault(pair, {"capacity_Bps": 0.0, "latency_s": said["latency_s"]})
            one["capacity_Bps"] += said["capacity_Bps"]
        for (a, b), one in sorted(merged.items(), key=lambda each: self._place(*each[0])):
            kinds = {a[0], b[0]}
            name = "cpu" if "cpu" in kinds else "scale_up" if "package" in kinds else "scale_up_trunk"
            self._edge(name, a, b, one)

    def network(self) -> None:
        """Cards, leaves and spines."""
        found = self._both(("rank", "l1", "l2", "switch", "cpu"))
        for a, b, said in sorted(found, key=lambda each: self._place(each[0], each[1])):
            self._edge("network" if "nic" in (a[0], b[0]) else "network_trunk", a, b, said)

    def _both(self, without: tuple[str, ...]) -> list[tuple[Any, Any, dict[str, float]]]:
        """Links of the graph once, though it has each way of them."""
        return [
            (a, b, said)
            for a, b, said in self.graph.edges(data=True)
            if a[0] not in without and b[0] not in without and _order(a) < _order(b)
        ]

    def _place(self, a: Any, b: Any) -> tuple[Any, ...]:
        """Order of edges: those of a host to a switch one after the other."""
        host = a[1] // self.per_host if a[0] in ("package", "nic") else a[1]
        return (_order(a)[0], host if isinstance(host, int) else 0, _order(b), _order(a))

    def _whole(self, node: Any) -> Any:
        return ("package", node[1] // self.system.ranks_per_package) if node[0] == "rank" else node

    def _edge(self, link: str, a: Any, b: Any, said: dict[str, Any]) -> None:
        GBps, us = float(f"{said['capacity_Bps'] / GIGA:.9g}"), float(f"{said['latency_s'] / US:.9g}")
        number, name = 1, link
        physical = {
            "bandwidth": {"choice": "gigabytes_per_second", "gigabytes_per_second": GBps},
            "latency": {"choice": "us", "us": us},
        }
        while name in self.links and self.links[name]["physical"] != physical:
            number += 1
            name = f"{link}_{number}"
        self.links.setdefault(name, {"name": name, "physical": physical})
        self.edges.append((name, self._end(a), self._end(b)))

    def _end(self, node: Any) -> _End:
        kind, number = node[0], node[1]
        if kind == "cpu":
            return _End(_HOST, number, _CPU, node[2])
        if kind in ("package", "nic"):
            return _End(_HOST, number // self.per_host, _XPU if kind == "package" else _NIC, number % self.per_host)
        numbers = self.switches.setdefault(kind, {})
        at = numbers.setdefault(node, len(numbers))
        port = self.used.get((kind, at), 0)
        self.used[kind, at] = port + 1
        return _End(kind, at, _PORT, port)

    def data(self) -> dict[str, Any]:
        """All of it."""
        system, spec = self.system, self.system.spec
        devices = [_host(system)]
        instances = [{"name": _HOST, "device": _HOST, "count": system.packages // self.per_host}]
        for kind, numbers in self.switches.items():
            ports = max(count for (of, _), count in self.used.items() if of == kind)
            if kind in ("leaf", "spine"):
                ports = max(ports, spec.scale_out.switch_ports)
            devices.append(_switch(kind, ports))
            instances.append({"name": kind, "device": devices[-1]["name"], "count": len(numbers)})
        return {
            "name": system.name,
            "description": spec.description,
            "devices": devices,
            "links": list(self.links.values()),
            "instances": instances,
            "edges": list(_sliced(self.edges)),
        }


def _order(node: Any) -> tuple[Any, ...]:
    """Hosts' parts first, then switches from the lowest tier up."""
    first = ("rank", "package", "cpu", "nic", "l1", "leaf", "switch", "l2", "spine")
    place = first.index(node[0]) if node[0] in first else len(first)
    return (place, *((0, part, "") if isinstance(part, int) else (1, 0, str(part)) for part in node[1:]))


def _sliced(edges: list[tuple[str, _End, _End]]) -> Iterator[dict[str, Any]]:
    """Edges, those in a row as one with slices.

    In a row are: components of one instance, to components of another or to instances one after the other; and one
    component, to components of an instance.
    """
    at = 0
    while at < len(edges):
        link, a, b = edges[at]
        step = _step(edges[at], edges[at + 1]) if at + 1 < len(edges) else None
        count = 1
        while step and at + count < len(edges) and _step(edges[at + count - 1], edges[at + count]) == step:
            count += 1
        steps = step if step and count > 1 else (0, 0, 0)
        yield {
            "ep1": _slice(a, 0, steps[0] * (count - 1)),
            "ep2": _slice(b, steps[1] * (count - 1), steps[2] * (count - 1)),
            "scheme": "many2many" if count > 1 and not steps[0] else "one2one",
            "link": link,
        }
        at += count


def _step(one: tuple[str, _End, _End], other: tuple[str, _End, _End]) -> tuple[int, int, int] | None:
    """How the next edge differs: in the component of its first end, in instance and component of its second."""
    (link, a, b), (next_link, c, d) = one, other
    if (link, a.kind, a.number, a.name, b.kind, b.name) != (next_link, c.kind, c.number, c.name, d.kind, d.name):
        return None
    step = (c.at - a.at, d.number - b.number, d.at - b.at)
    return step if step in ((1, 0, 1), (1, 1, 0), (0, 0, 1)) else None


def _slice(end: _End, numbers: int, components: int) -> dict[str, str]:
    """An end, of so many instances and components more than one."""

    def part(name: str, at: int, more: int) -> str:
        return f"{name}[{at}:{at + more + 1}]" if more else f"{name}[{at}]"

    return {"instance": part(end.kind, end.number, numbers), "component": part(end.name, end.at, components)}


def _host(system: System) -> dict[str, Any]:
    spec = system.spec
    count = spec.node.accelerators
    card = {"choice": "gigabytes_per_second", "gigabytes_per_second": spec.scale_out.nic_GBps}
    return {
        "name": _HOST,
        "description": f"a host of {spec.name}",
        "components": [
            {"name": _XPU, "description": system.accelerator.description, "count": count, "choice": "xpu"},
            {"name": _CPU, "description": "a processor", "count": round(spec.node.cpus), "choice": "cpu"},
            {"name": _NIC, "description": f"a {spec.scale_out.protocol} card", "count": count, "choice": "nic"},
        ],
        "links": [
            {"name": "host_bus", "description": "accelerators and their processors"},
            {"name": "card", "description": "accelerators and their cards", "physical": {"bandwidth": card}},
        ],
        "edges": [_inside(_XPU, _CPU, "many2many", "host_bus"), _inside(_XPU, _NIC, "one2one", "card")],
    }


def _switch(kind: str, ports: int) -> dict[str, Any]:
    return {
        "name": kind if kind.endswith("switch") else f"{kind}_switch",
        "description": "a switch and its ports",
        "components": [
            {"name": "chip", "description": "a switch chip", "count": 1, "choice": "switch"},
            {"name": _PORT, "description": "a port", "count": ports, "choice": "port"},
        ],
        "links": [{"name": "board", "description": "chip and ports"}],
        "edges": [_inside("chip", _PORT, "many2many", "board")],
    }


def _inside(one: str, other: str, scheme: str, link: str) -> dict[str, Any]:
    return {"ep1": {"component": one}, "ep2": {"component": other}, "scheme": scheme, "link": link}
