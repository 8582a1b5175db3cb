"""Configurations that a Python file makes, and what it says of its machine."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from cmsim.launch.python.things import Thing
from cmsim.launch.python.values import Values
from cmsim.launch.sizes import JobSizes


def docstrings(text: str, name: str | None = None) -> list[str]:
    """Of the module, or of one function."""
    tree = ast.parse(text)
    nodes: list[Any] = (
        [tree] if name is None else [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
    )
    found = [ast.get_docstring(node) for node in nodes]
    return [" ".join(one.split()) for one in found if one]


def configs(values: Values, top: Mapping[str, Any]) -> list[tuple[str, Thing]]:
    """(name, configuration) of what functions return, else of what is made at the top."""
    functions = {name: one for name, one in top.items() if isinstance(one, ast.FunctionDef)}
    called = {
        node.func.id
        for function in functions.values()
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != function.name
    }
    whole: list[tuple[str, Thing]] = []
    parts: list[tuple[str, Thing]] = []
    for name, function in functions.items():
        before = len(values.made)
        result = values.call(function, [], {})
        made = [result] if isinstance(result, Thing) else values.made[before:] if result is None else []
        found = [(name, one) for one in made if _is_config(one)][:1]
        (parts if name in called else whole).extend(found)
    kinds = {thing.name for _, thing in whole}
    # what others call is a part of theirs, unless it is of the same kind
    if whole:
        order = list(functions)
        alike = [(name, one) for name, one in parts if one.name in kinds and not name.startswith("_")]
        return sorted([*whole, *alike], key=lambda one: order.index(one[0]))
    at_top = [(name, one) for name, one in top.items() if isinstance(one, Thing) and _is_config(one)]
    largest = sorted(at_top, key=lambda one: -sum(1 for _ in one[1].leaves()))[:1]
    kind = largest[0][1].name if largest else ""
    return [one for one in at_top if one[1].name == kind and not one[0].startswith(("_", "BASE"))] or largest


def _is_config(thing: Thing) -> bool:
    return thing.called and sum(1 for _ in thing.leaves()) >= 2


def sizes_of_names(top: Mapping[str, Any]) -> JobSizes:
    """Numbers at the top of a file that are called so."""
    sizes = JobSizes()
    names = {
        "nodes": ("nodes", "num_nodes", "nnodes", "n_nodes"),
        "per_node": ("gpus_per_node", "devices_per_node", "nproc_per_node", "num_gpus_per_node"),
        "total": ("gpus", "num_gpus", "world_size", "n_gpus", "total_gpus", "num_devices"),
    }
    for key, words in names.items():
        for name, value in top.items():
            if name.lower() in words and isinstance(value, int) and not isinstance(value, bool) and value > 0:
                sizes.put(key, value, f"{name} of the file")
    return sizes
