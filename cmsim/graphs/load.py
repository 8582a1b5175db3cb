"""A model by name or path, whatever it is: ONNX, MindIR, or a ``config.json``. Told by content, not by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cmsim import reading
from cmsim.errors import CmsimError, InputError, Problem, did_you_mean
from cmsim.graphs.config import NETS, family_of, parse_config
from cmsim.graphs.graph import Graph
from cmsim.graphs.work import graph_info
from cmsim.reading.bytes_in import bad, head
from cmsim.workload.model import MODELS, ModelSpec, parse_model

#: folder of built-in models that are graphs and no transformers
GRAPHS = "workloads/graphs"
#: keys of which a config of a model has one
_SAY_MODEL = ("model_type", "architectures")
_ENDINGS = {".onnx": "onnx", ".mindir": "mindir", ".json": "config"}


def find_model(name_or_path: str | Path, *, base: Path | None = None) -> Path:
    """File of a model: a built-in name, or a path (of a folder, its ``config.json``)."""
    name = str(name_or_path)
    built_in = {**reading.builtin_files(MODELS, "*.json"), **reading.builtin_files(GRAPHS, "*.json")}
    if name in built_in:
        return built_in[name]
    for path in (Path(name) / "config.json", Path(name)):
        found = reading.locate(path, base=base, built_in=("", "workloads/traces"))
        if found is not None:
            return found
    if "/" in name or "\\" in name or Path(name).suffix in _ENDINGS:
        raise InputError(f"no such model file: {name}")
    raise InputError(f"no model named '{name}'. {did_you_mean(name, built_in)}")


def model_format(path: Path) -> str:
    """``onnx``, ``mindir`` or ``config``.

    Both protobuf forms open with their first field: in ONNX a number (0x08), in MindIR a text (0x0a) of few letters.
    A damaged start is told by the name's ending. Raises InputError for what is neither.
    """
    start = head(path, 64)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return "config"
    if start[:1] == b"\x08":
        return "onnx"
    if start[:1] == b"\x0a" and len(start) > 2 and start[1] < 32 and start[2 : 2 + start[1]].isascii():
        return "mindir"
    ending = _ENDINGS.get(path.suffix.lower())
    if ending is None:
        raise bad(path, "is no model that cmsim reads: an ONNX or MindIR file, or a config.json")
    return ending


def is_model(path: Path) -> bool:
    """Whether a file is a model: ONNX, MindIR, or a JSON object that says what it is of (other JSON is none)."""
    try:
        if model_format(path) != "config":
            return True
        found = json.loads(reading.read_text(path))
    except (CmsimError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not found.keys().isdisjoint(_SAY_MODEL)


def load_any(
    name_or_path: str | Path,
    *,
    base: Path | None = None,
    sizes: Mapping[str, int] | None = None,
    trained: bool = False,
) -> Graph | ModelSpec:
    """A graph, or the sizes of a decoder.

    sizes: of dimensions that the file leaves open, by name    trained: of a config, with what only training has
    """
    path = find_model(name_or_path, base=base)
    form = model_format(path)
    if form == "onnx":
        from cmsim.graphs.onnx_file import read_onnx

        return read_onnx(path, sizes=sizes)
    if form == "mindir":
        from cmsim.graphs.mindir_file import read_mindir

        if sizes:
            raise InputError(Problem("a MindIR file fixes all sizes", str(path), key="dims"))
        return read_mindir(path)
    name = path.parent.resolve().name if path.name == "config.json" else path.stem
    return parse_config(reading.read_text(path), name=name, file=str(path), sizes=sizes, trained=trained)


def parameters_of(name_or_path: str | Path, *, base: Path | None = None) -> int:
    """Parameters of a model of any kind, told without the sizes that its file leaves open."""
    path = find_model(name_or_path, base=base)
    if model_format(path) == "config":
        text = reading.read_text(path)
        if family_of(text) not in NETS:
            return parse_model(text, name=path.stem, file=str(path)).total_parameters
    return int(graph_info(load_graph(path))["parameters"])


def load_graph(name_or_path: str | Path, *, base: Path | None = None, sizes: Mapping[str, int] | None = None) -> Graph:
    """A graph. Raises InputError for a decoder, which is no graph here."""
    found = load_any(name_or_path, base=base, sizes=sizes)
    if isinstance(found, ModelSpec):
        raise InputError(
            Problem(
                f"{found.name} is a decoder ({found.family}): run it with kind training, prefill or decode", key="model"
            )
        )
    return found
