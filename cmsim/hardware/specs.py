"""What a system file may say. The string beside a field is its documentation (``cmsim schema`` prints it).

Numbers keep the data sheet's unit in their key. Bandwidths are one direction unless the name says otherwise;
an accelerator is one package as sold, whatever the rank is. Every number in a file of ``topologies/`` has an
entry in that file's ``sources``: a citation, or ``{assumed: [low, high], why: ...}``.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmsim.reading import Spec
from cmsim.reading.quantities import (
    Average,
    Coefficient,
    Count,
    Dollars,
    Factor,
    GBps,
    GigaBytes,
    GramsPerKWh,
    MicrosecondsAtLeast,
    Parts,
    Places,
    Share,
    ShareOrNone,
    TFLOPps,
    Total,
    Watts,
    WattsAtLeast,
)

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4"]
#: formats of products, those among them that have another's peak and kernels of their own
ProductFormat = Literal[Precision, "fp8_block", "mxfp8", "mxint8", "mxfp6", "mxfp4"]


class Assumed(Spec):
    """A number without a published source."""

    assumed: tuple[float, float] = Field(description="range in which the number is believed to lie")
    why: str = Field(description="what the choice rests on")

    @model_validator(mode="after")
    def _least_first(self) -> Assumed:
        low, high = self.assumed
        if low > high:
            raise ValueError(f"assumed: must go from the least to the most, got [{low:g}, {high:g}]")
        return self


Source = str | Assumed
Sources = dict[str, Source]


class AcceleratorPower(Spec):
    """Power of one package: low idle, what being at work adds, what busy engines add, held under a limit.

    Engines count by the time their work would need at rates a part can attain, not by what was achieved: see
    `cmsim.compute.power`. Watts that are not given are those of the accelerator named in ``shares_of``, in proportion
    to the limits of the two.
    """

    idle_W: WattsAtLeast = Field(description="powered, no work, clocks down")
    active_W: WattsAtLeast | None = Field(
        default=None, description="clocks up, kernels resident, engines at rest: between kernels, or in a collective"
    )
    compute_W: Watts | None = Field(
        default=None, description="added by a kernel that its engine's arithmetic binds, at the clock without a limit"
    )
    memory_W: Watts | None = Field(default=None, description="added by a kernel that memory binds")
    link_W: Watts = Field(description="added by the fabric ports at full bandwidth, both directions")
    max_W: WattsAtLeast = Field(description="board limit as delivered, at which the part's kernels were timed")
    limit_W: WattsAtLeast | None = Field(
        default=None, description="a lower limit set by the operator: clocks fall until it holds, and times grow"
    )
    clock: Share = Field(
        default=1.0, description="the most that the operator lets clocks be, of the full one; times grow and watts fall"
    )
    sleep_W: WattsAtLeast | None = Field(
        default=None, description="with its contexts gone and its memory let go; default: it has no state below idle"
    )
    pJ_per_FLOP: dict[Precision, Coefficient] = Field(
        default={},
        description="energy of an operation of a long product, by precision: with the board's own limit it bounds what "
        "is kept up for longer than the board averages its power; see `sustained` of stacks",
    )
    shares_of: str | None = Field(
        default=None, description="a measured accelerator whose shares of the limit stand for watts not given here"
    )

    @property
    def held_W(self) -> float:
        """The limit in force."""
        return self.max_W if self.limit_W is None else self.limit_W

    @model_validator(mode="after")
    def _in_order(self) -> AcceleratorPower:
        missing = [key for key in SHARED_WATTS if getattr(self, key) is None]
        if missing and self.shares_of is None:
            raise ValueError(f"{missing[0]}: give it, or `shares_of` with the name of a measured accelerator")
        if self.max_W < self.idle_W:
            raise ValueError(f"max_W: must be at least idle_W ({self.idle_W:g}), got {self.max_W:g}")
        if self.sleep_W is not None and self.sleep_W > self.idle_W:
            raise ValueError(f"sleep_W: must be at most idle_W ({self.idle_W:g}), got {self.sleep_W:g}")
        if self.limit_W is not None and not self.idle_W <= self.limit_W <= self.max_W:
            raise ValueError(
                f"limit_W: must lie between idle_W ({self.idle_W:g}) and max_W ({self.max_W:g}), got {self.limit_W:g}"
            )
        return self


#: watts of a package that decide its power under load: what `shares_of` can stand for
SHARED_WATTS = ("active_W", "compute_W", "memory_W")


class AcceleratorSpec(Spec):
    """One package as sold: ``topologies/accelerators/NAME.yaml``."""

    name: str
    description: str
    aliases: tuple[str, ...] = Field(default=(), description="other names used by traces and tables")
    relative: str | None = Field(default=None, description="the accelerator whose fitted efficiencies it inherits")
    host_kind: str | None = Field(
        default=None, description="kind of host it sits beside; what hosts do around kernels goes with it (x86, ...)"
    )
    dies: Parts = Field(description="dies that a communicator may count as ranks")
    cores: Count = Field(description="matrix cores (AIC, SM) of the package")
    peak_TFLOPps: dict[Precision, TFLOPps] = Field(description="dense peak of the package by precision")
    lacks: tuple[str, ...] = Field(
        default=(), description="recipes of training whose elements its engine multiplies, but whose scales it does not"
    )
    vector_TFLOPps: TFLOPps = Field(description="peak of the vector units of the package, 16-bit")
    memory_GB: GigaBytes = Field(description="capacity of the package's memory, as sold")
    memory_reported: Factor = Field(
        default=1.0,
        description="what the device reports over that, which is what programs can have: what is sold as GB of stacked "
        "memory is GiB, less what firmware keeps",
    )
    memory_GBps: GBps = Field(description="peak bandwidth of the package's memory")
    host_GBps: GBps | None = Field(
        default=None, description="what copies between the package and its host's memory reach, one direction"
    )
    power: AcceleratorPower
    sources: Sources


class NodeSpec(Spec):
    """One host: server, tray or board."""

    accelerators: Places
    cpus: Parts
    cpu_idle_W: Watts = Field(description="one socket with its memory, idle")
    cpu_active_W: Watts = Field(description="one socket with its memory, all its cores at work")
    cpu_feeding: ShareOrNone = Field(
        default=0.1,
        description="share of the way from idle to active at which sockets run while accelerators work: what launches "
        "and feeds them; default as the nodes that were metered",
    )
    other_W: Watts = Field(default=0.0, description="boards, drives, DPU and management, constant")
    host_network_GBps: GBps | None = Field(
        default=None,
        description="what the node's network of its hosts (front end, VPC) carries, one direction; caches may cross it",
    )


#: what is at the ends of a link between chips: retimed by a DSP, linear drive (LPO), or passive copper
Module = Literal["dsp", "lpo", "copper"]
_INSTEAD = (
    "modules of another kind in their place: watts in proportion to topologies/parts; whether "
    "copper reaches so far is not looked at"
)


class SwitchPower(Spec):
    """Power of a fabric. Optics and SerDes idle frames draw nearly constant power, so modules are constant."""

    chip_static_W: Watts = Field(description="one switch chip, no traffic")
    chip_dynamic_W: Watts = Field(description="added to one switch chip at full traffic")
    module_W: Watts = Field(default=0.0, description="one optical module, always on")
    module: Module = Field(default="dsp", description="kind of module that module_W is of")
    instead: Module | None = Field(default=None, description=_INSTEAD)


class Wired(Spec):
    """A scale-up fabric. What is done with one stands on its page of ``topology.wirings``."""

    def refused(self, accelerators: int) -> str:
        """Why it cannot join so many, or nothing."""
        del accelerators
        return ""

    @property
    def host_cpu_GBps(self) -> float | None:
        """What one host CPU injects, where hosts are on the fabric too."""
        return None


class MultiPlaneClos(Wired):
    """Two switch tiers in independent planes.

    A node has one first-tier chip per plane, with one lane to every second-tier chip of that plane.
    """

    wiring: Literal["multi_plane_clos"]
    planes: Parts = Field(description="independent planes; every accelerator and host reaches all of them")
    lane_GBps: GBps = Field(description="one lane, one direction")
    lanes_per_accelerator: Count = Field(description="lanes of one package into each plane")
    l2_chips_per_plane: Parts = Field(description="second-tier chips of a plane; each has one lane per node")
    cpu_GBps: GBps = Field(description="what one host CPU injects, over all planes")
    node_us: MicrosecondsAtLeast = Field(description="small-message latency between ranks of a node")
    domain_us: MicrosecondsAtLeast = Field(description="small-message latency between nodes")
    switch_us: MicrosecondsAtLeast = Field(description="port to port through one switch chip")
    modules_per_uplink: Average = Field(description="optical modules per first-to-second-tier lane, both ends")
    in_network_reduction: bool = False
    power: SwitchPower

    @property
    def host_cpu_GBps(self) -> float | None:
        """Every host CPU reaches all planes."""
        return self.cpu_GBps


class Switched(Wired):
    """One tier of switch chips; the links of every accelerator are spread evenly over them."""

    wiring: Literal["switch"]
    switches: Parts = Field(description="switch chips of the domain")
    links_per_accelerator: Count
    link_GBps: GBps = Field(description="one link, one direction")
    domain_us: MicrosecondsAtLeast = Field(description="small-message latency between accelerators")
    switch_us: MicrosecondsAtLeast = Field(description="port to port through one switch chip")
    in_network_reduction: bool = Field(description="switches reduce in flight")
    power: SwitchPower


class FullMesh(Wired):
    """A dedicated link between every pair of accelerators; no switch."""

    wiring: Literal["full_mesh"]
    links_per_pair: Count = 1
    link_GBps: GBps = Field(description="one link, one direction")
    domain_us: MicrosecondsAtLeast = Field(description="small-message latency between accelerators")
    in_network_reduction: bool = False
    power: SwitchPower


class Dimension(Spec):
    """One dimension of a grid of accelerators: how those are joined that differ in this coordinate only."""

    kind: Literal["ring", "line", "mesh", "switch"] = Field(
        description="ring: neighbours, the last with the first; line: without that; mesh: every two; switch: one chip"
    )
    size: Places = Field(description="accelerators along it")
    links: Count = Field(
        default=1, description="parallel links to each neighbour (ring, line), to each peer (mesh), or to the switch"
    )
    link_GBps: GBps = Field(description="one link, one direction")
    hop_us: MicrosecondsAtLeast = Field(
        description="small-message latency to the next accelerator, through the switch if any"
    )


class Dimensions(Wired):
    """A grid of accelerators, joined dimension by dimension: tori, nD full meshes, rings of switched rows."""

    wiring: Literal["dimensions"]
    dimensions: dict[str, Dimension] = Field(
        min_length=1, description="by name, innermost first: accelerators are numbered along the first one first"
    )
    in_network_reduction: Literal[False] = False
    power: SwitchPower

    @property
    def accelerators(self) -> int:
        """How many it joins."""
        return math.prod(one.size for one in self.dimensions.values())

    def refused(self, accelerators: int) -> str:
        if accelerators == self.accelerators:
            return ""
        sizes = " x ".join(str(one.size) for one in self.dimensions.values())
        return f"{accelerators} is not {sizes} = {self.accelerators}, the dimensions"

    @property
    def switches(self) -> int:
        """Switch chips of all rows."""
        return sum(self.accelerators // one.size for one in self.dimensions.values() if one.kind == "switch")


class Custom(Wired):
    """Any graph, from a table of links."""

    wiring: Literal["custom"]
    file: str = Field(
        description="CSV beside the system file: from, to, GBps, latency_us and perhaps links (default 1), of one "
        "direction; a line is a link both ways. Ranks are rank/0, rank/1, ...; every other name is a switch"
    )
    in_network_reduction: Literal[False] = False
    power: SwitchPower


class AstraSim(Wired):
    """A network file of ASTRA-sim's analytical backend, read as `dimensions`."""

    wiring: Literal["astra_sim"]
    file: str = Field(description="YAML beside the system file: topology, npus_count, bandwidth, latency")
    in_network_reduction: Literal[False] = False
    power: SwitchPower


