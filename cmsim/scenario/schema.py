"""What a scenario file may say. The string beside a field is its documentation (``cmsim schema`` prints it)."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cmsim.cost import CarbonSpec, CostSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Factor, Places, Rank, Seconds, SecondsAtLeast, Seed, Share, ShareOrNone

#: what is kept of a run, from least to most
Record = Literal["none", "summary", "full"]


class FaultSpec(Spec):
    """A part of the fabric that is down or slow."""

    part: str = Field(
        description="rank/R/plane/P, accelerator/A/plane/P, module/NODE/PLANE/CHIP, l1/NODE/PLANE, "
        "l2/DOMAIN/PLANE/CHIP, switch/DOMAIN/CHIP, link/A/B, rank/R/port, rank/R/nic, nic/A, leaf/L, spine/S; "
        "numbers count from 0; * for a number: all of them"
    )
    share: Share = Field(
        default=1.0, description="of those that a name with * stands for: so many are drawn, by the scenario's seed"
    )
    left: ShareOrNone = Field(default=0.0, description="share of its rate that is left; 0: down")
    from_s: Seconds = Field(default=0.0, description="when it begins, from the start of the run")
    until_s: SecondsAtLeast | None = Field(default=None, description="when it ends; default: it lasts")

    @model_validator(mode="after")
    def _in_order(self) -> FaultSpec:
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError(f"until_s: must be after from_s ({self.from_s:g}), got {self.until_s:g}")
        if self.share < 1 and "*" not in self.part:
            raise ValueError(f"share: goes with a part that is many, as module/*/*/*; got {self.part}")
        return self


class SystemEntry(Spec):
    """A system and what to change on it."""

    system: str = Field(description="a name in topologies/, an alias, or a path")
    name: str | None = Field(
        default=None,
        description="what results call it; default: its own name. One of two entries of a system has it",
    )
    accelerators: Places | None = Field(default=None, description="packages in use, over all domains; default: all")
    domains: Places | None = Field(default=None, description="domains joined by the scale-out network")
    rank: Literal["die", "package"] | None = Field(default=None, description="what a communicator counts")
    stack: str | None = Field(default=None, description="a name in topologies/stacks; default: the system's")
    faults: tuple[str | FaultSpec, ...] = Field(default=(), description="of this system, beside the scenario's own")
    set: dict[str, Any] = Field(
        default={}, description="dotted keys of the system file (accelerator.* and stack.* reach those files)"
    )

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name or PurePath(self.system).stem


class PerturbSpec(Spec):
    """What makes one rank differ."""

    compute: Factor = Field(default=1.0, description="factor on its compute times")
    port: Factor = Field(default=1.0, description="factor on its fabric port's capacity")
    nic: Factor = Field(default=1.0, description="factor on its NIC's capacity")


class JitterSpec(Spec):
    """Times that scatter: factors of mean 1, drawn by `seed`; a rank that scatters is simulated by itself."""

    distribution: Literal["lognormal", "normal", "gamma", "exponential"] = Field(
        default="lognormal", description="of the factors; exponential: 1 - cv, and an exponential of mean cv on top"
    )
    cv: Share = Field(default=0.05, description="standard deviation over mean")
    per: Literal["op", "rank"] = Field(default="op", description="drawn for every op, or once for a rank")
    of: Literal["compute", "host", "all"] = Field(default="compute", description="which ops scatter")
    ranks: Places | None = Field(default=None, description="of how many ranks, drawn by `seed` too; default: of all")


class ReportSpec(Spec):
    """What the printed table relates throughput to."""

    per: tuple[Literal["accelerator", "rack", "megawatt", "million_dollars"], ...] = Field(
        default=("accelerator", "rack", "megawatt"),
        description="throughput is printed per each of these; million_dollars needs the price of every system",
    )
    megawatts: Annotated[float, NUMBER, Field(ge=1e-6, le=1e6)] | None = Field(
        default=None,
        description="also a table of machines filled to so much average power of the facility: what they give, cost "
        "and emit, as if each ran the same beside the others [MW]",
    )


class SearchSpec(Spec):
    """What ``cmsim search`` is asked; runs heed nothing of it."""

    objective: (
        Literal["step_time", "tokens_per_joule", "dollars_per_token", "tokens_per_s_per_accelerator", "accelerators"]
        | None
    ) = Field(
        default=None,
        description="what the best plan has best; default: step_time, of a service tokens_per_s_per_accelerator",
    )
    keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=8, description="plans that are simulated, the best as priced in closed form"
    )
    axes: dict[str, list[Any]] = Field(
        default={},
        description="key of the workload, such as parallel.tp: the values that plans may have; default: all that are "
        "possible",
    )


class UncertaintySpec(Spec):
    """Intervals of every figure, from what is assumed and from the errors of validation."""

    draws: Annotated[int, NUMBER, Field(ge=100, le=10**6)] = Field(default=10_000, description="of all inputs at once")
    seed: Seed = Field(default=0, description="of the draws, whatever else is drawn")
    validated: bool = Field(
        default=True, description="whether errors of validation count; without, only what is assumed is drawn"
    )
    executed: bool = Field(
        default=True,
        description="whether a run is executed again with the ends of what its system assumes; without, only prices "
        "and errors of validation are drawn, at no cost: for services that take long",
    )


class ScenarioSpec(Spec):
    """A question: workloads, systems, and what to vary."""

    name: str = Field(default="", description="title of the result")
    schema_version: Literal[1] = Field(default=1, description="version of this form")
    extends: str | tuple[str, ...] | None = Field(
        default=None, description="another scenario this one is laid over; of several, each over those before it"
    )
    systems: tuple[str | SystemEntry, ...] = Field(
        min_length=1, max_length=1000, description="names, or entries with changes"
    )
    workloads: dict[str, dict[str, Any]] = Field(
        min_length=1, max_length=1000, description="by name; `workload:` is the short form for one"
    )
    network: Literal["ideal", "fluid", "flow"] = Field(
        default="fluid",
        description="ideal: nothing is shared; fluid: one demand per collective, ports and uplinks shared; "
        "flow: every message on the links it crosses (also what `faults` are run with)",
    )
    routing: Literal["sprayed", "hashed", "pinned"] = Field(
        default="sprayed",
        description="flow: messages spread over all paths, or on one path each, drawn by `seed` as ECMP does; "
        "pinned ones do not move away from a dead path",
    )
    faults: tuple[str | FaultSpec, ...] = Field(
        default=(), description="parts of the fabric that are down or slow: names, or entries with times"
    )
    exclusive: bool = Field(
        default=False,
        description="the job has the machine to itself: accelerators that it leaves idle count in power, energy, cost "
        "and per accelerator; else only the packages that hold its ranks do",
    )
    fold: bool = Field(default=True, description="simulate equal ranks once")
    perturb: str | dict[Rank, PerturbSpec] = Field(
        default={}, description="by rank; or a CSV file with columns rank and any of compute, port, nic"
    )
    jitter: JitterSpec | None = Field(default=None, description="scatter of times")
    sweep: dict[str, Any] = Field(
        default={},
        description="dotted key: list, or {from, to, steps, scale: linear|log}; all combinations are run. `zip`: {key: "
        "list, key: list} or a list of such, keys that go together; `where`: a condition on swept keys, or a list",
    )
    cost: CostSpec | None = Field(
        default=None,
        description="what it costs to own the machine and run it; without, cost is the rent that the system file has",
    )
    carbon: CarbonSpec | None = Field(
        default=None, description="of a region, by hour, with the machine itself; default: the system's own intensity"
    )
    uncertainty: UncertaintySpec | None = Field(
        default=None,
        description="draws of all that is assumed and of errors of validation: intervals, and who is better how surely",
    )
    search: SearchSpec = Field(default=SearchSpec(), description="what `cmsim search` is asked")
    report: ReportSpec = Field(default=ReportSpec(), description="what is printed")
    record: Record = Field(
        default="full",
        description="what is kept of a run. full: all; summary: all but the frames ops, links and power; none: what "
        "`best` chooses by, which leaves out power, breakdown and notes",
    )
    seed: Seed = Field(default=0, description="of everything drawn at random")

    @field_validator("workloads")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if "/" in name or not name:
                raise ValueError(f"a workload's name is part of the run key and cannot be '{name}'")
        return value
