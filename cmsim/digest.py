"""Which run a run is for whoever has its result already: a digest of all that its result follows from.

Equal on every machine and in every process; what a file says counts, not where it stands. Code counts by its version:
in a checkout that is edited under one version, start a new store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim.hardware import System
from cmsim.reading import names
from cmsim.reading.regular import exists, opened
from cmsim.scenario import Run
from cmsim.version import __version__

#: keys of a workload, of its cost and its carbon, whose text may name a file or a folder
_FILES = frozenset({"model", "path", "matrix", "file", "placement", "machine", "failures", "prices", "region"})
#: which draws of intervals stand on
_DRAWN = ("workloads/reference/errors.yaml", "workloads/reference/stands_on.yaml")
#: where built-in ones of them lie
_HOMES = (
    *("", "topologies", "workloads/models", "workloads/graphs", "workloads/denoisers", "workloads/traces"),
    "workloads/requests",
)
#: built-in data that runs read beside what a scenario names: systems, kernels, libraries, models by name
_BUILT_IN = ("topologies", "workloads/models", "workloads/graphs", "workloads/denoisers")
_BLOCK_B = 1 << 20
#: of a run; whether a program of the user's is allowed changes no result
_FIELDS = tuple(field.name for field in dataclasses.fields(Run) if field.name != "allow_policies")


class Digests:
    """Digests of runs, all of one moment: a file is read when it is first asked for.

    base   folder that relative paths of the scenario start from
    """

    def __init__(self, base: Path | None = None):
        self.base = base
        self._files: dict[Path, str] = {}
        self._systems: dict[int, tuple[System, str]] = {}
        self._contents: dict[str, list[str]] = {}
        self._ours = _sum(self._content(names.DATA / folder) for folder in _BUILT_IN)

    def of(self, run: Run, systems: Sequence[System]) -> str:
        """Of one run, as hexadecimal text.

        systems: its own; where `best` chooses one, all that it chooses from
        """
        said = {
            "cmsim": __version__,
            "built_in": self._ours,
            "run": {name: getattr(run, name) for name in _FIELDS},
            "systems": [self._system(one) for one in systems],
            "files": [[name, self._named(name)] for name in sorted(set(_named_by(run)))],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=_plain).encode()).hexdigest()

    def _system(self, system: System) -> str:
        if id(system) not in self._systems:
            self._systems[id(system)] = system, f"{system.name} {system.digest}"
        return self._systems[id(system)][1]

    def _named(self, name: str) -> list[str]:
        """Contents of every file that a text may mean: which of them is read is for who reads it to say."""
        if name not in self._contents:
            roots = [self.base] if self.base else []
            at = [root / name for root in (*roots, Path.cwd(), *(names.DATA / home for home in _HOMES))]
            self._contents[name] = [self._content(path) for path in at if exists(path, folders=True)]
        return self._contents[name]

    def _content(self, path: Path) -> str:
        if path not in self._files:
            if not path.is_file():
                inside = [one for one in sorted(path.rglob("*")) if one.is_file() and not one.name.startswith(".")]
                said = _sum(f"{one.relative_to(path).as_posix()} {self._content(one)}" for one in inside)
            else:
                said = _of_file(path)
            self._files[path] = said
        return self._files[path]


def _of_file(path: Path) -> str:
    done = hashlib.sha256()
    with opened(path) as (file, _):
        while block := file.read(_BLOCK_B):
            done.update(block)
    return done.hexdigest()


def _sum(parts: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _named_by(run: Run) -> Iterator[str]:
    for part in (run.spec, run.cost, run.carbon):
        if part is not None:
            yield from _texts(_plain(part))
    if run.uncertainty is not None:
        yield from _DRAWN


def _texts(data: Any) -> Iterator[str]:
    """Texts of a part of a scenario, at any depth, that may name a file."""
    for key, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, str) and value and key in _FILES:
            yield value
        elif isinstance(value, str) and key == "policy":  # module:function, a page beside the scenario
            yield value.partition(":")[0].replace(".", "/") + ".py"
        else:
            yield from _texts(value)


def _plain(value: Any) -> Any:
    """What JSON does not know: models and records of scenarios."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else dict(value)


__all__ = ["Digests"]