ScaleUp = Annotated[
    MultiPlaneClos | Switched | FullMesh | Dimensions | Custom | AstraSim, Field(discriminator="wiring")
]


class ScaleOut(Spec):
    """RDMA network that joins domains: a fat tree of leaf and spine switches."""

    protocol: Literal["RoCE", "InfiniBand", "EFA", "Ethernet"]
    nic_GBps: GBps = Field(description="one direction, per accelerator package")
    cluster_us: MicrosecondsAtLeast = Field(description="small-message latency between domains")
    switch_us: MicrosecondsAtLeast = Field(description="port to port through one switch")
    switch_ports: Count = Field(description="ports of one switch, at the NIC's rate")
    oversubscription: Annotated[float, Field(ge=1, le=1e3)] = Field(default=1.0, description="leaf down over leaf up")
    nic_W: Watts = Field(description="one NIC, per accelerator package")
    modules_per_accelerator: Average = Field(
        description="optical modules per accelerator package, all ends (of the switches too)"
    )
    module_W: Watts = Field(description="one optical module, always on")
    module: Module = Field(default="dsp", description="kind of module that module_W is of")
    instead: Module | None = Field(default=None, description=_INSTEAD)
    switch_W: Watts = Field(description="one switch, modules left out")


class FacilitySpec(Spec):
    """What stands between the wall and the boards."""

    pue: Annotated[float, Field(ge=1, le=1e2)] = Field(description="facility power over IT power")
    psu_efficiency: Share = Field(
        description="power supplies at full load: direct current out over alternating current in"
    )
    psu_standing_loss: ShareOrNone = Field(
        default=0.5, description="share of the full-load loss of power supplies that is there at no load"
    )
    psu_curve: tuple[tuple[Share, Share], ...] = Field(
        default=(),
        description="of power supplies: [load over full load, efficiency], loads going up; in place of psu_efficiency "
        "and psu_standing_loss",
    )
    outside_C: Annotated[float, Field(ge=-60, le=60)] | None = Field(
        default=None, description="temperature outside, at which `pue` is looked up in `pue_by_C`; default: as given"
    )
    pue_by_C: tuple[tuple[Annotated[float, Field(ge=-60, le=60)], Annotated[float, Field(ge=1, le=1e2)]], ...] = Field(
        default=(),
        description="[temperature outside, pue], going up; default: `pue` is that of 15 C, and what is above 1 goes as "
        "in topologies/parts",
    )
    fan_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(description="fans and pumps over the power they cool")
    price_per_accelerator_hour_USD: Dollars | None = Field(
        default=None, description="rental price of one accelerator package"
    )
    price_per_accelerator_USD: Dollars | None = Field(
        default=None, description="purchase price of one accelerator package with its share of the machine"
    )
    carbon_g_per_kWh: GramsPerKWh | None = Field(default=None, description="of the electricity used")

    @model_validator(mode="after")
    def _going_up(self) -> FacilitySpec:
        for key in ("psu_curve", "pue_by_C"):
            at = [x for x, _ in getattr(self, key)]
            if any(b <= a for a, b in itertools.pairwise(at)):
                raise ValueError(f"{key}: points must go up; got {', '.join(f'{x:g}' for x in at)}")
        return self


