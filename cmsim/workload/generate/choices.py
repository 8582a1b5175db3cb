"""Which sizes a workload can be split by on a system, where a scenario leaves one open."""

from __future__ import annotations

import math
from pathlib import Path

from cmsim.graphs.config import NETS, family_of
from cmsim.graphs.load import find_model, model_format
from cmsim.hardware import System
from cmsim.kinds.diffusion import DiffusionSpec
from cmsim.kinds.encoder import EncoderSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.reading import read_text
from cmsim.workload.denoiser import load_denoiser
from cmsim.workload.model import ModelSpec, load_model
from cmsim.workload.moe import divisors


def sizes(key: str, spec: object, system: System, *, base: Path | None = None) -> list[int]:
    """Values of ``parallel.tp``, ``cp``, ``pp``, ``dp`` or ``ep`` that ranks and model allow by themselves, smallest
    first. Together with the other sizes some may still be impossible.

    tp divides the heads, pp is at most the layers, cp divides the sequence of a training step, ep is 1 without experts;
    all of them divide the ranks.
    """
    size = key.removeprefix("parallel.")
    every = divisors(getattr(spec, "ranks", None) or system.ranks)
    if size == "dp":
        return every
    if isinstance(spec, DiffusionSpec):
        heads = load_denoiser(spec.model, base=base).heads
        return [one for one in every if heads % one == 0] if size == "cp" else [1]
    model = _model(spec, base)
    if model is None:
        return [1]  # a graph runs data parallel
    if size == "tp":
        return [one for one in every if model.heads % one == 0]
    if size == "pp":
        return [one for one in every if one <= model.layers]
    if size == "cp":
        return divisors(math.gcd(every[-1], spec.sequence_length)) if isinstance(spec, TrainingSpec) else every
    return every if model.experts else [1]


def is_decoder(spec: object, base: Path | None = None) -> bool:
    """Whether a workload is of a model of text that is laid out layer by layer, and not of a graph."""
    return _model(spec, base) is not None


def _is_graph(path: Path) -> bool:
    return model_format(path) != "config" or family_of(read_text(path)) in NETS


def _model(spec: object, base: Path | None) -> ModelSpec | None:
    """The decoder that a workload runs; None where it runs a graph."""
    name = str(getattr(spec, "model", ""))
    if isinstance(spec, EncoderSpec | DiffusionSpec) or not name:
        return None
    if isinstance(spec, TrainingSpec) and _is_graph(find_model(name, base=base)):
        return None
    model = load_model(name, base=base)
    return None if model.encoder else model
