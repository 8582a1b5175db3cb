"""The area of another simulator's runs: one collective alone on one fabric, message by message, here and there.

Where that backend charges what flow does not (a second transmission at a switch, arithmetic, times cut to whole
nanoseconds, a delay at the ends of direct exchanges), the charges are worked out from the run's own numbers. A run they
touch by less than ``_SMALL`` is judged as it stands. The others are shown with what the charges explain, and judged
together, by kind, with them put in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, PositiveFloat

from cmsim import messages
from cmsim.collectives import candidates
from cmsim.hardware import System, load_system
from cmsim.reading import Spec
from cmsim.reading.tables import Record, read_records
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.reference import AreaSpec
from cmsim.validation.row import Row

FILE = "flow-backend_runs.csv"
#: link bandwidths of the table are in GiB/s
_GIB = 2**30
#: what the backend adds, over its time, below which a run is judged as it stands
_SMALL = 0.02


class Tolerances(Spec):
    """Absolute errors. [%]"""

    plain_pct: PositiveFloat = Field(description="of runs that the backend's own charges hardly touch")
    explained_pct: PositiveFloat = Field(description="of the worst run of a kind, with those charges put in")


class Charges(Spec):
    """What the backend charges beside the links."""

    memory_GBps: PositiveFloat
    accesses_per_added_byte: PositiveFloat
    end_ns: PositiveFloat = Field(description="at each end of a direct exchange and between its two halves")

    @property
    def added_ns_per_B(self) -> float:
        return self.accesses_per_added_byte / self.memory_GBps


class BackendSpec(AreaSpec):
    """``flow-backend.yaml``."""

    judged: Tolerances
    backend: Charges
    algorithms: Mapping[str, Mapping[str, str]] = Field(
        description="by collective: our name of an algorithm by the table's, where they differ"
    )
    like: str = Field(description="a system of packages, whose fabric is replaced by that of a run")
    source: str


@dataclass(frozen=True)
class BackendRun:
    """A run of the table beside what flow says. [ns]

    stored_ns, added_ns, end_ns, cut_ns  what the backend charges beside flow: the switch's second transmission,
    arithmetic, the ends of direct exchanges, and (below 0) times cut to whole nanoseconds
    """

    topology: str
    ranks: int
    bandwidth_GiBps: float
    collective: str
    algorithm: str
    chunks: int
    message_B: int
    backend_ns: float
    flow_ns: float
    bound_ns: float
    stored_ns: float
    added_ns: float
    end_ns: float
    cut_ns: float

    @property
    def explained_ns(self) -> float:
        """Flow with the backend's charges put in. [ns]"""
        return self.flow_ns + self.stored_ns + self.added_ns + self.end_ns + self.cut_ns

    @property
    def touched(self) -> bool:
        """Whether the charges matter for it."""
        return self.stored_ns + self.added_ns + self.end_ns + abs(self.cut_ns) >= _SMALL * self.backend_ns


def runs(table: Iterable[Mapping[str, str]], spec: BackendSpec) -> list[BackendRun]:
    """Every row of the table, played by flow on a fabric like that of the row."""
    out = []
    for row in table:
        system = _system(row, spec.like)
        ranks, collective, chunks = system.ranks, row["collective"], int(row["chunks"])
        name = spec.algorithms.get(collective, {}).get(row["algorithm"], row["algorithm"])
        # chunks follow one another; an all-gather is counted per rank
        size_B = float(row["message_bytes"]) * (ranks if collective == "all_gather" else 1) / chunks
        got = messages.collective_time(system, collective, algorithm=name, size_B=size_B, library=messages.Software())
        (algorithm,) = (one for one in candidates(collective) if one.name == name)
        byte_ns = 1e9 / (float(row["bandwidth_GiBps"]) * _GIB)
        one_link = row["topology"] == "FullyConnected"
        stored_ns = cut_ns = 0.0
        for one in messages.rounds(algorithm, ranks, size_B):
            message_ns = float(one.size_B.max()) * byte_ns
            in_series = 1 if one_link else len(one.src) // ranks + 1
            # the switch sends the last message once more; all times are cut to whole nanoseconds
            stored_ns += 0.0 if one_link else one.times * message_ns
            cut_ns -= one.times * in_series * (message_ns - math.floor(message_ns))
        out.append(
            BackendRun(
                topology=row["topology"],
                ranks=ranks,
                bandwidth_GiBps=float(row["bandwidth_GiBps"]),
                collective=collective,
                algorithm=row["algorithm"],
                chunks=chunks,
                message_B=int(row["message_bytes"]),
                backend_ns=float(row["simulated_ns"]),
                flow_ns=got.time_s * chunks * 1e9,
                bound_ns=got.bound_s.time_s * chunks * 1e9,
                stored_ns=stored_ns * chunks,
                added_ns=_added_B(collective, name, ranks, size_B) * spec.backend.added_ns_per_B * chunks,
                end_ns=spec.backend.end_ns * chunks * (3 if collective == "all_reduce" else 2)
                if row["algorithm"] == "direct"
                else 0.0,
                cut_ns=cut_ns * chunks,
            )
        )
    return out