class Published(Spec):
    """A published total, to stand beside the derived one."""

    quantity: str = Field(description="name of the derived total, see cmsim.topology.totals")
    value: Total
    basis: str = Field(default="", description="what it counts: nominal or maximum, accelerators, IT or facility")
    source: str


class SystemSpec(Spec):
    """A system as a user names it: ``topologies/NAME.yaml``."""

    name: str
    description: str
    aliases: tuple[str, ...] = ()
    accelerator: str = Field(description="name of a file in topologies/accelerators")
    stack: str = Field(description="default, name of a file in topologies/stacks")
    stack_of: dict[str, str] = Field(
        default={},
        description="by kind of workload: the default where it is another than `stack`; `serving` is as `decode`, of "
        "whose steps it is made, where it is not named",
    )
    stacks: tuple[str, ...] = Field(default=(), description="other stacks that run on it")
    rank: Literal["die", "package"] = Field(description="what a communicator counts")
    accelerators: Places = Field(description="packages of one domain")
    domains: Places = Field(default=1, description="domains joined by the scale-out network")
    job_accelerators: Places | None = Field(
        default=None,
        description="packages of a domain that jobs over several domains take, as operators do; default: all",
    )
    racks: Factor = Field(description="cabinets that one domain fills")
    compute_racks: Factor | None = Field(
        default=None, description="those of them that hold nodes; default all (the others hold switches)"
    )
    node: NodeSpec
    scale_up: ScaleUp
    scale_out: ScaleOut
    facility: FacilitySpec
    published: tuple[Published, ...] = ()
    sources: Sources

    @model_validator(mode="after")
    def _whole_nodes(self) -> SystemSpec:
        per_node = self.node.accelerators
        if self.accelerators % per_node:
            raise ValueError(f"accelerators: {self.accelerators} does not fill nodes of {per_node}")
        if refused := self.scale_up.refused(self.accelerators):
            raise ValueError(f"accelerators: {refused}")
        if self.job_accelerators and self.job_accelerators % per_node:
            raise ValueError(f"job_accelerators: {self.job_accelerators} does not fill nodes of {per_node}")
        return self

    def stack_for(self, kind: str) -> str:
        """The stack on which workloads of a kind are where nobody names one; of a service that of its steps."""
        found = self.stack_of.get(kind)
        if found is None and kind == "serving":
            found = self.stack_of.get("decode")
        return found or self.stack
