"""Parts of a fabric that are down or slow: names turned into what is left of the links they carry.

    rank/RANK/plane/PLANE              one rank's port in one plane (its link to one switch chip of a single tier)
    rank/RANK/port, rank/RANK/nic      all of a rank's links into its domain; its share of the NIC
    accelerator/PACKAGE/plane/PLANE    the same of all ranks of a package
    module/NODE/PLANE/CHIP             an optical module: the lane between chips of the first and second tier
    l1/NODE/PLANE                      a first-tier chip, with all its ports and uplinks
    l2/DOMAIN/PLANE/CHIP               a second-tier chip
    switch/DOMAIN/CHIP                 a chip of a single-tier fabric
    link/RANK/RANK                     the link of a pair in a full mesh
    nic/PACKAGE, leaf/LEAF, spine/SPINE    parts of the scale-out network

Numbers count over the whole system, as the graph's nodes do; planes and second-tier chips count from 0 in their domain
and plane. A part takes a factor: what is left of its rate, 0 for down. Both directions are affected alike. Where a link
is named more than once, factors multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cmsim.errors import InputError, Problem, nearest
from cmsim.hardware import System
from cmsim.topology.places import places
from cmsim.topology.routes import Edges

Faults = Mapping[str, float] | Iterable[str]


def factors(faults: Faults) -> dict[str, float]:
    """What is left of each named part; parts without a figure are down. [1]

    >>> factors(["l1/0/3"]), factors({"nic/7": 0.5})
    ({'l1/0/3': 0.0}, {'nic/7': 0.5})
    """
    if isinstance(faults, str):
        return {faults: 0.0}
    return dict(faults) if isinstance(faults, Mapping) else dict.fromkeys(faults, 0.0)


def apply(system: System, wires: Edges, faults: Faults) -> Edges:
    """The links that are left, with the named parts slowed or down. [B/s]

    Raises InputError with every name that stands for no part of the system, and the nearest one that does.
    """
    left = replace(wires, **{name: getattr(wires, name).copy() for name in Edges.__dataclass_fields__})
    parts = {form: part for form, part in _parts(system, left).items() if all(part[0])}
    problems: list[Problem] = []
    for name, factor in factors(faults).items():
        form, numbers = _read(name)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1:
            problems.append(Problem(f"'{name}': what is left is a number from 0 to 1, got {factor!r}", key="faults"))
        elif form not in parts or len(numbers) != len(parts[form][0]):
            message = f"{system.name} has no part '{name}'. {_nearest_form(name, parts)}"
            problems.append(Problem(message, key="faults"))
        else:
            counts, change = parts[form]
            if any(not 0 <= number < count for number, count in zip(numbers, counts, strict=True)):
                near = [min(max(number, 0), count - 1) for number, count in zip(numbers, counts, strict=True)]
                limits = ", ".join(f"0 to {count - 1}" for count in counts)
                message = f"{system.name} has no part '{name}'. Did you mean '{_write(form, near)}'? {form}: {limits}."
                problems.append(Problem(message, key="faults"))
            elif form == "link/RANK/RANK" and left.mesh[numbers[0], numbers[1] % left.mesh.shape[1]] == 0:
                message = f"{system.name} has no part '{name}': these ranks share no link, or it is down already"
                problems.append(Problem(message, key="faults"))
            else:
                change(numbers, float(factor))
    if problems:
        raise InputError(problems)
    return left


#: the words of each form; numbers stand where a word is in capitals
_FORMS = (
    "rank/RANK/port",
    "rank/RANK/nic",
    "rank/RANK/plane/PLANE",
    "accelerator/PACKAGE/plane/PLANE",
    "module/NODE/PLANE/CHIP",
    "l1/NODE/PLANE",
    "l2/DOMAIN/PLANE/CHIP",
    "switch/DOMAIN/CHIP",
    "link/RANK/RANK",
    "nic/PACKAGE",
    "leaf/LEAF",
    "spine/SPINE",
)

_Change = Callable[[list[int], float], None]


def _parts(system: System, left: Edges) -> dict[str, tuple[tuple[int, ...], _Change]]:
    """By form, how many there are of each number, and what a factor changes in ``left``."""
    where = places(system)
    planes, chips = left.port.shape[1], left.uplink.shape[2]
    leaves, spines = left.spine.shape
    two_tiers, mesh = chips > 0, left.mesh.shape[1]
    node_domain = np.zeros(where.nodes, np.int64)
    node_domain[where.node] = where.domain

    def port(members: Any, plane: int, factor: float) -> None:
        left.port[members, plane] *= factor

    def whole_port(numbers: list[int], factor: float) -> None:
        left.port[numbers[0]] *= factor
        if mesh:
            peers = numbers[0] // mesh * mesh + np.flatnonzero(left.mesh[numbers[0]])
            left.mesh[numbers[0]] *= factor
            left.mesh[peers, numbers[0] % mesh] *= factor

    def rank_nic(numbers: list[int], factor: float) -> None:
        left.nic[numbers[0]] *= factor

    def l1(numbers: list[int], factor: float) -> None:
        port(where.node == numbers[0], numbers[1], factor)
        left.uplink[numbers[0], numbers[1]] *= factor

    def module(numbers: list[int], factor: float) -> None:
        left.uplink[tuple(numbers)] *= factor

    def l2(numbers: list[int], factor: float) -> None:
        left.uplink[node_domain == numbers[0], numbers[1], numbers[2]] *= factor

    def link(numbers: list[int], factor: float) -> None:
        for one, other in (numbers, numbers[::-1]):
            left.mesh[one, other % mesh] *= factor

    def nic(numbers: list[int], factor: float) -> None:
        left.nic[where.package == numbers[0]] *= factor
        left.leaf[numbers[0]] *= factor

    def leaf(numbers: list[int], factor: float) -> None:
        left.leaf[np.unique(where.package[where.leaf == numbers[0]])] *= factor
        left.spine[numbers[0]] *= factor

    def spine(numbers: list[int], factor: float) -> None:
        left.spine[:, numbers[0]] *= factor

    tier = int(two_tiers)
    changes: tuple[tuple[tuple[int, ...], _Change], ...] = (
        ((system.ranks,), whole_port),
        ((system.ranks,), rank_nic),
        ((system.ranks, planes), lambda n, f: port(n[0], n[1], f)),
        ((system.packages, planes), lambda n, f: port(where.package == n[0], n[1], f)),
        ((where.nodes * tier, planes, chips), module),
        ((where.nodes * tier, planes), l1),
        ((where.domains * tier, planes, chips), l2),
        ((where.domains * (1 - tier), planes), lambda n, f: port(where.domain == n[0], n[1], f)),
        ((system.ranks if mesh else 0, system.ranks), link),
        ((system.packages,), nic),
        ((leaves,), leaf),
        ((spines,), spine),
    )
    return dict(zip(_FORMS, changes, strict=True))


def _read(name: str) -> tuple[str, list[int]]:
    """The form that a name has, or the name itself, and its numbers."""
    words = name.split("/")
    for form in _FORMS:
        pattern = form.split("/")
        if len(pattern) == len(words) and all(
            word.isdecimal() if slot.isupper() else word == slot for word, slot in zip(words, pattern, strict=True)
        ):
            return form, [int(word) for word, slot in zip(words, pattern, strict=True) if slot.isupper()]
    return name, []


def _nearest_form(name: str, forms: Iterable[str]) -> str:
    """The form whose first word is nearest, and all forms."""
    forms = list(forms)
    heads = {form.partition("/")[0]: form for form in forms}
    near = nearest(name.partition("/")[0], heads)
    hint = f"Did you mean '{heads[near]}'? " if near else ""
    return f"{hint}Allowed: {', '.join(forms)}."


def _write(form: str, numbers: list[int]) -> str:
    rest = iter(numbers)
    return "/".join(str(next(rest)) if word.isupper() else word for word in form.split("/"))