def read() -> list[Record]:
    """The rows of the table."""
    return read_records(reference.folder() / FILE)


def rows(area: str, progress: Progress) -> Sequence[Row]:
    """A row for each run, and one for the worst of each kind with the backend's charges put in."""
    spec, _ = reference.read_spec(area, BackendSpec)
    table = read()
    found: list[Row] = []
    kinds: dict[str, list[BackendRun]] = {}
    for number, line in enumerate(table):
        progress(f"{area}/{line['topology']}", number / len(table))
        (run,) = runs([line], spec)
        kinds.setdefault(f"{run.topology} {run.collective} {run.algorithm}", []).append(run)
        found.append(_row(f"run-{number + 1}", area, run, spec))
    for kind, some in kinds.items():
        worst = max(some, key=lambda run: abs(run.explained_ns / run.backend_ns - 1))
        found.append(
            Row(
                id=f"{kind}, explained",
                area=area,
                role="judged",
                system=f"{worst.ranks} ranks, {worst.bandwidth_GiBps:g} GiB/s",
                what=f"the worst of {len(some)} runs with the backend's charges put in",
                published=worst.backend_ns,
                unit="ns",
                source=spec.source,
                note=f"{worst.message_B} B, {worst.chunks} chunks",
                predicted=worst.explained_ns,
                tolerance_pct=spec.judged.explained_pct,
            )
        )
    return found


def _row(name: str, area: str, run: BackendRun, spec: BackendSpec) -> Row:
    parts = {
        "sent twice by the switch": run.stored_ns,
        "arithmetic": run.added_ns,
        "ends": run.end_ns,
        "cut to whole ns": run.cut_ns,
    }
    listed = ", ".join(f"{what} {value:+.0f} ns" for what, value in parts.items() if round(value))
    left = 100 * (run.explained_ns / run.backend_ns - 1)
    return Row(
        id=name,
        area=area,
        role="left_out" if run.touched else "judged",
        system=f"{run.topology}, {run.ranks} ranks, {run.bandwidth_GiBps:g} GiB/s",
        what=f"{run.collective} {run.algorithm}, {run.message_B} B, {run.chunks} chunks",
        published=run.backend_ns,
        unit="ns",
        source=spec.source,
        note=f"{listed or 'nothing beside flow'}: {left:+.1f} % left; bound {run.bound_ns / run.flow_ns:.2f} of flow",
        predicted=run.flow_ns,
        tolerance_pct=spec.judged.plain_pct,
    )


def _system(row: Mapping[str, str], like: str) -> System:
    """A fabric like that of a row: one switch chip, or a link for every pair, at the row's rate and latency.

    like: a built-in system of packages, whose fabric is replaced
    """
    power = {"chip_static_W": 0, "chip_dynamic_W": 0}
    link = {"link_GBps": float(row["bandwidth_GiBps"]) * _GIB / 1e9, "power": power}
    latency_us = float(row["latency_ns"]) / 1e3
    if row["topology"] == "Switch":
        link |= {"wiring": "switch", "switches": 1, "links_per_accelerator": 1, "in_network_reduction": False}
        # a link up and a link down
        link |= {"domain_us": 2 * latency_us, "switch_us": latency_us}
    else:
        link |= {"wiring": "full_mesh", "domain_us": latency_us}
    ranks = {"accelerators": int(row["ranks"]), "node.accelerators": 1}
    return load_system(like, set={**ranks, "scale_up": link})


def _added_B(collective: str, algorithm: str, ranks: int, size_B: float) -> float:
    """Bytes whose addition the backend waits for: the last block of a direct exchange, all but the first message of
    recursive halving, every block of a ring. [B]"""
    if collective not in ("all_reduce", "reduce_scatter"):
        return 0.0
    if algorithm == "ring":
        return size_B * (ranks - 1) / ranks
    return size_B / ranks if algorithm != "halving_doubling" else size_B * (0.5 - 1 / ranks)
