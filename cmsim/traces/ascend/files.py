"""What the Ascend profilers write (of the frameworks, and msprof): single files, a rank's folder, folders of ranks.

A rank's folder (``..._ascend_pt``, ``..._ascend_ms``) holds ``profiler_info_<rank>.json`` and
``ASCEND_PROFILER_OUTPUT``. Tasks, streams, launches and communication ops with their sizes come from the timeline
(trace_view.json), shapes from kernel_details.csv, communicators from communication.json and communication_matrix.json,
the length of the step from step_trace_time.csv. Without a timeline, tasks and ops come from the tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmsim.reading.bytes_in import LIMIT_B, bad, head
from cmsim.reading.formats import not_used
from cmsim.traces.ascend import documents, tables
from cmsim.traces.ascend.comm import RankFiles
from cmsim.traces.ascend.database import MAGIC, Database, is_database, read_database
from cmsim.traces.ascend.documents import CommOp, LinkTraffic, Metadata, NamedGroup
from cmsim.traces.ascend.tables import Kernels, SummaryTable
from cmsim.traces.ascend.to_trace import assemble
from cmsim.traces.ascend.view import View, read_view
from cmsim.traces.recorded import Opened, Trace

OUTPUT = "ASCEND_PROFILER_OUTPUT"
#: files of a rank by the start of their names; the content decides what they are
_OF_RANK = (
    "trace_view.json",
    "kernel_details.csv",
    "op_summary",
    "communication.json",
    "communication_matrix.json",
    "step_trace_time.csv",
    "op_statistic",
    "api_statistic",
)
_TABLES = ("communication", "communication_matrix", "step_trace_time")
_OF_JOB = ("communication_group.json", "cluster_")
_ABOVE = ("profiler_info", "profiler_metadata.json")
_RANK_IN_NAME = re.compile(r"profiler_info_(\d{1,7})\.json")
#: the database of sums over what a rank's own holds
_SUMS = "analysis.db"


@dataclass
class AscendFile:
    """One file. ``kind`` is the end of its format's name ("trace_view", "kernel_details", ...)."""

    path: Path
    kind: str
    counted: dict[str, Any]
    view: View | None = None
    kernels: Kernels | None = None
    ops: Sequence[CommOp] = ()
    links: Sequence[LinkTraffic] = ()
    steps: SummaryTable | None = None
    rank: int | None = None
    metadata: Metadata | None = None
    groups: tuple[NamedGroup, ...] = ()
    database: Database | None = None

    def counts(self) -> dict[str, Any]:
        """What it holds, in the words of its format."""
        return dict(self.counted)

    def trace(self, *, ranks: int | None = None) -> Trace:
        """Of a timeline or a table of kernels. Raises InputError for the other files: they hold no tasks."""
        if self.view is None and self.kernels is None and self.database is None:
            raise bad(
                self.path,
                f"{self.kind} holds no device tasks to replay; open the rank's folder (with {OUTPUT} in it), "
                "trace_view.json or kernel_details.csv",
            )
        files = RankFiles(rank=0, label=str(self.path), view=self.view, kernels=self.kernels)
        _take_database(files, self.database)
        files.alg_types = self.view.summary["hcom_alg_types"] if self.view is not None else {}
        notes = ["one file of a rank: taken for rank 0, without what the other files of its folder say"]
        return assemble(str(self.path), [files], (), 0, ranks, notes)


