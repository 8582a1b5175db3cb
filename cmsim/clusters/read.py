"""A described cluster as a system file of ours.

The description says what is joined to what, and sometimes how fast. Watts, prices, kernels, libraries and hosts it does
not know; those are of a system of ours that the reader names, and every key keeps the source that it has there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cmsim import reading
from cmsim.clusters.description import Description, open_description
from cmsim.clusters.fabric import Cluster, Edge, Pair, cluster_of
from cmsim.clusters.wirings import WiringFound, wiring_of
from cmsim.errors import InputError, did_you_mean
from cmsim.hardware import SYSTEMS, System, SystemSpec, load_system

#: what each wiring cannot be without and a description never has, taken from a system with such a key
_NEEDS: dict[str, tuple[str, ...]] = {
    "switch": ("switch_us", "in_network_reduction", "power"),
    "full_mesh": ("power",),
    "multi_plane_clos": ("switch_us", "modules_per_uplink", "power"),
    "custom": ("power",),
}


@dataclass(frozen=True)
class SystemText:
    """Texts of a system file and of the table of links beside it ("" where the wiring needs none), and notes."""

    name: str
    system: str
    links: str
    notes: tuple[str, ...]


@dataclass
class _Made:
    """A system file in the making."""

    found: Description
    like: System
    data: dict[str, Any]
    sources: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def said(self, what: str) -> str:
        return f"{Path(self.found.document.file).name} (infragraph): {what}"

    def lacks(self, key: str, link: str) -> InputError:
        """What neither the file nor the system has."""
        like = self.like.spec
        message = (
            f"link {link} says nothing of it, and {like.name} is wired as {like.scale_up.wiring}, which has none: give "
            "the link a bandwidth (gigabits_per_second, gigabytes_per_second) and a latency, or name another system"
        )
        return InputError([self.found.document.problem(("links",), f"no {key} of accelerators' fabric; {message}")])


def read_cluster(path: str | Path, *, like: str, links_name: str = "links.csv") -> SystemText:
    """The system file of an infragraph description.

    Parameters
    ----------
    path
        A description of infragraph, YAML or JSON.
    like
        A system of ours, by name or path, whose accelerator, host, stack, watts and prices are taken.
    links_name
        What the table of links is called in the system file, where the fabric is one.

    Returns
    -------
    SystemText
        The texts to write, and what was taken from where.

    Raises
    ------
    InputError
        Where the description cannot be, has no accelerators, or is wired as no system of ours is.
    """
    there = load_system(like)
    if there.packages < there.spec.accelerators:
        raise InputError(f"{like} is a part of a domain; {did_you_mean(like, reading.builtin_files(SYSTEMS))}")
    found = open_description(Path(path))
    cluster = cluster_of(found)
    wired = wiring_of(cluster)
    spec = there.spec.model_dump(mode="json", exclude_defaults=True, exclude={"sources", "published", "aliases"})
    made = _Made(found, there, spec)
    _size(made, cluster)
    table = _fabric(made, wired, links_name)
    _network(made, cluster)
    text = _text(made)
    reading.validate(SystemSpec, reading.parse_yaml(text, f"of {found.document.file}"))
    return SystemText(str(made.data["name"]), text, table, tuple(made.notes))


def _size(made: _Made, cluster: Cluster) -> None:
    """Accelerators, hosts and domains, and the rest of the system as it is."""
    data, like = made.data, made.like.spec
    size = len(cluster.domains[0][0])
    data["name"] = re.sub(r"\W+", "_", made.found.name).strip("_").lower() or "cluster"
    data["description"] = f"{made.found.name}, as infragraph describes it; what it does not say as {like.name}"
    if size != like.accelerators:
        for key in ("job_accelerators", "compute_racks"):
            data.pop(key, None)
    counted = {"accelerators": size, "node.accelerators": cluster.per_host, "domains": len(cluster.domains)}
    if cluster.cpus:
        counted["node.cpus"] = cluster.cpus
    data["racks"] = float(f"{like.racks * size / like.accelerators:.6g}")
    for key, value in counted.items():
        reading.set_dotted(data, key, value, where=like.name)
        made.sources[key] = made.said("counted")
    names = dict.fromkeys(
        one.get("description") or one["name"]
        for device in made.found.document.data["devices"]
        for one in device.get("components") or ()
        if one.get("choice") == "xpu"
    )
    made.notes.append(
        f"accelerators ({', '.join(names)}), stack, hosts, watts, prices and facility are those of {like.name}: "
        "the file does not hold them"
    )
    if size % cluster.per_host:
        raise made.found.problem(f"a fabric joins {size}, which do not fill hosts of {cluster.per_host}", "edges")


def _fabric(made: _Made, wired: WiringFound, links_name: str) -> str:
    """``scale_up``; the text of the table of links, where it is one."""
    theirs: dict[str, Any] = made.like.spec.scale_up.model_dump(mode="json", exclude_defaults=True)
    theirs.setdefault("links_per_pair", getattr(made.like.spec.scale_up, "links_per_pair", None))
    keys: dict[str, Any] = {"wiring": wired.wiring}
    same = theirs["wiring"] == keys["wiring"]
    said, taken = [], []
    given = dict(wired.keys)
    if same and given.get("link_GBps", 0) is None:
        # how many links of which rate make a port is the system's to say
        given |= {key: None for key in ("links_per_accelerator", "links_per_pair") if key in given}
    for key, value in given.items():
        if value is not None:
            keys[key] = float(f"{value:.9g}") if isinstance(value, float) else value
            said.append(key)
        elif theirs.get(key) is not None and (same or key == "domain_us"):
            keys[key] = theirs[key]
            taken.append(key)
        else:
            raise made.lacks(key, wired.of)
    for key in _NEEDS[wired.wiring]:
        if key in theirs:
            keys[key] = theirs[key]
        elif key == "in_network_reduction":
            keys[key] = False
        else:
            raise made.lacks(key, wired.of)
    made.sources |= {f"scale_up.{key}": made.said(f"link {wired.of}") for key in said}
    if taken:
        made.notes.append(
            f"{', '.join(taken)} of the fabric as {made.like.spec.name}: link {wired.of} has no such number"
        )
    table = ""
    if wired.table:
        keys["file"] = links_name
        table = _links(made, wired)
        made.notes.append(f"the fabric is no switch, mesh or planes of cmsim: a table of {len(wired.table)} links")
    made.data["scale_up"] = keys
    return table


def _links(made: _Made, wired: WiringFound) -> str:
    """The table of links of a custom fabric."""
    theirs = made.like.spec.scale_up
    domain_us, switch_us = getattr(theirs, "domain_us", None), getattr(theirs, "switch_us", None)
    # of a grid the first dimension's, whose accelerators are nearest
    hop_us = next((one.hop_us for one in getattr(theirs, "dimensions", {}).values()), None)
    instead = {
        "between": hop_us if domain_us is None else domain_us,
        "up": None if domain_us is None else domain_us / 2,
        "trunk": switch_us,
    }
    rows, taken = ["from,to,GBps,latency_us"], set()
    for row in wired.table:
        if row["GBps"] is None:
            raise made.lacks("bandwidth", row["link"])
        us = row["us"]
        if us is None:
            us = instead[row["tier"]]
            taken.add(row["link"])
        if us is None:
            raise made.lacks("latency", row["link"])
        rows.append(f"{row['from']},{row['to']},{row['GBps']:.9g},{us:.9g}")
    if taken:
        made.notes.append(f"latencies of {', '.join(sorted(taken))} as {made.like.spec.name}")
    return "\n".join(rows) + "\n"


def _network(made: _Made, cluster: Cluster) -> None:
    """``scale_out``: cards and the fat tree behind them, as far as the file has them."""
    leaves: dict[str, list[Edge]] = {}
    above: dict[str, list[Edge]] = {}
    hosts: dict[str, list[float | None]] = {}
    serves = [pair for pair in cluster.network if any(v.count(".") > 1 for v in pair)]
    for pair in serves:
        (card,) = (v for v in pair if v.count(".") > 1)
        (leaf,) = pair - {card}
        edge = cluster.network[pair]
        leaves.setdefault(leaf, []).append(edge)
        host = ".".join(card.split(".")[:2])
        hosts.setdefault(host, []).append(edge.GBps)
    _tree(made, {pair: edge for pair, edge in cluster.network.items() if pair not in serves}, set(leaves), above)
    given: dict[str, tuple[float, str]] = {}
    said_all = all(GBps is not None for each in hosts.values() for GBps in each)
    rates = {float(f"{sum(GBps or 0.0 for GBps in each) / cluster.per_host:.9g}") for each in hosts.values()}
    if rates and said_all:
        if len(rates) > 1:
            said = ", ".join(f"{rate:g}" for rate in sorted(rates))
            raise made.found.problem(
                f"hosts have {said} GB/s an accelerator to the network; allowed: all alike", "edges"
            )
        given["nic_GBps"] = rates.pop(), f"link {leaves[next(iter(leaves))][0].link}, over accelerators of a host"
    elif cluster.cards and cluster.cards[0].GBps and len({one.GBps for one in cluster.cards}) == 1:
        GBps = cluster.cards[0].GBps * len(cluster.cards) / (len(cluster.hosts) * cluster.per_host)
        given["nic_GBps"] = float(f"{GBps:.9g}"), f"link {cluster.cards[0].link}"
    if leaves:
        if cluster.ports:
            given["switch_ports"] = cluster.ports, "counted"
        over = [_over(leaves[leaf], above.get(leaf, [])) for leaf in leaves]
        known = [one for one in over if one is not None]
        if known:
            given["oversubscription"] = max(1.0, float(f"{max(known):.6g}")), "links down over links up of a leaf"
        elif len(leaves) > 1:
            made.notes.append("nothing joins the leaves of the network, or says how fast: taken as a fat tree")
    for key, (value, why) in given.items():
        made.data["scale_out"][key] = value
        made.sources[f"scale_out.{key}"] = made.said(why)
    missing = [key for key in ("nic_GBps", "switch_ports", "oversubscription", "cluster_us") if key not in given]
    if len(cluster.domains) > 1 and missing:
        made.notes.append(f"{', '.join(missing)} of the network between domains as {made.like.spec.name}")


def _tree(made: _Made, between: Mapping[Pair, Edge], leaves: set[str], above: dict[str, list[Edge]]) -> None:
    """Edges from leaves up. Raises InputError where switches are joined within a tier: no fat tree."""
    tier, level = set(leaves), 0
    tiers = dict.fromkeys(leaves, 0)
    while tier:
        level += 1
        tier = {v for pair in between if pair & tier for v in pair if v not in tiers}
        tiers |= dict.fromkeys(tier, level)
    for pair, edge in between.items():
        a, b = sorted(pair, key=lambda v: (tiers.get(v, -1), v))
        if a in tiers and tiers[a] == tiers.get(b):
            message = f"joins {a} and {b}, switches of one tier; cmsim's network between domains is a fat tree"
            raise made.found.problem(f"link {edge.link} {message}", "edges")
        if a in leaves:
            above.setdefault(a, []).append(edge)


def _over(down: list[Edge], up: list[Edge]) -> float | None:
    rates = [[edge.GBps for edge in side] for side in (down, up)]
    if not up or any(None in side for side in rates):
        return None
    return sum(one or 0.0 for one in rates[0]) / sum(one or 0.0 for one in rates[1])


def _text(made: _Made) -> str:
    """The file, with the source of every key: the description's, or the system's own."""
    own = made.like.spec.model_dump(mode="json")
    for key, source in made.like.spec.sources.items():
        if key in made.sources or key.partition(".")[0] == "accelerators":
            continue
        if _at(own, key) is not None and _at(own, key) == _at(made.data, key):
            made.sources[key] = source if isinstance(source, str) else source.model_dump(mode="json")
    order = [*(key for key in SystemSpec.model_fields if key in made.data)]
    data = {key: made.data[key] for key in order} | {"sources": made.sources}
    head = (
        f"# Made from {Path(made.found.document.file).name}, a description of infragraph; what it does not hold is of "
    )
    return f"{head}{made.like.spec.name}.\n" + yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )


def _at(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data
