"""The machine that words around an engine name, and how much of it there is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cmsim.launch import guesses
from cmsim.launch.service.plan import ServicePlan
from cmsim.launch.sizes import JobSizes, of_comments, of_words

_ONE = r"\b(?:one|1|a|single|this|an)[ -](?:[\w.-]+[ -]){0,3}?(?:node|box|server|host|machine|tray)\b"


def chip_of(texts: Iterable[tuple[str, str]], tool: str) -> str | None:
    found = guesses.system_of(texts, tool)
    return str(found[0]["chip"]) if found else None


def words_of_values(tree: object, key: str = "") -> list[tuple[str, str]]:
    """Values of keys that name a machine, in files of settings."""
    if isinstance(tree, dict):
        return [one for name, value in tree.items() for one in words_of_values(value, str(name))][:200]
    if isinstance(tree, list):
        return [one for value in tree for one in words_of_values(value, key)][:200]
    if isinstance(tree, str) and re.search(
        r"product|accelerator|(gpu|device|node|instance|npu)[-_.]?(type|model)|values", key, re.IGNORECASE
    ):
        return [(re.sub(r":(\d{1,3})$", r" x \1", tree.replace("_", " ").replace("-", " ")), key)]
    return []


def describe(plan: ServicePlan, texts: list[tuple[str, str]], tool: str, used: int | None) -> None:
    """Fill in the machine's words, and its nodes where nothing else has said them.

    texts: (text, where it stands), the surest first    used: accelerators that run something
    """
    values = plan.values
    found = guesses.system_of(texts, tool)
    batch = JobSizes()
    of_comments({n: text for n, (text, where) in enumerate(texts) if where == "batch line"}, batch)
    if found:
        word, text, where = found
        plan.system_name = str(word["system"])
        values.setdefault("system", f"{text} ({where})")
        plan.details["chip"] = word["chip"]
    if "nodes" in values:
        return
    sizes = batch
    one = False
    for text, where in texts[:200]:
        if where in ("file name", "batch line", "argument", "metadata"):
            continue
        one = one or re.search(_ONE, text, re.IGNORECASE) is not None
        if found is None or text == found[1] or re.search(r"\d+[ -](?:x )?(?:GPU|NPU|device|die|card|node)", text):
            # "4 of the 8 cards": the latter are what is there
            text = re.sub(r"\b\d+ (?:of|out of) (?:the |our |these )?(?=\d)", "", text)
            text = re.sub(r"(?<=\d)-(?=GPU|NPU)", " ", text)
            text = re.sub(r"Atlas \d+[A-Z]?(?: (?:Inference |Training )?(?:A\d|Super\w+))?", "node", text)
            of_words(text, sizes, guesses.chips(), where, int(found[0]["per_node"]) if found else 0)
    sizes.settle()
    nodes, each = sizes.nodes, sizes.per_node
    if nodes is None and (one or (sizes.total or 99) <= 16):
        nodes = 1
    if nodes == 1 and each is None and sizes.total and sizes.total <= 16:
        each = sizes.total
    if used and nodes and each and used > nodes * each:
        return  # words of something else
    if used and nodes == 1 and used > 16:
        return
    if nodes:
        values["nodes"] = nodes
        if each and "accelerators_per_node" not in values:
            values["accelerators_per_node"] = each
