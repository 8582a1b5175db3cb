"""What a file holds, whatever it is of: a model, a trace of a run, of requests, or of a cluster's jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmsim import jobs, reading, requests, traces
from cmsim.errors import CmsimError, InputError, Problem, did_you_mean
from cmsim.graphs.load import find_model, is_model, load_any, model_format
from cmsim.graphs.work import graph_info
from cmsim.reading.bytes_in import LIMIT_B, head, read_bytes
from cmsim.reading.formats import Importer, inside, sniffed
from cmsim.traces.info import trace_info
from cmsim.workload.model import ModelSpec, load_model, parse_model

#: folders of what is built in, beside models, which have names
_BUILT_IN = ("workloads/traces", "workloads/requests", "workloads/jobs", "")
#: endings of files that are models whatever their first bytes look like
_MODELS = (".onnx", ".mindir")


def describe(
    name: str | Path,
    *,
    format: str | None = None,
    sizes: Mapping[str, int] | None = None,
    ranks: int | None = None,
    limit_B: int = LIMIT_B,
) -> dict[str, Any]:
    """Facts about a file or folder, ready for JSON.

    name     a path, a built-in trace by its path below workloads/traces, or the name of a built-in model
    format   of a trace, where it should not be guessed    sizes: of dimensions that a model leaves open
    ranks    size of a job whose files do not say    limit_B: expanded size above which a file is refused [B]

    kind     graph, decoder, trace, requests, rates, jobs or nodes
    counts   of files that are not models: what the file holds in the words of its format (its own ``format`` first)
    trace    of a trace: `cmsim.traces.info.trace_info`; absent, with ``not_replayed``, where the file alone
             holds nothing to replay

    InputError: no such file, no known form, a damaged file.
    """
    path = find_file(name)
    if path is None:
        try:
            find_model(name)
        except InputError:
            known = "no such file or folder, and neither a trace nor a model of this name is built in"
            raise InputError(Problem(known, str(name))) from None
    kind = _kind(path, format) if path is not None else None
    if path is None or kind is None:
        return _model(name, sizes or {})
    about = {"file": str(path), "kind": kind}
    if kind == "requests":
        found = requests.open_requests(path, format=format, limit_B=limit_B)
        about["kind"] = "rates" if isinstance(found, requests.RateWindows) else "requests"
        return about | {"counts": found.counts(), "notes": list(found.notes)}
    if kind == "jobs":
        rows = jobs.open_jobs(path, format=format, limit_B=limit_B)
        about["kind"] = "nodes" if isinstance(rows, jobs.Nodes) else "jobs"
        return about | {"counts": rows.counts(), "notes": list(rows.notes)}
    opened = traces.open_trace(path, format=format, limit_B=limit_B)
    out = about | {"counts": opened.counts()}
    try:
        found_trace = trace_info(opened.trace(ranks=ranks))
    except InputError as error:
        return out | {"not_replayed": str(error)}
    return out | {"trace": found_trace, "notes": found_trace.pop("notes")}


def find_file(name: str | Path) -> Path | None:
    """A file or folder by its path, or built in; None where there is none."""
    return reading.locate(name, built_in=_BUILT_IN, folders=True)


def _kind(path: Path, format: str | None) -> str | None:
    """trace, requests, jobs; None for a model."""
    rooms: dict[str, Mapping[str, Importer[Any]]] = {
        "trace": traces.IMPORTERS,
        "requests": requests.IMPORTERS,
        "jobs": jobs.IMPORTERS,
    }
    if format is not None:
        for kind, known in rooms.items():
            if format in known:
                return kind
        raise InputError(f"no format named '{format}'. {did_you_mean(format, [n for k in rooms.values() for n in k])}")
    if path.suffix.lower() in _MODELS or (path.is_dir() and (path / "config.json").is_file()):
        return None
    # all at once: no room is asked with more of the file while another knows it by less
    found = sniffed(path, {name: one for known in rooms.values() for name, one in known.items()})
    if found is not None:
        return next(kind for kind, known in rooms.items() if found in known)
    if is_model(path):
        return None
    if not path.is_dir() and not head(path):
        read_bytes(path)  # says what is wrong with it
    formats = [name for known in rooms.values() for name in known]
    message = (
        "no known form: a model (ONNX, MindIR, or a JSON object with model_type or architectures) or one of "
        f"{', '.join(formats)}{inside(path)}"
    )
    raise InputError(Problem(message, str(path)))


def _model(name: str | Path, sizes: Mapping[str, int]) -> dict[str, Any]:
    path = find_model(name)
    given = dict(sizes)
    note = ""
    if model_format(path) == "config" and not given and _reads_text(path):
        given = {"sequence": load_model(path).max_positions}
        note = f"counted for {given['sequence']} tokens, all that fit; --dim sequence=... for another number"
    found = load_any(path, sizes=given)
    if isinstance(found, ModelSpec):
        return _decoder(found, path)
    told = graph_info(found)
    same = {key: told[key] for key in ("format", "nodes", "op_types")}
    if told["format"] == "onnx":
        same |= {
            "conv_gemm_macs": told["matrix_macs"],
            "conv_gemm_weight_elems": told["matrix_weights"],
            "conv_gemm_nodes_without_shape": told["nodes_without_shape"],
        }
    out = {"file": str(path), "kind": "graph", "counts": {**same, **found.counts}, **told}
    if note:
        out["notes"] = [*out["notes"], note]
    return out


def _reads_text(path: Path) -> bool:
    """Whether a config is of an encoder of texts, whose length it leaves open."""
    try:
        model = parse_model(reading.read_text(path), name=path.stem, file=str(path))
    except CmsimError:
        return False  # whoever reads it next says what is wrong
    return model.encoder and not model.patch_inputs


def _decoder(model: ModelSpec, path: Path) -> dict[str, Any]:
    """Of a decoder FLOPs are per token: the products of one forward pass, attention apart."""
    return {
        "file": str(path),
        "kind": "decoder",
        "name": model.name,
        "format": "config",
        "family": model.family,
        "layers": model.layers,
        "parameters": model.total_parameters,
        "active_parameters": model.active_parameters,
        "parameters_by_part": model.parameters,
        "flops_per_token": 2.0 * model.matmul_parameters,
        "training_flops_per_token_at_4096": model.training_flops_per_token(4096),
        "weight_bytes": 2.0 * model.total_parameters,
        "kv_bytes_per_token": model.kv_bytes_per_token(2.0),
        "notes": list(model.said),
    }
