"""Settings of a job: flags of a command line or keys of a file, each with the place where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cmsim.errors import Problem, nearest
from cmsim.launch.shell import is_unknown, shown
from cmsim.launch.vocabulary import NameMeaning, Vocabulary, plain


@dataclass(frozen=True)
class LaunchSetting:
    """``name`` as it is written; ``values`` what stands behind it, none for a switch."""

    name: str
    values: tuple[Any, ...]
    line: int
    file: str
    meaning: NameMeaning

    @property
    def value(self) -> Any:
        return self.values[0] if self.values else True


@dataclass
class Settings:
    """All settings of one job, the last one of a key counts; what was wrong with them."""

    by_key: dict[str, LaunchSetting] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)
    deprecated: dict[str, None] = field(default_factory=dict)
    unknown: dict[str, LaunchSetting] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: value of every name that is unread: a scenario may have a key for it
    said: dict[str, Any] = field(default_factory=dict)

    def add(self, setting: LaunchSetting, shown_as: str = "") -> None:
        name = shown_as or setting.name
        sort, key = setting.meaning
        if sort == "old":
            self.deprecated[name] = None
        if sort == "unread":
            self.unread[name] = None
            self.said[plain(setting.name).rpartition(".")[2]] = setting.value
        elif sort == "ignored":
            self.ignored[name] = None
        elif sort == "unknown":
            self.unknown.setdefault(name, setting)
        elif key:
            before = self.by_key.get(key)
            if before is not None and before.values != setting.values and before.file == setting.file:
                said = [" ".join(map(str, one.values)) or "on" for one in (before, setting)]
                self.notes.append(
                    f"{name} stands twice ({said[0]}, then {said[1]}, line {setting.line}); the last one counts"
                )
            self.by_key[key] = setting

    def has(self, key: str) -> bool:
        return key in self.by_key

    def get(self, key: str) -> Any:
        """A value, or None where the setting is not there. What only a run would tell is a problem and no value."""
        setting = self.by_key.get(key)
        if setting is None:
            return None
        value = setting.value
        if isinstance(value, str) and is_unknown(value):
            self.wrong(setting, f"'{shown(value)}' is only known when the script runs; give a number")
            return None
        if getattr(value, "text", None) is not None and type(value).__name__ == "Unsure":
            self.wrong(setting, f"'{value.text}' cannot be worked out without running the file")
            return None
        return None if value in ("None", "none", "null", "") and key not in _WORDS else value

    def whole(self, key: str) -> int | None:
        """A whole number, at least 1 unless it is -1 or 0 that the tool takes."""
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return None
        try:
            number = float(str(value).replace("_", ""))
        except ValueError:
            number = float("nan")
        if not -1 <= number < 2**40 or number != int(number):  # nan is in no range
            self.wrong(self.by_key[key], f"got '{value}'; allowed: a whole number of 1 or more")
            return None
        return int(number)

    def true(self, key: str) -> bool:
        """Whether a switch is on."""
        value = self.get(key)
        if isinstance(value, str):
            return value.lower() not in ("false", "0", "no", "off", "none", "")
        return bool(value)

    def text(self, key: str) -> str | None:
        value = self.get(key)
        return None if value is None or isinstance(value, bool) else str(value)

    def words(self, key: str) -> list[str]:
        """Several values: apart, joined by commas, or a list."""
        setting = self.by_key.get(key)
        if setting is None or self.get(key) is None:
            return []
        out: list[str] = []
        for value in setting.values:
            if isinstance(value, list | tuple):
                out += [str(one) for one in value]
            else:
                out += [one for one in re.split(r"[,\s]+", str(value).strip("[]")) if one]
        return [one.strip("'\"") for one in out]

    def wrong(self, setting: LaunchSetting, message: str) -> None:
        problem = Problem(message, setting.file, setting.line or None, setting.name)
        if problem not in self.problems:
            self.problems.append(problem)


#: ``model.key=value``, as Hydra takes it
_OVERRIDE = re.compile(r"[+~]{0,2}([A-Za-z_]\w*)((?:\.\w+)*)=")
_WORDS = frozenset({"recompute", "recompute_granularity"})


def from_words(
    words: Iterable[str], vocabulary: Vocabulary, file: str, *, short: bool = True
) -> tuple[list[LaunchSetting], list[str]]:
    """Settings of a command line, and words that belong to none.

    What follows a flag up to the next one are its values: `-5` and `-1e-3` are numbers. ``--name=value``, and names
    that are cut short as argparse takes them.
    """
    out: list[LaunchSetting] = []
    strays: list[str] = []
    name = ""
    values: list[str] = []
    line = 0

    def done() -> None:
        if name:
            out.append(LaunchSetting(str(name), tuple(map(str, values)), line, file, _meaning(name, vocabulary)))

    overrides = vocabulary.data.get("overrides")
    for word in words:
        if overrides and _is_override(word, vocabulary):  # stands alone, even behind a flag
            strays.append(word)
        elif is_flag(word, short=short):
            done()
            name, equals, value = word.partition("=")
            values = [value] if equals else []
            line = getattr(word, "line", 0)
        elif name:
            values.append(word)
        else:
            strays.append(word)
    done()
    return out, strays


def _is_override(word: str, vocabulary: Vocabulary) -> bool:
    found = _OVERRIDE.match(word)
    return found is not None and (bool(found[2]) or vocabulary.meaning(found[1]).sort != "unknown")


def is_flag(word: str, *, short: bool = True) -> bool:
    if word.startswith("--"):
        return len(word) > 2
    return short and re.match(r"-[A-Za-z_]", word) is not None


def _meaning(name: str, vocabulary: Vocabulary) -> NameMeaning:
    meaning = vocabulary.meaning(name)
    if meaning.sort == "unknown" and name.startswith("--") and (long := vocabulary.abbreviated(name)):
        return vocabulary.meaning(long)
    return meaning


def from_tree(
    leaves: Iterable[tuple[str, Any, int]], vocabulary: Vocabulary, file: str, *, last: bool = False
) -> Iterator[tuple[LaunchSetting, str]]:
    """Settings of a file of keys, each with the name it is shown by.

    leaves: (dotted path, value, line)    last: names are known by their last part too, wherever they stand
    """
    names = vocabulary.data.get("names") or {}
    for path, value, line in leaves:
        dashed = plain(path)
        if dashed.endswith(".()") and vocabulary.meaning(dashed).sort == "unknown":
            continue  # what something is called says nothing that its parts do not
        section = next((one for one in _above(dashed) if one in vocabulary.sections), "")
        meaning = vocabulary.meaning(dashed)
        shown_as = path.rpartition(".")[2]
        if meaning.sort == "unknown" and last:
            parts = dashed.split(".")
            for n in range(1, len(parts)):
                if (meaning := vocabulary.meaning(".".join(parts[n:]))).sort != "unknown":
                    break
        if meaning.sort == "unknown" and last:
            for above in _above(dashed):
                found = vocabulary.meaning(above.rpartition(".")[2])
                if found.sort in ("unread", "ignored", "described"):
                    meaning, shown_as = found, _as_written(path, above)
                    break
        if section and meaning.sort in ("ignored", "unread", "described") and not _is_own(meaning, dashed, vocabulary):
            shown_as = names.get(section, _as_written(path, section))
        yield (
            LaunchSetting(path, tuple(value) if isinstance(value, list) and value else (value,), line, file, meaning),
            shown_as,
        )


def _is_own(meaning: NameMeaning, name: str, vocabulary: Vocabulary) -> bool:
    """Whether a name has a line of its own, not one with its whole section."""
    return name in vocabulary.exact and name not in vocabulary.sections and meaning == vocabulary.exact[name]


def _above(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _as_written(path: str, dashed: str) -> str:
    return path[: len(dashed)].rpartition(".")[2] or path


def leaves(tree: Mapping[str, Any], line: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any, int]]:
    """(dotted path, value, line) of nested settings; lists of plain values are values."""
    for key, value in tree.items():
        here = (*prefix, key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, line, here)
        else:
            yield ".".join(map(str, here)), value, int(line(here) or 0)


def unknown_problems(settings: Settings, vocabulary: Vocabulary) -> list[str]:
    """What to say of names that no version has."""
    out = []
    for name, one in settings.unknown.items():
        near = nearest(plain(name), vocabulary.names())
        place = f"{one.file}:{one.line}" if one.line else one.file
        out.append(f"{place}: {name} is unknown to {vocabulary.tool}" + (f"; did you mean {near}?" if near else ""))
    return out