@dataclass
class AscendFolder:
    """A rank's folder or a folder of several, and the side files of the job."""

    path: Path
    ranks: dict[int, list[AscendFile]]
    job: list[AscendFile]
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The ranks, and the counts of each file by its name from the folder on."""
        files = [file for files in self.ranks.values() for file in files] + self.job
        names = {_relative(file.path, self.path): file.counts() for file in files}
        return {"format": "ascend", "ranks": sorted(self.ranks), "files": dict(sorted(names.items()))}

    def trace(self, *, ranks: int | None = None) -> Trace:
        """Rows of each rank that is there. Raises InputError where none holds device tasks."""
        if not self.ranks:
            raise bad(self.path, f"holds no rank's files (looked for {', '.join(_OF_RANK[:3])} in {OUTPUT})")
        named, world = [group for file in self.job for group in file.groups], 0
        found = []
        for rank, files in sorted(self.ranks.items()):
            made = RankFiles(rank=rank, label=_relative(files[0].path.parent, self.path))
            for file in files:
                made.view = file.view or made.view
                if file.kernels is not None and (made.kernels is None or file.kind == "kernel_details"):
                    made.kernels = file.kernels
                made.ops, made.links = file.ops or made.ops, file.links or made.links
                made.steps = file.steps or made.steps
                _take_database(made, file.database)
                if file.metadata is not None:
                    named += file.metadata.groups
                    world = max(world, file.metadata.world_size)
            made.alg_types = made.view.summary["hcom_alg_types"] if made.view is not None else {}
            found.append(made)
        members = {rank for file in self.job for group in file.groups for rank in group.members}
        if not world and members == set(range(len(members))):
            world = len(members)
        return assemble(str(self.path), found, named, world, ranks, self.notes)


def _take_database(files: RankFiles, found: Database | None) -> None:
    if found is not None:
        files.kernels, files.comm, files.marked_steps = found.kernels, found.comm, found.steps


def _relative(path: Path, base: Path) -> str:
    try:
        return path.relative_to(base).as_posix()
    except ValueError:
        return f"../{path.name}"


# -- finding files -----------------------------------------------------------------------------------------

_EVENT = re.compile(rb'"ph"\s*:')
_TEXT_TIME = re.compile(rb'"ts"\s*:\s*"\d+(\.\d*)?"')
_PROCESS = re.compile(rb'"(Ascend Hardware|HCCL|Overlap Analysis|torch_to_npu|AscendCL@\w+)"')
_KEYS: tuple[tuple[bytes, ...], ...] = (
    (b'"Communication Time Info"',),
    (b'"Transport Type"', b'"Transit Size(MB)"'),
    (b'"ENV_VARIABLES"',),
    (b'"parallel_group_info"',),
    (b'"distributed_args"',),
    (b'"comm_group_parallel_info"',),
    (b'"config"', b'"experimental_config"'),
    (b'"config"', b'"common_config"'),
    (b'"config"', b'"rank_id"'),
)
_GROUPS = re.compile(rb'\s*\{\s*"(collective|p2p)"\s*:\s*\[')
_STEP = re.compile(rb'\s*\{\s*"step\d*"\s*:\s*\{\s*"(collective|p2p)"\s*:')


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file or folder is one of these; ``start`` holds the first bytes of a file, expanded."""
    if not start and path.is_dir():
        return bool(_rank_folders(path)[0])
    if start.startswith(MAGIC):
        return is_database(path)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return _EVENT.search(text) is not None and (
            _TEXT_TIME.search(text) is not None or _PROCESS.search(text) is not None
        )
    if text.startswith(b"{"):
        return (
            any(all(key in text for key in keys) for keys in _KEYS)
            or _GROUPS.match(text) is not None
            or _STEP.match(text) is not None
        )
    return bool(_csv_kind(text))


def _csv_kind(text: bytes) -> str:
    """Which table a header line is of, "" for none."""
    line = text[:4096].splitlines()[0] if text.strip() else b""
    names = {name.strip().strip('"') for name in line.decode("utf-8", "replace").split(",")}
    if {"Accelerator Core", "Duration(us)"} <= names:
        return "kernel_details"
    if {"Op Name", "OP Type", "Task Duration(us)"} <= names:
        return "op_summary"
    if {"Step", "Computing", "Free"} <= names:
        return "cluster_step_trace_time" if {"Type", "Index"} <= names else "step_trace_time"
    if {"OP Type", "Core Type", "Count"} <= names:
        return "op_statistic"
    return "api_statistic" if {"API Name", "Level", "Count"} <= names else ""


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Opened:
    """A file or folder, parsed. Raises InputError.

    limit_B  largest expanded size of a file [B]
    """
    path = Path(path)
    return _open_folder(path, limit_B) if path.is_dir() else _open_file(path, limit_B)


