"""Guesses from words and dimensions: which model, which machine. What is guessed is always said to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cmsim.launch.vocabulary import data

#: dimensions in the order of the data's list
_DIMS = ("layers", "hidden", "heads", "kv_groups", "ffn", "experts", "topk", "expert_ffn")


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def model_of_words(*words: str | None) -> Mapping[str, Any] | None:
    """The known model that a recipe, a path or a name means; the longest name that fits."""
    found: tuple[int, Mapping[str, Any]] | None = None
    for word in words:
        squeezed = _squeezed(word or "")
        for model in data("models")["models"]:
            for name in (*model["names"], model["hf"].rpartition("/")[2]):
                short = _squeezed(name)
                if short and short in squeezed and (found is None or len(short) > found[0]):
                    found = len(short), model
    return found[1] if found else None


def model_of_dims(dims: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The known model with these dimensions: all that are given must fit, layers and width among them."""
    if not dims.get("layers") or not dims.get("hidden"):
        return None
    best: tuple[int, Mapping[str, Any]] | None = None
    for model in data("models")["models"]:
        known = dict(zip(_DIMS, model["dims"], strict=True))
        given = {
            key: dims[key]
            for key in _DIMS
            if dims.get(key) and not (key == "ffn" and known["experts"] and not known["ffn"])
        }
        if bool(dims.get("experts")) != bool(known["experts"]):
            continue
        if known["kv_groups"] == 0 or (dims.get("attention") == "mla"):
            if (dims.get("attention") == "mla") != bool(model.get("mla")):
                continue
            given.pop("kv_groups", None)
        if any(known[key] != value for key, value in given.items()):
            continue
        if known["kv_groups"] not in (0, known["heads"]) and not dims.get("kv_groups"):
            continue
        vocab = dims.get("vocab")
        score = len(given) + 2 * bool(vocab and abs(vocab - model["vocab"]) < 1024)
        if best is None or score > best[0]:
            best = score, model
    return best[1] if best else None


def system_of(texts: Iterable[tuple[str, str]], tool: str) -> tuple[Mapping[str, Any], str, str] | None:
    """The machine that one of the texts names: its entry, the text, and where that stands.

    texts: (text, where), the surest first
    """
    for text, where in texts:
        for word in data("systems")["words"]:
            pattern = rf"(?<![A-Za-z0-9])(?:{word['pattern']})(?![A-Za-z0-9]|\.\d)"
            if tool in word.get("only", (tool,)) and re.search(pattern, text, re.IGNORECASE):
                return word, text, where
    return None


def chips() -> str:
    """A pattern of all words for accelerators."""
    return "|".join(word["pattern"] for word in data("systems")["words"])
