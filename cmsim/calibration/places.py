"""From a name in a table to what the models need: domain, ports, NICs, library."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cmsim import files
from cmsim.collectives import library
from cmsim.collectives.library import Domain, LinkClass, TunerSpec
from cmsim.collectives.library.data import LibraryName
from cmsim.errors import InputError
from cmsim.hardware import System, load_system
from cmsim.topology.levels import fabric
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


@dataclass(frozen=True)
class Place:
    """A system as the models see it.

    domain: rates inside    domain_ranks, node_ranks: ranks of one    nic_Bps: a rank's share [B/s]
    constants: of the domain (ring libraries) or of the mesh    mesh: whether the library sends directly
    transport: constants between domains    kernels: constants of serving engines' kernels
    alpha_us: latency between the farthest two ranks of a domain    tuner, generation: how a ring library chooses
    names: what a mesh library calls its algorithms
    """

    name: str
    domain: Domain
    domain_ranks: int
    node_ranks: int
    nic_Bps: float
    constants: Mapping[str, float]
    ring: Mapping[str, float]
    mesh: bool
    transport: Mapping[str, float]
    kernels: Mapping[str, Mapping[str, float]]
    alpha_us: float
    tuner: TunerSpec
    generation: str
    names: Mapping[str, LibraryName]


@functools.lru_cache(maxsize=4096)
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
            found = found or next((n for n in library.networks() if re.search(n.pattern, text, re.IGNORECASE)), None)
        if found is None or found.system is None:
            raise unknown
        system = load_system(found.system)
        nic_Bps = (found.nic_GBps or 0.0) * GB
        transport = found.transport or next((ours for word, ours in _TRANSPORTS if word in name), "")
        nic_Bps = _stated_Bps(name, per_node or system.spec.node.accelerators) or nic_Bps
    return _of(system, nic_Bps=nic_Bps, transport=transport, per_node=per_node)


def _stated_Bps(name: str, per_node: int) -> float:
    for pattern, of in _STATED:
        if found := pattern.search(name):
            product = 1.0
            for number in found.groups():
                product *= float(number.replace(",", ""))
            return product / 8 * GB / (per_node if of == "node" else 1)
    return 0.0


def _of(system: System, *, nic_Bps: float, transport: str, per_node: int) -> Place:
    wires = fabric(system)
    nccl, mesh = library.ring_library(system.accelerator.name), library.mesh_library()
    own = link_class(system)
    links = wires.port_Bps
    generation = nccl.tuner.generations[own.tuner_generation]
    bus = links * 0.82 if not own.accelerators else wires.port_Bps / _link_Bps(system) * own.tuner_link_GBps * GB
    domain = Domain(
        port_Bps=wires.port_Bps,
        tuner_bus_Bps=bus,
        ll_max_Bps=generation.ll_max_GBps[0] * GB,
        nvls=wires.in_network_reduction and generation.nvls_efficiency > 0,
    )
    transports = nccl.transports
    between = transports.get(transport or system.spec.scale_out.protocol, transports["any"])
    # a table counts the nodes of a rack: the domain is the rack
    domain_ranks = wires.ranks_per_domain
    if per_node and per_node != wires.ranks_per_node:
        domain_ranks = per_node
    sends = system.accelerator.name in mesh.accelerators
    return Place(
        name=system.name,
        domain=domain,
        domain_ranks=domain_ranks,
        node_ranks=wires.ranks_per_node,
        nic_Bps=nic_Bps or wires.nic_Bps,
        constants=mesh.constants if sends else own.constants,
        ring=own.constants,
        mesh=sends,
        transport=between,
        kernels=own.kernels,
        alpha_us=wires.domain_s * 1e6,
        tuner=nccl.tuner,
        generation=own.tuner_generation,
        names=mesh.names if sends else {},
    )


def _link_Bps(system: System) -> float:
    return float(getattr(system.spec.scale_up, "link_GBps", 25.0)) * GB


def link_class(system: System) -> LinkClass:
    """The link class of a system's accelerator, or one of common constants where no rows are."""
    nccl = library.ring_library(system.accelerator.name)
    for one in nccl.classes.values():
        if system.accelerator.name in one.accelerators or system.accelerator.relative in one.accelerators:
            return one
    # no rows of its own: the tuner's view of the class whose port is nearest
    near = min(
        nccl.classes.values(),
        key=lambda one: abs(fabric(system).port_Bps - _first_port_Bps(one)),
    )
    return near.model_copy(update={"constants": nccl.common, "accelerators": (), "kernels": near.kernels})


@functools.cache
def _ports() -> dict[str, float]:
    out: dict[str, float] = {}
    for name in files.builtin_files("topologies"):
        system = load_system(name)
        out.setdefault(system.accelerator.name, fabric(system).port_Bps)
    return out


def _first_port_Bps(one: LinkClass) -> float:
    return _ports().get(one.accelerators[0], 0.0)
