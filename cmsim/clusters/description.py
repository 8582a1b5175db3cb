"""A description of a cluster by infragraph (PyPI): checked with lines, then unfolded to a graph by its own package.

    devices     what a host or a switch is made of: components (xpu, nic, cpu, switch, port, ...), links and edges
    instances   how many there are of each device
    links       name, and of some bandwidth (gigabits or gigabytes a second) and latency (ms, us, ns)
    edges       which components of which instances are joined, by slices: one2one or many2many

The package says little of a name that is not there; so names, slices and sizes are looked at first.

Source: https://infragraph.dev, Keysight/infragraph 3.1, ``infragraph.proto`` and ``infragraph_service.py``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim import reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading import Document, Path_

#: what the package raises where a field is of another kind
_ODD = (AttributeError, LookupError, TypeError, ValueError)
#: components and edges of all instances together
MOST_NODES, _MOST_EDGES = 50_000, 500_000
#: devices that lie in each other
_DEEPEST = 8
#: problems that are listed before the rest is counted
_LISTED = 20
_SCHEMES = ("one2one", "many2many")
_SEGMENT = re.compile(r"([^\[\].]+)(?:\[([-\d:]*)\])?")
_KEYS = {key: re.compile(rf"^[\s{{]*[\"']?{key}[\"']?\s*:", re.MULTILINE) for key in ("devices", "instances")}


@dataclass(frozen=True)
class Description:
    """A file, and its graph: nodes ``INSTANCE.NUMBER.COMPONENT.NUMBER`` with their ``type``; edges with ``link``, and
    of some ``bandwidth`` and ``latency`` as text."""

    document: Document
    graph: Any

    @property
    def name(self) -> str:
        """Of the cluster."""
        return str(self.document.data.get("name") or Path(self.document.file).stem)

    def problem(self, message: str, *path: str | int) -> InputError:
        """An error at a place of the file."""
        return InputError(self.document.problem(path, message))


def describes(path: Path) -> bool:
    """Whether a file looks like a description of a cluster, by its keys."""
    if path.suffix not in (".yaml", ".yml", ".json") or not reading.exists(path):
        return False
    text = reading.read_text(path)
    return all(key.search(text) for key in _KEYS.values())


def open_description(path: Path) -> Description:
    """The description of a file. Raises InputError with every name, slice or size that cannot be."""
    document = reading.read_yaml(path)
    problems = list(_Check(document).problems())
    if problems:
        more = len(problems) - _LISTED
        last = [Problem(f"and {more} more problems", str(path))] if more > 0 else []
        raise InputError([*problems[:_LISTED], *last])
    try:
        from infragraph import Infrastructure
        from infragraph.infragraph_service import GraphError, InfraGraphService, InfrastructureError
    except ImportError:
        raise InputError(Problem("needs the package infragraph: pip install 'cmsim[infragraph]'", str(path))) from None
    service = InfraGraphService()
    try:
        service.set_graph(Infrastructure().deserialize(copy.deepcopy(document.data)))
    # it takes fields as they come, and says what is wrong with one by whatever happens
    except (GraphError, InfrastructureError, NotImplementedError, *_ODD) as error:
        raise InputError(Problem(f"infragraph cannot read it: {error}", str(path))) from None
    return Description(document, service.get_networkx_graph())


class _Check:
    """What is wrong with names, slices and sizes of a file."""

    def __init__(self, document: Document):
        self.document = document
        #: device -> component -> how many, and whether it is a device
        self.devices: dict[str, dict[str, tuple[int, bool]]] = {}
        self.instances: dict[str, tuple[str, int]] = {}
        self.edges = 0

    def problems(self) -> Iterator[Problem]:
        """Each with its line."""
        data = self.document.data
        for key in ("devices", "instances"):
            if not isinstance(data.get(key), list) or not data[key]:
                yield self.document.problem((key,), "must be a list with entries")
                return
        for at, device in self._entries(data, (), "devices"):
            found = self.devices.setdefault(str(device.get("name")), {})
            for place, one in self._entries(device, at, "components"):
                if not isinstance(one.get("count"), int) or one["count"] < 0:
                    yield self.document.problem((*place, "count"), f"must be a whole number, got {one.get('count')!r}")
                    return
                found[str(one.get("name"))] = one["count"], one.get("choice") == "device"
        for at, one in self._entries(data, (), "instances"):
            of = str(one.get("device"))
            if of not in self.devices:
                text = f"no device '{of}'. {did_you_mean(of, self.devices)}"
                yield self.document.problem((*at, "device"), text)
            elif not isinstance(one.get("count"), int) or one["count"] < 0:
                yield self.document.problem((*at, "count"), f"must be a whole number, got {one.get('count')!r}")
            else:
                self.instances[str(one.get("name"))] = of, one["count"]
        nodes = sum(count * self._nodes(device, 0) for device, count in self.instances.values())
        if nodes > MOST_NODES:
            yield self.document.problem(("instances",), f"hold {nodes:,} components; allowed: up to {MOST_NODES:,}")
            return
        for at, device in self._entries(data, (), "devices"):
            yield from self._of_edges(device, at, str(device.get("name")))
        yield from self._of_edges(data, (), None)
        if self.edges > _MOST_EDGES:
            yield self.document.problem(("edges",), f"are {self.edges:,} in all; allowed: up to {_MOST_EDGES:,}")

    def _entries(self, data: Mapping[str, Any], at: Path_, key: str) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
        entries = data.get(key)
        for number, one in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(one, Mapping):
                yield (*at, key, number), one

    def _nodes(self, device: str, depth: int) -> int:
        """Components of a device, those of devices in it too."""
        if depth > _DEEPEST:
            return MOST_NODES + 1
        return sum(
            count * (self._nodes(name, depth + 1) if inner and name in self.devices else 1)
            for name, (count, inner) in self.devices[device].items()
        )

    def _of_edges(self, scope: Mapping[str, Any], at: Path_, device: str | None) -> Iterator[Problem]:
        """Of the edges in a device, or of the cluster's."""
        links = [str(one.get("name")) for _, one in self._entries(scope, at, "links")]
        for place, edge in self._entries(scope, at, "edges"):
            if edge.get("link") not in links:
                text = f"no link '{edge.get('link')}'. {did_you_mean(str(edge.get('link')), links)}"
                yield self.document.problem((*place, "link"), text)
            scheme = edge.get("scheme")
            if scheme not in _SCHEMES:
                yield self.document.problem((*place, "scheme"), f"got {scheme!r}; allowed: {', '.join(_SCHEMES)}")
            ends = []
            for end in ("ep1", "ep2"):
                said = edge.get(end)
                count = self._end(said, device) if isinstance(said, Mapping) else "must have a component"
                if isinstance(count, str):
                    yield self.document.problem((*place, end), count)
                else:
                    ends.append(count)
            if len(ends) == 2:
                copies = (
                    1 if device is None else sum(count for name, count in self.instances.values() if name == device)
                )
                self.edges += copies * (min(ends) if scheme == "one2one" else ends[0] * ends[1])

    def _end(self, said: Mapping[str, Any], device: str | None) -> int | str:
        """How many components an end of an edge is, or what is wrong with it."""
        whole = 1
        segments = [part for part in (said.get("device"), said.get("component")) if part]
        path = ".".join(map(str, segments))
        if device is None:
            name = str(said.get("instance"))
            head = _SEGMENT.fullmatch(name)
            if head is None or head[1] not in self.instances:
                return f"no instance '{name}'. {did_you_mean(head[1] if head else name, self.instances)}"
            device, there = self.instances[head[1]]
            whole = _length(head[2], there)
            if whole < 0:
                return f"'{name}' is outside the {there} of that instance"
        for segment in path.split("."):
            part = _SEGMENT.fullmatch(segment)
            known = self.devices.get(device, {})
            if part is None or part[1] not in known:
                return f"{device} has no component '{segment}'. {did_you_mean(part[1] if part else segment, known)}"
            count, inner = known[part[1]]
            length = _length(part[2], count)
            if length < 0:
                return f"'{segment}' is outside the {count} of that component"
            whole *= length
            device = part[1] if inner else device
        return whole


def _length(text: str | None, count: int) -> int:
    """How many of so many a slice takes; -1 where it is a number that is not there, or none at all."""
    if not text:
        return count
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        if len(parts) == 1:
            return 1 if parts[0] is not None and -count <= parts[0] < count else -1
        return len(range(*slice(*parts).indices(count)))
    except (TypeError, ValueError):
        return -1
