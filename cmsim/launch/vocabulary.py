"""What flags and keys of a tool mean: one data file per tool, ``workloads/launch/NAME.yaml``."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cmsim import reading

FOLDER = "workloads/launch"
#: in this order where a name stands in several tables of one file
_TABLES = ("plan", "model", "old")
_LISTS = ("unread", "ignored", "described")


class NameMeaning(NamedTuple):
    """``sort``: plan, model, old, unread, ignored, described or unknown; ``key`` of what was read, of the first 3."""

    sort: str
    key: str = ""


UNKNOWN = NameMeaning("unknown")


def plain(name: str) -> str:
    """A flag or key without dashes in front, - for _.

    >>> plain("--micro_batch_size")
    'micro-batch-size'
    """
    return name.lstrip("-").replace("_", "-")


@dataclass(frozen=True)
class Vocabulary:
    """A tool's names with their meanings; those of the tool it extends come after its own."""

    name: str
    data: Mapping[str, Any]
    exact: Mapping[str, NameMeaning]
    starts: tuple[tuple[str, NameMeaning], ...]
    parent: Vocabulary | None = None
    sections: frozenset[str] = field(default=frozenset())

    @property
    def tool(self) -> str:
        return str(self.data["tool"])

    def meaning(self, name: str) -> NameMeaning:
        """What a name means, an unknown one included."""
        name = plain(name)
        if name in self.exact:
            return self.exact[name]
        for start, meaning in self.starts:
            if name.startswith(start):
                return meaning
        return UNKNOWN if self.parent is None else self.parent.meaning(name)

    def abbreviated(self, name: str) -> str | None:
        """The one name that begins so, as argparse takes it; None where there is none, or several that differ."""
        found = {long: meaning for long, meaning in self._all().items() if long.startswith(plain(name))}
        if len(set(found.values())) == 1 or len(found) == 1:
            return min(found, key=len)
        return None

    def names(self) -> list[str]:
        return sorted(self._all())

    def table(self, key: str) -> dict[str, Any]:
        """A table of the data, with its parent's entries."""
        above = self.parent.table(key) if self.parent is not None else {}
        return {**above, **(self.data.get(key) or {})}

    def table_list(self, key: str) -> list[str]:
        """A list of the data, behind its parent's."""
        above = self.parent.table_list(key) if self.parent is not None else []
        return [*above, *(self.data.get(key) or ())]

    def _all(self) -> dict[str, NameMeaning]:
        above = self.parent._all() if self.parent is not None else {}
        return {**above, **self.exact}


@functools.lru_cache(maxsize=64)
def data(name: str) -> dict[str, Any]:
    """A file of the folder, whole."""
    return dict(reading.read_yaml(reading.builtin_files(FOLDER)[name]).data)


@functools.lru_cache(maxsize=64)
def vocabulary(name: str) -> Vocabulary:
    """A tool's vocabulary, by the name of its file."""
    loaded = data(name)
    parent = vocabulary(str(loaded["extends"])) if loaded.get("extends") else None
    return _made(name, loaded, parent)


@functools.lru_cache(maxsize=8)
def script_vocabulary(name: str) -> Vocabulary:
    """Arguments of the script that a tool starts, where these are the script's own."""
    loaded = data(name)
    return _made(name, {**loaded["script"], "tool": loaded["tool"]}, None)


def _made(name: str, loaded: Mapping[str, Any], parent: Vocabulary | None) -> Vocabulary:
    exact: dict[str, NameMeaning] = {}
    starts: list[tuple[str, NameMeaning]] = []
    for table in _TABLES:
        for flag, key in (loaded.get(table) or {}).items():
            exact.setdefault(str(flag), NameMeaning(table, str(key)))
    for sort in _LISTS:
        for flag in loaded.get(sort) or ():
            if str(flag).endswith("*"):
                starts.append((str(flag)[:-1], NameMeaning(sort)))
            else:
                exact.setdefault(str(flag), NameMeaning(sort))
    starts.sort(key=lambda one: -len(one[0]))  # the longest says most
    return Vocabulary(name, loaded, exact, tuple(starts), parent, frozenset(loaded.get("sections") or ()))


def environment(tools: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Environment variables that touch performance: whole names, and how others begin."""
    names = list(data("environment")["unread"])
    for tool in tools:
        names += (data(tool).get("environment") or {}).get("unread", [])
    whole = frozenset(name for name in names if not name.endswith("*"))
    return whole, tuple(name[:-1] for name in names if name.endswith("*"))
