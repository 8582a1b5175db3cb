"""Traces of requests to LLM services: one module a format, found by what the files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.bytes_in import LIMIT_B, bad, head, read_bytes
from cmsim.workload.requests import azure, bailian, burstgpt, llmservingsim, mooncake, servegen, vidur
from cmsim.workload.requests.rates import RateWindows, draw_arrivals
from cmsim.workload.requests.requests import Prefix, Requests


class Open(Protocol):
    """Reads a file; InputError names file and line."""

    def __call__(self, path: Path, *, limit_B: int = LIMIT_B) -> Requests | RateWindows: ...


@dataclass(frozen=True)
class Importer:
    """One format.

    sniff  says from the first bytes (expanded) and the path whether the format is this one
    open_  reads it
    """

    sniff: Callable[[bytes, Path], bool]
    open_: Open


#: importers by name, asked in this order; a new format is one module and one line
IMPORTERS: dict[str, Importer] = {
    module.NAME: Importer(module.sniff, module.open_)
    for module in (azure, burstgpt, vidur, mooncake, bailian, llmservingsim, servegen)
}

#: what people also have, and why it is not read: a mark in the first bytes, and what to say
_KNOWN_OTHERS = {
    b"https://git-lfs.github.com/spec": "is a pointer of Git LFS; fetch the file itself with 'git lfs pull'",
    b'"conversations"': "holds conversations as text, whose lengths depend on a tokenizer; allowed: files with lengths",
}


def sniffed(path: Path) -> str | None:
    """Name of the format of a file, None where it is none of these."""
    start = head(path)
    return next((name for name, importer in IMPORTERS.items() if start and importer.sniff(start, path)), None)


def open_requests(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Requests | RateWindows:
    """What a file of a request trace holds: requests, or rates of arrival where it has no more.

    format   name in `IMPORTERS`, where it should not be guessed
    limit_B  size above which an expanded file is refused [B]

    Raises InputError naming file and line.
    """
    path = Path(path)
    if format is not None and format not in IMPORTERS:
        raise InputError(f"no format of requests is named '{format}'. {did_you_mean(format, IMPORTERS)}")
    if not path.is_file():
        raise InputError(Problem("is a folder" if path.is_dir() else "no such file", str(path)))
    found = format or sniffed(path)
    if found is None:
        start = head(path)
        if not start:
            read_bytes(path, limit_B=limit_B)  # says what is wrong with it
        for mark, message in _KNOWN_OTHERS.items():
            if mark in start:
                raise bad(path, message)
        raise bad(path, f"no known format of requests ({', '.join(IMPORTERS)})")
    return IMPORTERS[found].open_(path, limit_B=limit_B)


def load_requests(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Requests:
    """The requests of a file, in whichever known format it is; arguments and errors as of `open_requests`.

    InputError also where the file holds rates: `draw_arrivals` makes arrivals of these, but lengths it has none.
    """
    found = open_requests(path, format=format, limit_B=limit_B)
    if isinstance(found, RateWindows):
        raise bad(path, f"holds rates of arrival ({found.format}) and no requests")
    return found


__all__ = [
    "IMPORTERS",
    "Importer",
    "Open",
    "Prefix",
    "RateWindows",
    "Requests",
    "draw_arrivals",
    "load_requests",
    "open_requests",
    "sniffed",
]
