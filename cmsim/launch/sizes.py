"""How many machines a job has: from its launcher, its wrapper, Slurm's lines, or words in comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cmsim.launch.settings import is_flag
from cmsim.launch.shell import is_unknown
from cmsim.launch.vocabulary import data, plain


@dataclass
class JobSizes:
    """Nodes, accelerators of each, accelerators of all; ``where`` says of each what told it."""

    nodes: int | None = None
    per_node: int | None = None
    total: int | None = None
    where: dict[str, str] = field(default_factory=dict)
    line: int = 0
    #: what a launcher was told that only a run would know
    unknown: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: int | None, where: str) -> None:
        """Set what nobody has said before."""
        if value is not None and getattr(self, key) is None:
            setattr(self, key, value)
            self.where[key] = where

    @property
    def world(self) -> int | None:
        if self.nodes is not None and self.per_node is not None:
            return self.nodes * self.per_node
        return self.total

    def settle(self) -> None:
        """Work out the third of nodes, accelerators of each and of all, where two are there."""
        if self.total and self.per_node and self.nodes is None and self.total % self.per_node == 0:
            self.put("nodes", self.total // self.per_node, "worked out")
        if self.total and self.nodes and self.per_node is None and self.total % self.nodes == 0:
            self.put("per_node", self.total // self.nodes, "worked out")


def of_flags(words: Iterable[str], table: Mapping[str, Iterable[str]], where: str, sizes: JobSizes) -> None:
    """Read a launcher's or wrapper's options into ``sizes``; ``table`` says which flags are which size."""
    flags = {plain(flag): key for key, names in table.items() if key != "position" for flag in names}
    words = list(words)
    for at, word in enumerate(words):
        if not is_flag(word):
            continue
        name, equals, value = word.partition("=")
        key = flags.get(plain(name))
        if key is None and not name.startswith("--") and len(name) > 2 and name[1] in flags:  # -N8
            key, value, equals = flags[name[1]], name[2:], "="
        if key is None:
            continue
        if not equals:
            value = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else ""
        if key == "include":
            _included(value, where, sizes)
            continue
        if is_unknown(value):
            sizes.unknown.setdefault(key, value)
            continue
        if (number := count(value)) is None:
            sizes.unknown.setdefault(key, value)
        sizes.put(key, number, where)


def _included(text: str, where: str, sizes: JobSizes) -> None:
    """``node1:0,1@node2:0,1``: accelerators by node."""
    nodes = [one.partition(":")[2] for one in text.split("@") if one]
    each = {one.count(",") + 1 for one in nodes if one}
    if nodes and len(each) == 1 and all(nodes):
        sizes.put("nodes", len(nodes), where)
        sizes.put("per_node", each.pop(), where)


def count(text: str) -> int | None:
    """A count as launchers write it: ``8``, ``gpu:8``, ``gpu:NAME:8``, ``1:4`` (elastic: the most), ``ppr:8:node``."""
    text = text.strip("'\" ")
    if found := re.search(r"ppr:(\d{1,6})", text):
        return int(found[1])
    found = re.fullmatch(r"(?:[A-Za-z_][\w-]*:)*(\d{1,7})(?:[:-](\d{1,7}))?(?:\(.*\))?", text)
    if not found:
        return None
    return int(found[2] or found[1])


_DIRECTIVE = re.compile(r"(SBATCH|PBS|BSUB|FLUX:?)\s+(.*)")


def of_comments(comments: Mapping[int, str], sizes: JobSizes) -> None:
    """Slurm's lines (``#SBATCH --nodes=4``), where nothing else said it."""
    for line, text in comments.items():
        if found := _DIRECTIVE.match(text):
            words = found[2].split(" #")[0].split()
            of_flags(words, data("programs")["wrappers"]["sbatch"], f"{found[1]} line {line}", sizes)


def is_directive(text: str) -> bool:
    return _DIRECTIVE.match(text) is not None or text.startswith("!")


_COUNTS = {
    word: n for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"])
} | {"sixteen": 16}
_NUMBER = rf"(?<![\w.,-])(\d{{1,3}}(?:,\d{{3}})+|\d{{1,6}}|{'|'.join(list(_COUNTS)[1:])})(?!\.\d)"
_DEVICE = r"(?:GPUs?|NPUs?|dies|devices|cards|ranks|accelerators|chips)"
_NODE = r"(?:nodes?|servers?|hosts?|boxes|trays)"


def of_words(text: str, sizes: JobSizes, chips: str, where: str, usual: int = 0) -> None:
    """Counts in a sentence: ``16 nodes of 8 GPUs``, ``64 GPUs (8 nodes)``, ``4 GPUs per tray``; or a chip's name.

    chips: a pattern of their names    usual: how many of the chip that is named a node has
    """
    text = text[:500]

    def number(found: re.Match[str] | None, group: int = 1) -> int | None:
        said = found[group].lower().replace(",", "") if found else ""
        return _COUNTS.get(said) or (int(said) if said.isdigit() else None)

    def search(pattern: str) -> re.Match[str] | None:
        return re.search(pattern, text, re.IGNORECASE)

    chip = rf"(?:{chips})(?![A-Za-z0-9])"
    if found := search(rf"{_NUMBER}\s*[x×*]\s*(\d{{1,3}})\s*{chip}"):  # 16x8 of a chip
        sizes.put("nodes", number(found), where)
        sizes.put("per_node", int(found[2]), where)
    nodes = search(rf"{_NUMBER}\s*(?:x\s*)?(?:[\w.-]+ )?{_NODE}\b")
    sizes.put("nodes", number(nodes), where)
    sizes.put("per_node", number(search(rf"{_NODE} (?:of|with) {_NUMBER}")), where)
    per = rf"(?:{_DEVICE}|{chip})[\w-]*\s*(?:/|per|a|each|in (?:each|a))\s*(?:node|tray|server|host|box)?\b"
    sizes.put("per_node", number(search(rf"{_NUMBER}\s*(?:x\s*)?{per}")), where)
    sizes.put("per_node", number(search(rf"{_NUMBER} per (?:node|tray|server)")), where)
    alone = rf"(?![\w-]*\s*(?:/|per|a|each|in (?:each|a)|{_NODE})\b)"
    total = search(rf"(?<!of ){_NUMBER}\s*(?:x\s*)?(?:Nvidia\s+|AMD\s+|Ascend\s+)?{chip}{alone}")
    total = total or search(rf"(?<!of ){_NUMBER} {_DEVICE}{alone}") or search(rf"{chip}\s*[x×*]\s*{_NUMBER}")
    if nodes and usual and 1 < (number(nodes) or 0) and number(total) == usual and sizes.where.get("nodes") == where:
        sizes.put("per_node", usual, where)  # 8 of a chip and several nodes: as many as a node has
    elif "per_node" not in sizes.where or number(total) != sizes.per_node:
        sizes.put("total", number(total), where)


def defaults(sizes: JobSizes, launcher: str) -> dict[str, Any]:
    """What a launcher takes where nothing says it: one node, one process."""
    out: dict[str, Any] = {}
    if (
        launcher
        and "nodes" not in sizes.unknown
        and sizes.nodes is None
        and sizes.per_node is not None
        and not sizes.total
    ):
        sizes.put("nodes", 1, "the launcher's default")
        out["nodes"] = 1
    return out
