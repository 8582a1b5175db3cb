"""A Chakra job: the files of its ranks, and who is in which communicator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cmsim.reading.bytes_in import HEADS_B, LIMIT_B, bad, folder_heads, known, read_bytes
from cmsim.reading.formats import not_used
from cmsim.traces.chakra.file import ChakraFile, looks_like_chakra, looks_like_json, read_chakra

_RANK_FILE = re.compile(r"^(?P<prefix>.*)\.(?P<rank>\d{1,9})\.(et|json)(\.gz)?$")


@dataclass(frozen=True)
class ChakraJob:
    """Files by rank (ascending), and communicators by name from the side file (sorted ranks)."""

    files: Mapping[int, ChakraFile]
    groups: Mapping[str, tuple[int, ...]]
    source: str
    notes: tuple[str, ...] = ()


def read_job(
    source: Path | str | Sequence[Path | str], *, groups: Path | str | None = None, limit_B: int = LIMIT_B
) -> ChakraJob:
    """Read ``<prefix>.<rank>.et[.gz]`` files: a folder, one file, or a list of files.

    groups   side file ``{"name": [ranks]}``; without it, the one group file of the folder, where there is one
    limit_B  expanded size above which a file is refused [B]

    A single file without a rank in its name is rank 0. Raises InputError.
    """
    paths, beside, label = _candidates(source)
    by_rank = _by_rank(paths, label)
    notes: list[str] = []
    if isinstance(source, Path | str) and Path(source).is_dir():
        notes += not_used(set(Path(source).iterdir()) - {*paths, *beside}, "no trace of Chakra, no communicators")
    if groups is None and len(beside) > 1:
        names = ", ".join(path.name for path in beside)
        raise bad(label, f"several group files ({names}); say which one with groups=")
    side = Path(groups) if groups is not None else (beside[0] if beside else None)
    table = read_groups(side) if side is not None else {}
    if side is not None:
        notes.append(f"{len(table)} communicators read from {side.name}")
    files = {rank: read_chakra(path, limit_B=limit_B) for rank, path in sorted(by_rank.items())}
    return ChakraJob(files=files, groups=table, source=label, notes=tuple(notes))


def _candidates(source: Path | str | Sequence[Path | str]) -> tuple[list[Path], list[Path], str]:
    """Trace files, group files beside them, and a name for errors."""
    if not isinstance(source, Path | str):
        paths = [Path(path) for path in source]
        if not paths:
            raise bad("(no files)", "a trace needs at least one file")
        return paths, [], str(paths[0].parent)
    path = Path(source)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        traces = [p for p in inside if _RANK_FILE.match(p.name) or p.name.endswith((".et", ".et.gz"))]
        beside = [p for p in inside if p not in traces and p.suffix == ".json" and known(p, looks_like_groups)]
        if not traces:
            raise bad(path, "holds no files named <prefix>.<rank>.et or .json (gzipped or not)")
        return traces, beside, str(path)
    if not path.exists():
        raise bad(path, "no such file or folder")
    return [path], [], str(path)


def _by_rank(paths: Sequence[Path], label: str) -> dict[int, Path]:
    """Files by rank: the number in the name, compared as a number ("10" comes after "9")."""
    if len(paths) == 1 and not _RANK_FILE.match(paths[0].name):
        return {0: paths[0]}
    out: dict[int, Path] = {}
    prefixes: set[str] = set()
    for path in paths:
        match = _RANK_FILE.match(path.name)
        if not match:
            raise bad(path, "its name does not say its rank; expected <prefix>.<rank>.et or .json (gzipped or not)")
        rank = int(match["rank"])
        prefixes.add(match["prefix"])
        if len(prefixes) > 1:
            raise bad(label, f"files of several jobs ({', '.join(sorted(prefixes))}); give the files of one")
        if rank in out:
            raise bad(path, f"rank {rank} is there twice, the other file is {out[rank].name}")
        out[rank] = path
    return out


def looks_like_groups(start: bytes) -> bool:
    """The first bytes of ``{"1": [0, 1], ...}``.

    >>> looks_like_groups(b'{"1": [0, 1]}'), looks_like_groups(b'{"workload_graph": []}')
    (True, False)
    """
    return re.match(rb'\s*\{\s*("[^"]*"\s*:\s*\[\s*\d|\})', start) is not None


def read_groups(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Communicators of a side file ``{"name": [rank, ...]}``, ranks sorted. Raises InputError."""
    path = Path(path)
    data = read_bytes(path)
    try:
        table: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad(path, f"not valid JSON ({error.msg})", byte=error.pos) from None
    if not isinstance(table, dict):
        raise bad(path, 'not a group file: expected {"name": [ranks]}')
    for name, ranks in table.items():
        if not isinstance(ranks, list) or not all(type(r) is int and r >= 0 for r in ranks):
            raise bad(path, f"not a group file: '{name}' should be a list of ranks")
        if not ranks or len(set(ranks)) != len(ranks):
            raise bad(path, f"group '{name}' {'names a rank twice' if ranks else 'has no ranks'}")
    return {str(name): tuple(sorted(ranks)) for name, ranks in table.items()}


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file or folder is a Chakra trace, or the communicators of one; ``start``: the first bytes, expanded."""
    if path.is_dir():
        return holds(path)
    if path.name.endswith((".et", ".et.gz")):
        return not looks_like_json(start) or b"workload_graph" in start
    return looks_like_groups(start) or looks_like_chakra(start)


def holds(path: Path, size_B: int = HEADS_B[0]) -> bool:
    """Whether a folder is a Chakra job by the names of its files, or so many first bytes of them."""
    files = sorted(p for p in path.iterdir() if p.is_file() and _RANK_FILE.match(p.name))[:4]
    return any(p.name.endswith((".et", ".et.gz")) for p in files) or any(
        map(looks_like_chakra, folder_heads(files, size_B))
    )
