"""The table of links behind a custom fabric: a CSV, read and refused line by line.

    from,to,GBps,latency_us,links
    rank/0,leaf/a,50,0.6,2

Ranks are ``rank/0``, ``rank/1``, ... without gaps; every other name is a switch. A line is a link both ways, of so many
GB/s one direction; ``links`` (default 1) says how many of them lie in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from cmsim.errors import InputError, Problem
from cmsim.reading import whole
from cmsim.reading.tables import Record, records

_NEEDED = ("from", "to", "GBps", "latency_us")
_COLUMNS = (*_NEEDED, "links")
#: lines of a table, and nodes of its graph, whose distances from each other are a square
_MOST_LINES, _MOST_NODES = 2**17, 4096
#: problems of a file that are listed before the rest is counted
_LISTED = 20


class Cable(NamedTuple):
    """One line: two nodes, all parallel links together [B/s] one direction, small-message latency [s]."""

    a: str
    b: str
    capacity_Bps: float
    latency_s: float
    links: int


def read_links(text: str, *, file: str, ranks: int) -> tuple[Cable, ...]:
    """The links of a table. Raises InputError with every line that cannot be, or with what the graph lacks.

    text: the CSV    file: names it in errors    ranks: of one domain; the table has exactly these [1]
    """
    problems: list[Problem] = []
    cables: list[Cable] = []
    lines: dict[frozenset[str], int] = {}
    seen: dict[str, int] = {}
    if (rows := text.count("\n")) > _MOST_LINES:
        raise InputError(Problem(f"has {rows} lines; allowed: up to {_MOST_LINES}", file))
    for row in records(text, file=file, needed=_NEEDED, known=_COLUMNS):
        found = _problems(row, ranks)
        pair = frozenset((row["from"], row["to"]))
        if not found and pair in lines:
            message = f"{row['from']} and {row['to']} are joined on line {lines[pair]} already: use links"
            found.append(Problem(message, file, row.line))
        problems += found
        if found:
            continue
        lines[pair] = row.line
        for end in (row["from"], row["to"]):
            seen.setdefault(end, row.line)
        count = int(row.get("links") or 1)
        cables.append(
            Cable(row["from"], row["to"], float(row["GBps"]) * 1e9 * count, float(row["latency_us"]) * 1e-6, count)
        )
    missing = [number for number in range(ranks) if f"rank/{number}" not in seen]
    if len(seen) > _MOST_NODES and not problems:
        problems.append(Problem(f"joins {len(seen)} nodes; allowed: up to {_MOST_NODES}", file))
    if missing and not problems:
        listed = ", ".join(f"rank/{number}" for number in missing[:4]) + (", ..." if len(missing) > 4 else "")
        problems.append(Problem(f"the ranks are rank/0 to rank/{ranks - 1}; no link ends at {listed}", file))
    if not problems:
        problems += _apart(cables, seen, file)
    if problems:
        more = len(problems) - _LISTED
        raise InputError([*problems[:_LISTED], *([Problem(f"and {more} more problems", file)] if more > 0 else [])])
    return tuple(cables)


def _problems(row: Record, ranks: int) -> list[Problem]:
    """What is wrong with one line."""
    out: list[Problem] = []

    def bad(key: str, message: str) -> None:
        out.append(row.problem(key, message))

    for key in ("from", "to"):
        kind, _, number = row[key].partition("/")
        if not row[key]:
            bad(key, "a node needs a name")
        elif kind == "rank" and not (whole(number) and str(int(number)) == number):
            bad(key, f"got '{row[key]}'; a rank is rank/0, rank/1, ...")
        elif kind == "rank" and int(number) >= ranks:
            bad(key, f"got '{row[key]}'; the system has rank/0 to rank/{ranks - 1}")
    if row["from"] and row["from"] == row["to"]:
        bad("to", f"{row['to']} is joined to itself")
    for key, positive, least, most in (("GBps", True, 1e-6, 1e9), ("latency_us", False, 0.0, 1e8)):
        value = row.number(key)
        if math.isnan(value) and row[key].lower() != "nan":
            bad(key, f"must be a number, got '{row[key]}'" if row[key] else "the number is required")
        elif not math.isfinite(value) or value < 0 or (positive and value == 0):
            bad(key, f"must be {'above 0' if positive else '0 or more'} and finite, got {row[key]}")
        elif not least <= value <= most:
            bad(key, f"must be from {least:g} to {most:g}, got {row[key]}")
    count = row.get("links") or "1"
    if not whole(count) or not 1 <= int(count) <= 10**6:
        bad("links", f"must be a whole number from 1 to 1e6, got '{count}'")
    return out


def _apart(cables: list[Cable], seen: Mapping[str, int], file: str) -> list[Problem]:
    """Parts of the graph that no path joins to the first rank, each with the line that names it first."""
    around: dict[str, list[str]] = {}
    for cable in cables:
        around.setdefault(cable.a, []).append(cable.b)
        around.setdefault(cable.b, []).append(cable.a)

    def reach(start: str) -> set[str]:
        found, queue = {start}, [start]
        while queue:
            new = [other for other in around[queue.pop()] if other not in found]
            found.update(new)
            queue += new
        return found

    joined = reach("rank/0")
    out = []
    for node, line in seen.items():
        if node not in joined:
            part = reach(node)
            joined |= part
            more = f" and {len(part) - 1} more nodes" if len(part) > 1 else ""
            out.append(Problem(f"no path joins {node}{more} to rank/0", file, line))
    return out
