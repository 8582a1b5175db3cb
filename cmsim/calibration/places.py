"""From a name in a table to a place that the models of libraries know."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cmsim import libraries, reading
from cmsim.errors import InputError
from cmsim.hardware import SYSTEMS, load_accelerator, load_system
from cmsim.libraries import Place, place_of
from cmsim.units import GB

#: rates that a name states itself: pattern, what to divide the product of its numbers [Gb/s] by ("node": its ranks)
_STATED = (
    (
        re.compile(r"(\d+)\s*x\s*(?:NDR|HDR|EDR)?\s*(\d+)\s*G?(?:b/s)?(?:\s+IB|\s+RoCE)?\s+per node", re.IGNORECASE),
        "node",
    ),
    (re.compile(r"([\d,]+)\s*Gb/s per node", re.IGNORECASE), "node"),
    (re.compile(r"([\d,]+)\s*Gb/s (?:IB |RoCE |EFA )?per GPU", re.IGNORECASE), "rank"),
)
_TRANSPORTS = (("EFA v1", "EFA v1"), ("EFA v2", "EFA v2"), ("EFA v4", "EFA v4"), ("EFA", "EFA"), ("RoCE", "RoCE"))


def place(name: str, accelerator: str = "", per_node: int = 0) -> Place:
    """What a table's system is.

    name: a built-in system, an alias, a file, or a text that ``topologies/libraries`` knows
    accelerator: what the table says it is made of, asked where the name is unknown    per_node: ranks in a node, or 0

    InputError: neither is known.
    """
    nic_Bps, transport = 0.0, ""
    try:
        system = load_system(name)
    except InputError as unknown:
        found = None
        for text in (name, accelerator):
            found = found or next((n for n in libraries.networks() if re.search(n.pattern, text, re.IGNORECASE)), None)
        known_as = found.system if found is not None else _with_accelerator(name)
        if known_as is None:
            raise unknown
        system = load_system(known_as)
        if found is not None:
            nic_Bps = (found.nic_GBps or 0.0) * GB
            transport = found.transport or next((ours for word, ours in _TRANSPORTS if word in name), "")
            nic_Bps = _stated_Bps(name, per_node or system.spec.node.accelerators) or nic_Bps
    return place_of(system, nic_Bps=nic_Bps, transport=transport, per_node=per_node)


def unmeasured(places: Iterable[Place]) -> tuple[str, ...]:
    """What is to be said of predictions at these places, each once."""
    said = (
        f"{at.name}: no measured rows of its links; constants common to all of {at.library} stand in"
        for at in places
        if not at.measured
    )
    return tuple(dict.fromkeys(said))


def _with_accelerator(name: str) -> str | None:
    """The first built-in system of an accelerator, where a table names that instead of a system."""
    try:
        wanted = load_accelerator(name).name
    except InputError:
        return None
    documents = {system: reading.read_yaml(path).data for system, path in reading.builtin_files(SYSTEMS).items()}
    return next((system for system, data in documents.items() if data.get("accelerator") == wanted), None)


def _stated_Bps(name: str, per_node: int) -> float:
    for pattern, of in _STATED:
        if found := pattern.search(name):
            product = 1.0
            for number in found.groups():
                product *= float(number.replace(",", ""))
            return product / 8 * GB / (per_node if of == "node" else 1)
    return 0.0