def _open_file(path: Path, limit_B: int) -> AscendFile:
    if head(path).startswith(MAGIC):
        found = read_database(path, limit_B=limit_B)
        return AscendFile(path, "database", found.counted, rank=found.rank, metadata=found.metadata, database=found)
    start = head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        view = read_view(path, limit_B=limit_B)
        return AscendFile(path, "trace_view", view.counts(), view=view)
    if not start or start.startswith(b"{"):  # what cannot be read says so there
        return _open_json(path, limit_B)
    kind = _csv_kind(start)
    if kind in ("kernel_details", "op_summary"):
        kernels = tables.read_kernels(path, limit_B=limit_B)
        return AscendFile(path, kind, kernels.counts(), kernels=kernels)
    if kind in ("step_trace_time", "cluster_step_trace_time"):
        table = tables.read_steps(path, limit_B=limit_B)
        columns = [table.columns[name] for name in table.header]
        lines = [dict(zip(table.header, row, strict=True)) for row in zip(*columns, strict=True)]
        counted = {"format": f"ascend-{kind}", "rows": lines}
        return AscendFile(path, kind, counted, steps=table if kind == "step_trace_time" else None)
    if kind:
        table = tables.read_statistic(path, limit_B=limit_B)
        return AscendFile(path, kind, {"format": f"ascend-{kind}", "header": list(table.header), "rows": len(table)})
    raise bad(
        path,
        "none of the profiler's files: expected a list of events, an object of communication ops or groups, or a "
        f"table with the columns of kernel_details.csv, got {start[:40]!r}",
    )


def _open_json(path: Path, limit_B: int) -> AscendFile:
    document = documents.load(path, limit_B=limit_B)
    # of some versions these two say next to nothing: their names do
    named = next((stem.removesuffix(".json") for stem in _ABOVE if path.name.startswith(stem)), "")
    kind = documents.kind_of(document) or named
    if kind == "communication":
        ops, counted = documents.read_communication(path, document)
        return AscendFile(path, kind, counted, ops=ops)
    if kind == "communication_matrix":
        links, counted = documents.read_matrix(path, document)
        return AscendFile(path, kind, counted, links=links)
    counted = {"format": f"ascend-{kind}", "top_level_keys": list(document)}
    if kind == "profiler_info":
        return AscendFile(path, kind, counted, rank=documents.read_rank(path, document))
    if kind == "profiler_metadata":
        metadata = documents.read_metadata(path, document)
        return AscendFile(path, kind, counted, rank=metadata.rank, metadata=metadata)
    if kind == "communication_group":
        return AscendFile(path, kind, counted, groups=documents.read_groups(path, document))
    if kind:
        return AscendFile(path, kind, counted)
    keys = ", ".join(repr(key)[:40] for key in list(document)[:5])
    raise bad(path, f"an object that is none of the profiler's files (its keys: {keys or 'none'})")


