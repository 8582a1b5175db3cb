"""Number formats of a run of a model whose file says in which ones its weights are stored."""

from __future__ import annotations

from typing import TypeVar

from cmsim.hardware import System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.model import ModelSpec

Asked = TypeVar("Asked", PrefillSpec, DecodeSpec)

#: activations where the silicon has not the format that the file names
_PLAIN = "bf16"


def as_stored(spec: Asked, model: ModelSpec, system: System) -> tuple[Asked, tuple[str, ...]]:
    """A prefill or decode with the formats of the file where the scenario writes none, and what to say of it.

    Each key of ``precision`` that the scenario writes wins.
    """
    stored, written = model.stored, _written(spec)
    if stored is None or "weights" in written:
        return spec, ()
    wanted = {"weights": stored.weights, "activations": stored.activations}
    if stored.kv_cache:
        wanted["kv_cache"] = stored.kv_cache
    lacking = ""
    apart = bool(stored.partly and model.experts)
    if apart:
        # what files leave in 16 bits of mixtures is attention
        wanted |= {"weights": _PLAIN, "activations": _PLAIN}
        wanted |= {"experts": stored.weights, "expert_activations": stored.activations}
    if wanted.get("expert_activations", _PLAIN) not in system.accelerator.peak_TFLOPps:
        lacking = f"; {system.accelerator.name} has no {stored.activations}, and multiplies in {_PLAIN}"
        wanted["expert_activations"] = _PLAIN
    if wanted["activations"] not in system.accelerator.peak_TFLOPps:
        lacking = f"; {system.accelerator.name} has no {wanted['activations']}, and multiplies in {_PLAIN}"
        wanted["activations"] = _PLAIN
    new = {key: value for key, value in wanted.items() if key not in written}
    formats = ", ".join(f"{key} {value}" for key, value in new.items())
    said = f"no precision.weights in the scenario: {formats}, as the model's quantization_config has it ({stored.said})"
    if stored.partly and not apart:
        lacking += "; layers that it leaves in 16 bits are priced as the others"
    precision = spec.precision.model_copy(update=new)
    return spec.model_copy(update={"precision": precision}), (said + lacking,)


def trained_as(spec: TrainingSpec, model: ModelSpec) -> tuple[str, ...]:
    """What to say of a training run: it makes weights, and how stored ones are kept is no choice of its formats."""
    if model.stored is None or "weights" in _written(spec):
        return ()
    return (
        f"no precision.weights in the scenario: {spec.precision.weights}; the model's quantization_config "
        f"({model.stored.said}) is of weights that are stored, and training is priced without it",
    )


def _written(spec: PrefillSpec | DecodeSpec | TrainingSpec) -> set[str]:
    """Keys of ``precision`` that the scenario writes."""
    return spec.precision.model_fields_set if "precision" in spec.model_fields_set else set()
