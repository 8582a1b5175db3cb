"""From a system to what the models of libraries need: domain, ports, NICs, and the library that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmsim.hardware import System
from cmsim.libraries.data import (
    LibraryName,
    LinkClass,
    MeasuredRows,
    RingLibrary,
    mesh_library,
    ring_library,
)
from cmsim.libraries.inside import Domain
from cmsim.libraries.tuner import TunerSpec
from cmsim.topology.levels import fabric
from cmsim.units import GB


@dataclass(frozen=True)
class Place:
    """A system as the models see it.

    library: what its accelerators run
    domain: rates inside    domain_ranks, node_ranks: ranks of one    nic_Bps: a rank's share [B/s]
    constants: of the domain (ring libraries) or of the mesh    mesh: whether the library sends directly
    transport: constants between domains    kernels: constants of serving engines' kernels
    alpha_us: latency between the farthest two ranks of a domain    tuner, generation: how a ring library chooses
    names: what a mesh library calls its algorithms    measured: whether rows of its links, or of its relative's, were
    fitted; constants common to all links stand in where not
    rows, between_rows, kernel_rows: what was measured inside a domain, between domains, and of the kernels
    """

    name: str
    accelerator: str
    library: str
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
    measured: bool
    rows: tuple[MeasuredRows, ...]
    between_rows: tuple[MeasuredRows, ...]
    kernel_rows: tuple[MeasuredRows, ...]


def place_of(system: System, *, nic_Bps: float = 0.0, transport: str = "", per_node: int = 0) -> Place:
    """What the models need to know of a system.

    nic_Bps: a rank's share of the NIC [B/s]    transport: between domains    per_node: ranks of what counts as a
    domain [1]; each the system's own where it is 0 or ""
    """
    levels = fabric(system)
    nccl, mesh = ring_library(system.accelerator.name), mesh_library()
    own = link_class(system)
    links = levels.port_Bps
    generation = nccl.tuner.generations[own.tuner_generation]
    bus = links * 0.82 if not own.accelerators else levels.port_Bps / _link_Bps(system) * own.tuner_link_GBps * GB
    domain = Domain(
        port_Bps=levels.port_Bps,
        tuner_bus_Bps=bus,
        ll_max_Bps=generation.ll_max_GBps[0] * GB,
        nvls=levels.in_network_reduction and generation.nvls_efficiency > 0,
    )
    transports = nccl.transports
    transport = transport or system.spec.scale_out.protocol
    between = transports.get(transport, transports["any"])
    # a table counts the nodes of a rack: the domain is the rack
    domain_ranks = levels.ranks_per_domain
    if per_node and per_node != levels.ranks_per_node:
        domain_ranks = per_node
    sends = system.accelerator.name in mesh.accelerators
    return Place(
        name=system.name,
        accelerator=system.accelerator.name,
        library=mesh.short if sends else nccl.short,
        domain=domain,
        domain_ranks=domain_ranks,
        node_ranks=levels.ranks_per_node,
        nic_Bps=nic_Bps or levels.nic_Bps,
        constants=mesh.constants if sends else own.constants,
        ring=own.constants,
        mesh=sends,
        transport=between,
        kernels=own.kernels,
        alpha_us=levels.domain_s * 1e6,
        tuner=nccl.tuner,
        generation=own.tuner_generation,
        names=mesh.names if sends else {},
        measured=sends or bool(own.accelerators),
        rows=mesh.rows if sends else own.rows,
        # beyond its domain the library of direct sends has no rows: a library of rings and trees stands in
        between_rows=() if sends else _between_rows(nccl, transport),
        kernel_rows=own.kernel_rows,
    )


def _between_rows(library: RingLibrary, transport: str) -> tuple[MeasuredRows, ...]:
    """Rows of a transport; of all its generations, where only their mean is known."""
    return tuple(
        row
        for name, rows in library.between_rows.items()
        for row in rows
        if name == transport or name.startswith(f"{transport} ")
    )


def _link_Bps(system: System) -> float:
    return float(getattr(system.spec.scale_up, "link_GBps", 25.0)) * GB


def link_class(system: System) -> LinkClass:
    """The link class of a system's accelerator, or one of common constants where no rows are."""
    nccl = ring_library(system.accelerator.name)
    for one in nccl.classes.values():
        if system.accelerator.name in one.accelerators or system.accelerator.relative in one.accelerators:
            return one
    # no rows of its own: the tuner's view of the class whose port is nearest
    port_Bps = fabric(system).port_Bps
    near = min(nccl.classes.values(), key=lambda one: abs(port_Bps - one.port_GBps * GB))
    return near.model_copy(
        update={"constants": nccl.common, "accelerators": (), "rows": (), "kernel_rows": (), "kernels": near.kernels}
    )
