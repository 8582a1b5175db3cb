"""Parts of a fabric that are down or slow: names turned into what is left of the links they carry.

Which parts a domain has, the page of its wiring says (``wirings``); those of the scale-out network are here.

    rank/RANK/port                     all of a rank's links into its domain
    rank/RANK/nic                      its share of the NIC
    rank/RANK/plane/PLANE              its port in one plane (its link to one switch chip of a single tier)
    accelerator/PACKAGE/plane/PLANE    the same of all ranks of a package
    nic/PACKAGE, leaf/LEAF, spine/SPINE    parts of the scale-out network

Numbers count over the whole system, as the graph's nodes do; planes and second-tier chips count from 0 in their domain
and plane; with * for a number a name stands for all parts of its form, or for some of them (`drawn`). A part takes a
factor: what is left of its rate, 0 for down. Both directions are affected alike. Where a link
is named more than once, factors multiply.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from cmsim.errors import InputError, Problem, nearest
from cmsim.hardware import System
from cmsim.reading import whole
from cmsim.topology.edges import Edges
from cmsim.topology.places import places

Faults = Mapping[str, float] | Iterable[str]


class Form(NamedTuple):
    """Parts whose names have one form.

    counts   how many there are of each number in the form; a form with none of one of them has no parts
    change   takes the numbers of one and a factor, and changes what is left
    missing  takes the numbers of one, and says why there is none though its numbers are good, or nothing
    """

    counts: tuple[int, ...]
    change: Callable[[list[int], float], None]
    missing: Callable[[list[int]], str] | None = None


#: the parts of the domains of a system by form, numbers where a word is in capitals, and what they change in ``left``
Forms = Callable[[System, Edges], dict[str, Form]]

#: more words than any form has
_LAST = 99


def factors(faults: Faults) -> dict[str, float]:
    """What is left of each named part; parts without a figure are down. [1]

    >>> factors(["l1/0/3"]), factors({"nic/7": 0.5})
    ({'l1/0/3': 0.0}, {'nic/7': 0.5})
    """
    if isinstance(faults, str):
        return {faults: 0.0}
    return dict(faults) if isinstance(faults, Mapping) else dict.fromkeys(faults, 0.0)


def drawn(name: str, share: float, seed: int) -> str:
    """The name of a share of all parts that a name with * stands for, drawn by a seed.

    >>> drawn("module/*/*/*", 0.1, 7)
    'module/*/*/* 0.1 7'
    """
    return f"{name} {share!r} {seed}"


def _each(name: str, parts: Mapping[str, Form]) -> list[str]:
    """The parts that a name with * stands for; the name itself where it has none, or no form has its words."""
    words, *some = name.split(" ")
    if "*" not in words:
        return [name]
    form, numbers = _read(words, parts)
    if form not in parts:
        return [name]
    counts, _, missing = parts[form]
    if any(number >= count for number, count in zip(numbers, counts, strict=True)):
        return [words.replace("*", "0")]  # which says what is allowed
    ranges = [
        range(count) if number < 0 else range(number, number + 1) for number, count in zip(numbers, counts, strict=True)
    ]
    found = [list(one) for one in itertools.product(*ranges)]
    there = [one for one in found if not (missing and missing(one))]
    if some:
        share, seed = float(some[0]), int(some[1])
        chosen = np.random.default_rng([seed, *words.encode()]).permutation(len(there))[: round(share * len(there))]
        there = [there[i] for i in sorted(chosen.tolist())]
    return [_write(form, one) for one in there]


def apply(system: System, wires: Edges, faults: Faults, inside: Forms | None = None) -> Edges:
    """The links that are left, with the named parts slowed or down; without ``inside`` of the scale-out network. [B/s]

    Raises InputError with every name that stands for no part of the system, and the nearest one that does.
    """
    left = replace(wires, **{name: getattr(wires, name).copy() for name in Edges.__dataclass_fields__})
    known = outside(system, left) if inside is None else inside(system, left) | outside(system, left)
    # those of ranks first, the shortest first of them
    listed = sorted(known, key=lambda form: form.count("/") if form.startswith("rank/") else _LAST)
    parts = {form: known[form] for form in listed if all(known[form].counts)}
    problems: list[Problem] = []
    asked = [(name, factor) for said, factor in factors(faults).items() for name in _each(said, parts)]
    for name, factor in asked:
        form, numbers = _read(name, parts)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1:
            problems.append(Problem(f"'{name}': what is left is a number from 0 to 1, got {factor!r}", key="faults"))
        elif form not in parts:
            message = f"{system.name} has no part '{name}'. {_nearest_form(name, parts)}"
            problems.append(Problem(message, key="faults"))
        else:
            counts, change, missing = parts[form]
            if any(not 0 <= number < count for number, count in zip(numbers, counts, strict=True)):
                near = [min(max(number, 0), count - 1) for number, count in zip(numbers, counts, strict=True)]
                limits = ", ".join(f"0 to {count - 1}" for count in counts)
                message = f"{system.name} has no part '{name}'. Did you mean '{_write(form, near)}'? {form}: {limits}."
                problems.append(Problem(message, key="faults"))
            elif missing and (why := missing(numbers)):
                problems.append(Problem(f"{system.name} has no part '{name}': {why}", key="faults"))
            else:
                change(numbers, float(factor))
    if problems:
        raise InputError(problems)
    return left


def outside(system: System, left: Edges) -> dict[str, Form]:
    """Parts of the scale-out network."""
    where = places(system)
    leaves, spines = left.spine.shape

    def rank_nic(numbers: list[int], factor: float) -> None:
        left.nic[numbers[0]] *= factor

    def nic(numbers: list[int], factor: float) -> None:
        left.nic[where.package == numbers[0]] *= factor
        left.leaf[numbers[0]] *= factor

    def leaf(numbers: list[int], factor: float) -> None:
        left.leaf[np.unique(where.package[where.leaf == numbers[0]])] *= factor
        left.spine[numbers[0]] *= factor

    def spine(numbers: list[int], factor: float) -> None:
        left.spine[:, numbers[0]] *= factor

    return {
        "rank/RANK/nic": Form((system.ranks,), rank_nic),
        "nic/PACKAGE": Form((system.packages,), nic),
        "leaf/LEAF": Form((leaves,), leaf),
        "spine/SPINE": Form((spines,), spine),
    }


def ports(system: System, left: Edges) -> dict[str, Form]:
    """Parts of ranks that reach first switches by a port in each of several planes or chips."""
    package, planes = places(system).package, left.port.shape[1]

    def whole(numbers: list[int], factor: float) -> None:
        left.port[numbers[0]] *= factor

    return {
        "rank/RANK/port": Form((system.ranks,), whole),
        "rank/RANK/plane/PLANE": Form((system.ranks, planes), lambda n, f: slow_ports(left, n[0], n[1], f)),
        "accelerator/PACKAGE/plane/PLANE": Form(
            (system.packages, planes), lambda n, f: slow_ports(left, package == n[0], n[1], f)
        ),
    }


def slow_ports(left: Edges, ranks: Any, plane: int, factor: float) -> None:
    """What is left of the ports of some ranks into one plane."""
    left.port[ranks, plane] *= factor


def _read(name: str, forms: Iterable[str]) -> tuple[str, list[int]]:
    """The form that a name has, or the name itself, and its numbers; -1 for *."""
    words = name.split("/")
    for form in forms:
        pattern = form.split("/")
        if len(pattern) == len(words) and all(
            whole(word) or word == "*" if slot.isupper() else word == slot
            for word, slot in zip(words, pattern, strict=True)
        ):
            return form, [
                -1 if word == "*" else int(word) for word, slot in zip(words, pattern, strict=True) if slot.isupper()
            ]
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
