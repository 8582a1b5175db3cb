"""The keys of a ``config.json``, read with their types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cmsim.errors import Problem

#: no size of a model is larger, and no model deeper
_MOST, _MOST_LAYERS = 10**9, 10**4


class Keys:
    """The keys of one config, read with their types; complaints are collected, not raised one by one."""

    def __init__(self, data: Mapping[str, Any], file: str, text: str):
        self.data, self.file, self.text = data, file, text
        self.family = str(data.get("model_type"))
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it stands; the key counts as read from now on."""
        self.read.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def spared(self, *names: str) -> None:
        """Keys that say nothing of this family which others do not say."""
        self.read.update(names)

    def complain(self, key: str, message: str) -> None:
        found = re.search(rf'"{re.escape(key)}"\s*:', self.text)
        line = self.text.count("\n", 0, found.start()) + 1 if found else None
        self.problems.append(Problem(message, self.file, line, key if found else ""))

    def mismatch(self, key: str, message: str) -> None:
        """Complain that keys do not fit each other, unless one of them was wrong by itself."""
        if not self.problems:
            self.complain(key, message)

    def whole(self, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST) -> int:
        """A whole number from ``least`` to ``most``; without a default the key is required."""
        value = self.get(key)
        if value is None:
            if default is None:
                self.complain(key, f"the key '{key}' is required for model_type '{self.family}'")
            return least if default is None else default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.complain(key, f"expected a whole number of at least {least}, got {value!r}")
            return least
        if value > most:
            self.complain(key, f"expected a whole number of at most {most:,}")
            return least
        return value

    def layers(self, key: str = "num_hidden_layers") -> int:
        """How many layers there are."""
        return self.whole(key, most=_MOST_LAYERS)

    def usual(self, defaults: Mapping[str, int]) -> None:
        """Keys that published files leave to the format's defaults, which a note then says."""
        missing = {key: value for key, value in defaults.items() if self.data.get(key) is None}
        if missing:
            said = ", ".join(f"{key} {value}" for key, value in missing.items())
            self.notes.append(f"not in the file, and taken from the format's defaults: {said}")
        self.data = {**self.data, **missing}

    def alike(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, or a list with the same one for every layer."""
        value = self.data.get(key)
        if isinstance(value, list) and value:
            if any(one != value[0] for one in value):
                self.complain(key, "layers of different sizes are not modelled")
            self.data = {**self.data, key: value[0]}
        return self.whole(key, default, least=least)

    def words(self, key: str, layers: int, allowed: tuple[str, ...]) -> list[str] | None:
        """A word for each of ``layers``; None where the key is absent."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != layers or not all(isinstance(one, str) for one in value):
            self.complain(key, f"expected a list of {layers} words, one a layer")
            return None
        unknown = sorted(set(value) - set(allowed))
        if unknown:
            self.complain(key, f"got {unknown[0]!r}. Allowed: {', '.join(allowed)}.")
            return None
        return value

    def numbers(self, key: str, *, below: int) -> set[int]:
        """Layers by number, maybe none."""
        value = self.get(key, [])
        if not isinstance(value, list) or not all(type(one) is int and 0 <= one < below for one in value):
            self.complain(key, f"expected a list of layers below {below}, got {value!r}")
            return set()
        return set(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.complain(key, f"expected true or false, got {value!r}")
        return default if value is None else bool(value)

    def must_be(self, key: str, only: Any, why: str) -> None:
        """Refuse a setting that the counts below would silently get wrong."""
        if self.get(key, only) not in (only, None):
            self.complain(key, f"got {self.data[key]!r}; only {only!r} is modelled ({why})")

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers of at least 1; required."""
        value = self.get(key)
        if value is None:
            self.complain(key, f"the key '{key}' is required for model_type '{self.family}'")
            return []
        if not isinstance(value, list) or not value or not all(type(one) is int and one > 0 for one in value):
            self.complain(key, f"expected a list of whole numbers of at least 1, got {value!r}")
            return []
        return value
