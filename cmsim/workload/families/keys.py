"""The keys of a ``config.json``, read with their types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cmsim.errors import Problem


class Keys:
    """The keys of one config, read with their types; complaints are collected, not raised one by one."""

    def __init__(self, data: Mapping[str, Any], file: str, text: str):
        self.data, self.file, self.text = data, file, text
        self.family = str(data.get("model_type"))
        self.problems: list[Problem] = []

    def complain(self, key: str, message: str) -> None:
        found = re.search(rf'"{re.escape(key)}"\s*:', self.text)
        line = self.text.count("\n", 0, found.start()) + 1 if found else None
        self.problems.append(Problem(message, self.file, line, key if found else ""))

    def mismatch(self, key: str, message: str) -> None:
        """Complain that keys do not fit each other, unless one of them was wrong by itself."""
        if not self.problems:
            self.complain(key, message)

    def whole(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least ``least``; without a default the key is required."""
        value = self.data.get(key)
        if value is None:
            if default is None:
                self.complain(key, f"the key '{key}' is required for model_type '{self.family}'")
            return least if default is None else default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.complain(key, f"expected a whole number of at least {least}, got {value!r}")
            return least
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key)
        if value is not None and not isinstance(value, bool):
            self.complain(key, f"expected true or false, got {value!r}")
        return default if value is None else bool(value)

    def must_be(self, key: str, only: Any, why: str) -> None:
        """Refuse a setting that the counts below would silently get wrong."""
        if self.data.get(key, only) not in (only, None):
            self.complain(key, f"got {self.data[key]!r}; only {only!r} is modelled ({why})")

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers of at least 1; required."""
        value = self.data.get(key)
        if value is None:
            self.complain(key, f"the key '{key}' is required for model_type '{self.family}'")
            return []
        if not isinstance(value, list) or not value or not all(type(one) is int and one > 0 for one in value):
            self.complain(key, f"expected a list of whole numbers of at least 1, got {value!r}")
            return []
        return value
