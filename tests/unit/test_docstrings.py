"""Docstrings of the public names: numpydoc sections that say what goes in, what comes out, and what is raised.

The form is that of https://numpydoc.readthedocs.io/en/latest/format.html; types stand in the signature. Numpydoc's own
validator would bring Sphinx and twenty packages more for these few checks.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cmsim
from cmsim import api, calibration, errors
from cmsim.results import Result
from cmsim.validation import Report

#: sections in the order in which they stand
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Notes", "References", "Examples")
#: what users get in hand beside the names of the package
CLASSES = (cmsim.Results, Result, cmsim.Scenario, cmsim.System, Report, cmsim.CmsimError, api.Machines)
#: what the language asks for, of which the class says enough
SPECIAL = re.compile(r"__\w+__$|_")


def members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, one in vars(kind).items():
        if not SPECIAL.match(name):
            yield f"{kind.__name__}.{name}", one


def public() -> dict[str, Any]:
    """Everything of the above by name: functions, classes, methods, properties."""
    found = {name: getattr(cmsim, name) for name in cmsim.__all__ if callable(getattr(cmsim, name))}
    for room in (api, calibration):
        found |= {f"{room.__name__}.{name}": getattr(room, name) for name in room.__all__}
    found = {name: one for name, one in found.items() if inspect.isroutine(one)}
    for kind in CLASSES:
        found[kind.__name__] = kind
        found |= {name: one for name, one in members(kind) if callable(one) or _property(one) or _bound(one)}
    return found


def _property(one: Any) -> bool:
    return isinstance(one, property | functools.cached_property)


def _bound(one: Any) -> bool:
    return isinstance(one, classmethod | staticmethod)


def text_of(one: Any) -> str:
    one = one.__func__ if _bound(one) else one
    return inspect.cleandoc(one.__doc__ or "")


def sections(text: str) -> dict[str, list[str]]:
    """Names at the margin of each section, in order."""
    found: dict[str, list[str]] = {}
    current = ""
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"} and len(below) == len(line):
            current = line
            found[current] = []
        elif current and line and not line.startswith(" ") and set(line) != {"-"}:
            found[current] += [name.strip() for name in line.partition(" : ")[0].split(",")]
    return found


def raised(function: Callable[..., Any]) -> set[str]:
    """Errors of ours that the function raises by itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = {ast.unparse(node.exc.func) for node in ast.walk(tree) if _of_a_call(node)}
    return {name for name in names if name in vars(errors)}


def _of_a_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)


def problems(one: Any) -> list[str]:
    """What is wrong with a docstring."""
    text = text_of(one)
    head, _, rest = text.partition("\n")
    found = sections(text)
    wrong = [] if text else ["no docstring"]
    if rest and not rest.startswith("\n"):
        wrong.append("the first line is no sentence by itself, with an empty line below")
    if not re.search(r"[.\]]$", head):
        wrong.append("the first line does not end in a full stop")
    if unknown := [name for name in found if name not in SECTIONS]:
        wrong.append(f"unknown sections {unknown}")
    elif list(found) != sorted(found, key=SECTIONS.index):
        wrong.append(f"sections in another order than {SECTIONS}")
    if inspect.isclass(one):
        return wrong + _of_class(one, found)
    return wrong if _property(one) else wrong + _of_function(one.__func__ if _bound(one) else one, found)


def _of_class(kind: type, found: dict[str, list[str]]) -> list[str]:
    if dataclasses.is_dataclass(kind):
        wanted, section = [one.name for one in dataclasses.fields(kind)], "Attributes"
    else:
        wanted, section = list(inspect.signature(kind).parameters), "Parameters"
    said = found.get(section, [])
    return [] if sorted(said) == sorted(wanted) else [f"{section} are {said}, should be {wanted}"]


def _of_function(function: Callable[..., Any], found: dict[str, list[str]]) -> list[str]:
    wrong = []
    signature = inspect.signature(function)
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    wanted = [
        stars.get(one.kind, "") + name for name, one in signature.parameters.items() if name not in ("self", "cls")
    ]
    if found.get("Parameters", []) != wanted:
        wrong.append(f"Parameters are {found.get('Parameters', [])}, should be {wanted}")
    gives = "Yields" if inspect.isgeneratorfunction(function) else "Returns"
    if (signature.return_annotation in ("None", None)) == (gives in found):
        wrong.append(f"{gives}: {'there is none' if gives not in found else 'nothing is'}")
    if missing := raised(function) - set(found.get("Raises", [])):
        wrong.append(f"Raises lacks {sorted(missing)}")
    return wrong


@pytest.mark.parametrize("name", public())
def test_public_names_have_numpydoc_sections(name):
    assert problems(public()[name]) == []


def test_errors_are_of_ours_or_of_python():
    known = {*vars(errors), "NotImplementedError"}
    for name, one in public().items():
        assert set(sections(text_of(one)).get("Raises", [])) <= known, name


def test_what_is_wrong_is_seen():
    def good(size_B: float) -> float:
        """Half of it. [B]

        Parameters
        ----------
        size_B
            All of it. [B]

        Returns
        -------
        float
            Half. [B]

        Raises
        ------
        InputError
            Below 0.
        """
        if size_B < 0:
            raise errors.InputError("below 0")
        return size_B / 2

    assert problems(good) == []
    text = good.__doc__ or ""
    for old, new, what in (
        ("size_B\n", "size\n", "Parameters are ['size']"),
        ("Returns\n        -------\n", "Gives\n        -----\n", "unknown sections ['Gives']"),
        ("[B]\n\n        Parameters", "[B]\n        More\n\n        Parameters", "no sentence by itself"),
        ("Half of it. [B]", "Half of it", "full stop"),
    ):
        assert old in text
        good.__doc__ = text.replace(old, new, 1)
        assert any(what in problem for problem in problems(good)), what
    good.__doc__ = text.partition("        Returns")[0]
    assert problems(good) == ["Returns: there is none"]


def test_raises_are_looked_for():
    def fails() -> None:
        """Always."""
        raise InputError("always")

    from cmsim.errors import InputError

    assert problems(fails) == ["Raises lacks ['InputError']"]