def _inside(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise bad(path, f"cannot be read ({error.strerror or error})") from None


def _databases(folder: Path) -> list[Path]:
    """Databases of a folder: those of ranks before the one of their sums."""
    found = [one for one in _inside(folder) if one.suffix == ".db" and one.is_file()]
    return sorted(found, key=lambda one: (one.name == _SUMS, one.name))


def _of_rank(folder: Path) -> list[Path]:
    """Files of a rank: as text, else the first database that has its tasks."""
    texts = _named(folder, _OF_RANK)
    return texts or [one for one in _databases(folder) if is_database(one)][:1]


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    """Files of a folder whose names start so, up to their endings (a number or .gz may follow)."""
    out = []
    for entry in _inside(folder):
        plain = entry.name.removesuffix(".gz")
        known = any(plain == name or ("." not in name and plain.startswith(name)) for name in names)
        if known and plain.endswith((".json", ".csv")) and entry.is_file():
            out.append(entry)
    return out


def _rank_folders(path: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """(folder with profiler_info, folder with the output) of each rank, and folders with files of the job."""
    if not path.is_dir():
        return [], []
    if _of_rank(path):
        return [(path.parent if path.name == OUTPUT else path, path)], [path]
    if (path / OUTPUT).is_dir():
        return [(path, path / OUTPUT)], [path, path / OUTPUT]
    ranks, job = [], [path] if _named(path, _OF_JOB) else []
    for below in [entry for entry in _inside(path) if entry.is_dir()]:
        if (below / OUTPUT).is_dir():
            ranks.append((below, below / OUTPUT))
        elif _named(below, _OF_JOB):
            job.append(below)
        elif _of_rank(below):
            ranks.append((below, below))
        else:
            ranks += [(deeper, deeper / OUTPUT) for deeper in _inside(below) if (deeper / OUTPUT).is_dir()]
    return ranks or [(folder, folder) for folder in job[:1]], job


def _open_folder(path: Path, limit_B: int) -> AscendFolder:
    folders, job_folders = _rank_folders(path)
    if not folders:
        raise bad(path, f"holds no {OUTPUT}, no database, nor any of {', '.join(_OF_RANK)}, nor folders that do")
    ranks: dict[int, list[AscendFile]] = {}
    at: dict[int, Path] = {}
    notes: list[str] = []
    unread: list[Path] = []
    for above, output in folders:
        found = _of_rank(output)
        if not found:
            if output in job_folders:
                continue
            raise bad(output, f"holds none of {', '.join(_OF_RANK)}, and no database of the profiler")
        left = [one for one in _databases(output) if one not in found]
        notes += not_used(left, f"databases beside {found[0].name}, which holds the tasks")
        unread += [one for one in _inside(output) if one not in (*found, *left, *_named(output, (*_ABOVE, *_OF_JOB)))]
        files = [_open_file(file, limit_B) for file in found]
        _once(output, files)
        side = [_open_file(file, limit_B) for file in _named(above, _ABOVE)]
        rank = _rank_of(above, [*side, *files], alone=len(folders) == 1, notes=notes)
        if rank in ranks:
            raise bad(path, f"rank {rank} is there twice: {_relative(at[rank], path)} and {_relative(above, path)}")
        ranks[rank], at[rank] = [*files, *side], above
    notes += not_used([one for one in unread if one.is_file()], "other tables of the profiler")
    job = [_open_file(file, limit_B) for folder in dict.fromkeys(job_folders) for file in _named(folder, _OF_JOB)]
    return AscendFolder(path, ranks, job, notes)


def _once(folder: Path, files: Sequence[AscendFile]) -> None:
    for kind in ("trace_view", "kernel_details", "op_summary", *_TABLES):
        same = [file.path.name for file in files if file.kind == kind]
        if len(same) > 1:
            raise bad(folder, f"several files of {kind} ({', '.join(same)}); keep one")


def _rank_of(above: Path, side: Sequence[AscendFile], *, alone: bool, notes: list[str]) -> int:
    infos = [file for file in side if file.kind == "profiler_info"]
    if len(infos) > 1:
        raise bad(above, f"several profiler_info files ({', '.join(file.path.name for file in infos)}); keep one")
    for file in (*infos, *(file for file in side if file.kind != "profiler_info")):
        if file.rank is not None:
            return file.rank
    named = {int(found[1]) for file in infos if (found := _RANK_IN_NAME.search(file.path.name))}
    if len(named) == 1:
        return named.pop()
    if not alone:
        looked = "profiler_info_<rank>.json with a rank_id, profiler_metadata.json with distributed_args"
        raise bad(above, f"nothing says which rank this is (looked for {looked})")
    notes.append("no file says which rank this is: taken for rank 0")
    return 0
