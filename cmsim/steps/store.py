"""Tables on disk and in memory, under the digest of everything that goes in.

A file is one of NumPy's archives: arrays of numbers, and a head of JSON; equal tables are equal bytes. What is damaged,
of another version, or not what its name says is made anew. Where no folder can be written nothing is kept there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import reading
from cmsim.api import Machines
from cmsim.scenario import Run
from cmsim.steps.axes import Axis
from cmsim.steps.plays import COLUMNS
from cmsim.steps.surface import Surface
from cmsim.steps.table import Layers, Table, TabledPlan
from cmsim.version import __version__

#: of the files; another one is not read
SCHEMA = 2
#: where tables are kept, before the user's cache folder; empty: nowhere
ENVIRONMENT = "CMSIM_STEPS"
#: built-in data that runs read, below ``reading.DATA``
_DATA = ("topologies", "workloads/models", "workloads/graphs")
#: tables that a process keeps
_MOST = 64


def folder() -> Path | None:
    """The user's folder of tables, which need not be there; None where there is to be none, or no home."""
    named = os.environ.get(ENVIRONMENT)
    if named is not None:
        return Path(named) if named else None
    above = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(above) if above else Path.home() / ".cache") / "cmsim" / "steps"
    except RuntimeError:
        return None


def digest(run: Run, axes: Sequence[Axis], machines: Machines, **how: Any) -> str:
    """Of everything that decides a table: the run, its system's files, files that it names, built-in data, the package
    itself, the axes, and how it is made."""
    said = {
        "schema": SCHEMA,
        "cmsim": __version__,
        "numpy": np.__version__,
        "package": _contents(str(Path(__file__).parents[1]), ".py"),
        "data": [_contents(str(reading.DATA / name), "") for name in _DATA],
        "spec": run.spec.model_dump(mode="json"),
        "open": [[one.key, one.values] for one in run.open],
        "system": run.system.model_dump(mode="json"),
        "files": [machines(run).digest, *_named(run.spec.model_dump(), machines.base)],
        "network": [run.network, run.routing, [fault.model_dump(mode="json") for fault in run.faults]],
        "ranks": [run.fold, {str(rank): one.model_dump(mode="json") for rank, one in run.perturb.items()}],
        "jitter": None if run.jitter is None else run.jitter.model_dump(mode="json"),
        "run": [run.seed, run.exclusive, run.of],
        "axes": [_axis_data(axis) for axis in axes],
        "how": how,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _axis_data(axis: Axis) -> list[Any]:
    return [axis.key, axis.low, axis.high, axis.name, axis.unit, axis.whole, axis.line, axis.smooth]


def _named(value: Any, base: Path | None) -> Iterator[str]:
    """Contents of files and folders that a workload names by path."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _named(one, base)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _named(one, base)
    elif isinstance(value, str) and value:
        for root in filter(None, (base, Path.cwd(), reading.DATA, reading.DATA / "workloads" / "traces")):
            if (path := root / value).exists():
                yield _contents(str(path), "")


def _contents(where: str, ending: str) -> str:
    """Hash of a file, or of all files of a folder and below."""
    if Path(where).is_file():
        return _content(where, Path(where).stat())
    whole = hashlib.sha256()
    for name, file in _files(where):
        if name.endswith(ending):
            whole.update(f"{name}:{_content(file.path, file.stat())};".encode())
    return whole.hexdigest()


def _files(where: str, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files of a folder and below, by name, and their names from there; none that Python keeps beside a package."""
    with os.scandir(where) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if not entry.is_dir():
                yield below + entry.name, entry
            elif entry.name != "__pycache__":
                yield from _files(entry.path, f"{below}{entry.name}/")


def _content(where: str, at: os.stat_result) -> str:
    """Hash of a file, kept for as long as it stays as it is."""
    return _read(where, at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino)


@functools.lru_cache(maxsize=4096)
def _read(where: str, *state: int) -> str:  # noqa: ARG001  # a key
    return hashlib.sha256(Path(where).read_bytes()).hexdigest()


class Kept:
    """The last tables of a process, by digest; safe to ask from several threads."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Table | None:
        with self._lock:
            if name in self._tables:
                self._tables.move_to_end(name)
            return self._tables.get(name)

    def put(self, table: Table) -> None:
        with self._lock:
            self._tables[table.digest] = table
            while len(self._tables) > _MOST:
                self._tables.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._tables.clear()


def save(table: Table, where: Path) -> None:
    """Keeps a table in a folder, whole or not at all, where it is not there yet; where none can be written, nowhere."""
    path = where / f"{table.digest}.npz"
    with contextlib.suppress(OSError):
        if path.is_file() and read(table.digest, where, table.axes) is not None:
            return
        where.mkdir(parents=True, exist_ok=True)
        reading.sweep(where)
        with reading.whole_file(path) as beside, beside.open("wb") as file:
            np.savez(file, **_arrays(table))


def read(name: str, where: Path, axes: Sequence[Axis]) -> Table | None:
    """A table that was kept; None where there is none that can be read."""
    try:
        with np.load(io.BytesIO((where / f"{name}.npz").read_bytes()), allow_pickle=False) as file:
            return _table(name, {key: file[key] for key in file.files}, axes)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        return None


def _arrays(table: Table) -> dict[str, Any]:
    plans = []
    arrays: dict[str, Any] = {}
    for number, plan in enumerate(table.plans):
        families: list[list[Any]] = []
        for layers in plan.families.values():
            for name, surface in (("whole", layers.whole), ("line", layers.line)):
                if surface is not None:
                    place = f"{number}/{len(families)}/{name}"
                    arrays |= {f"{place}/{key}": array for key, array in surface.arrays().items()}
            families.append([layers.line is not None, layers.line_axes, layers.line_parts, layers.over is not None])
        arrays[f"{number}/errors"] = plan.errors
        arrays[f"{number}/kinds"] = np.array(list(plan.families), np.int64).reshape(len(families), len(plan.apart))
        plans.append([dict(plan.chosen), list(plan.apart), families, plan.room_B, plan.played])
    head = {
        "schema": SCHEMA,
        "digest": table.digest,
        "columns": COLUMNS,
        "axes": [_axis_data(axis) for axis in table.axes],
        "names": table.names,
        "tolerance": table.tolerance,
        "plans": plans,
    }
    text = json.dumps(head, sort_keys=True).encode()
    return {"head": np.frombuffer(text, np.uint8), **arrays}


def _table(name: str, arrays: Mapping[str, Any], axes: Sequence[Axis]) -> Table:
    head = json.loads(arrays["head"].tobytes())
    if (head["schema"], head["digest"], tuple(head["columns"])) != (SCHEMA, name, COLUMNS):
        raise ValueError("another table, or of another version")
    plans = []
    for number, (chosen, apart, families, room_B, played) in enumerate(head["plans"]):
        kinds = [tuple(kind) for kind in arrays[f"{number}/kinds"].tolist()]
        layers: list[Layers] = []
        for family, (has_line, line_axes, line_parts, over) in enumerate(families):
            surfaces = {"whole": None, **({"line": None} if has_line else {})}
            for which in surfaces:
                place = f"{number}/{family}/{which}/"
                its = {key.removeprefix(place): one for key, one in arrays.items() if key.startswith(place)}
                surfaces[which] = Surface.read(its)  # type: ignore[assignment]
            base = layers[0] if over else None
            layers.append(Layers(line_axes=tuple(line_axes), line_parts=tuple(line_parts), over=base, **surfaces))  # type: ignore[arg-type]
        its_families = dict(zip(kinds, layers, strict=True))
        plans.append(TabledPlan(chosen, tuple(apart), its_families, room_B, played, arrays[f"{number}/errors"]))
    return Table(tuple(axes), tuple(plans), tuple(head["names"]), head["tolerance"], name)
