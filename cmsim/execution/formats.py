"""Number formats that an accelerator has no peak of: refused where it would compute in them, noted where it stores."""

from __future__ import annotations

from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import AcceleratorSpec
from cmsim.kinds.parts import PrecisionSpec, WorkloadSpec
from cmsim.workload.generate.recipes import recipes_in

#: what is only stored and moved in a format of its own
_STORED = {
    "kv_cache": "keys and values of the cache",
    "weights": "weights",
    "activations": "activations",
    "gradients": "gradients",
}


def check(spec: WorkloadSpec, accelerator: AcceleratorSpec) -> None:
    """Raises InfeasibleError, at the key, for a format that is computed in and that the accelerator has no peak of."""
    precision = _said(spec)
    peaks = list(accelerator.peak_TFLOPps)
    asked = {"attention": precision.attention}
    problems = []
    if (recipe := getattr(precision, "recipe", None)) is None:
        if precision.weights == precision.activations:
            asked["weights"] = precision.weights
    elif recipe not in (known := [name for name in recipes_in(peaks) if name not in accelerator.lacks]):
        allowed = f"Allowed: {', '.join(known)}." if known else "It has none."
        said = f"got {recipe}, whose products the {accelerator.name} does not compute. {allowed}"
        problems.append(Problem(said, key="precision.recipe"))
    problems += [
        Problem(
            f"got {format_}, in which the {accelerator.name} does not compute. Allowed: {', '.join(sorted(peaks))}.",
            key=f"precision.{key}",
        )
        for key, format_ in asked.items()
        if format_ not in peaks and key in precision.model_fields_set
    ]
    if problems:
        raise InfeasibleError(problems)


def notes(spec: WorkloadSpec, accelerator: AcceleratorSpec) -> tuple[str, ...]:
    """Of each format that is only stored, one that the accelerator does not compute in."""
    precision = _said(spec)
    return tuple(
        f"{what} in {format_} are only stored and moved so: the {accelerator.name} computes in wider formats, and what "
        "it takes to widen them is left out"
        for key, what in _STORED.items()
        if key in precision.model_fields_set and (format_ := getattr(precision, key)) not in accelerator.peak_TFLOPps
    )


def _said(spec: WorkloadSpec) -> PrecisionSpec:
    found = getattr(spec, "precision", None)
    return found if isinstance(found, PrecisionSpec) else PrecisionSpec()
