"""What the page asks, field by field, and the scenario that its answers are.

Names of systems and models are those of data files, and words those of the schema. What no field has is written as more
keys, a line each, so that any scenario can be asked: what is wrong in it the schema says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from cmsim import kinds, reading
from cmsim.errors import InputError, Problem
from cmsim.kinds.parts import Precision
from cmsim.scenario import Scenario
from cmsim.steps import between

#: kinds that the page asks, and how it calls them
KINDS: Mapping[str, str] = {
    "decode": "decode: a step",
    "prefill": "prefill: a batch",
    "serving": "serving",
}
#: what a service is loaded with, by the process of its arrivals
LOADS: Mapping[str, str] = {"poisson": "a rate", "closed": "users"}
_MORE = "more keys"
#: fields that are no keys of a workload, or have a place of their own
_OWN = ("systems", "model", "kind", "process", "more")
_FORMATS = ("precision.weights", "precision.activations")


@dataclass(frozen=True)
class FormField:
    """A field of the form.

    name    of the value; a dotted key of the workload, or a name of the page's own
    look    checks: any of the values; choice: one of them; slider: one, in order; text: what is typed
    only    the process of arrivals that it is for    unit  behind a value
    """

    name: str
    label: str
    look: str
    values: tuple[Any, ...] = ()
    group: str = "Plan"
    unit: str = ""
    only: str = ""

    def shown(self) -> list[str]:
        """Its values as they are read."""
        return [f"{_said(value)} {self.unit}".strip() for value in self.values]


def _said(value: Any) -> str:
    if value is None:
        return "shared out"
    if isinstance(value, str):
        return KINDS.get(value) or LOADS.get(value) or value
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def systems() -> tuple[str, ...]:
    """Those that are built in."""
    return tuple(reading.builtin_files("topologies"))


def models() -> tuple[str, ...]:
    """Those that are built in."""
    return tuple(reading.builtin_files("workloads/models", "*.json"))


def _parts() -> tuple[Any, ...]:
    """Parts of an accelerator's batch: halves down to an eighth, then whole ones."""
    return (1 / 8, 1 / 4, 1 / 2, *between(1, 512))


def _steps(low: int, high: int, of: float = 1.0) -> tuple[float, ...]:
    """1, 1.5, 2, 3, 5 and 7 of each power of ten from one to another."""
    return tuple(
        float(f"{digit * of:g}e{power}") for power in range(low, high) for digit in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    )


def fields(kind: str) -> tuple[FormField, ...]:
    """Those of a kind, in the order in which they stand."""
    asked = (
        FormField("systems", "Systems", "checks", systems(), "Question"),
        FormField("model", "Model", "choice", models(), "Question"),
        FormField("kind", "Workload", "choice", tuple(KINDS), "Question"),
    )
    powers = tuple(1 << n for n in range(10))
    plan = (
        FormField("parallel.tp", "Tensor parallel", "slider", powers[:8]),
        FormField("parallel.ep", "Expert parallel", "choice", (*powers, "max")),
        FormField("parallel.attention", "Attention", "choice", ("tp", "dp")),
        FormField("microbatches", "Micro-batches", "choice", (1, 2, "best")),
        FormField("formats", "Weights and activations", "choice", get_args(Precision)),
        FormField("precision.kv_cache", "Cache", "choice", get_args(Precision)),
        FormField("more", "More keys", "text"),
    )
    tokens = tuple(between(256, 32_768))
    if kind == "serving":
        machine = (
            FormField("accelerators", "Accelerators of a replica", "slider", (None, *between(1, 512))),
            FormField("replicas", "Replicas", "slider", tuple(between(1, 64))),
        )
        load = (
            FormField("process", "Load", "choice", tuple(LOADS), "Load"),
            FormField("arrivals.rate_per_s", "Rate", "slider", _steps(-1, 4), "Load", "requests/s", "poisson"),
            FormField(
                "arrivals.concurrency", "Concurrency", "slider", tuple(between(1, 4096)), "Load", "users", "closed"
            ),
            FormField("lengths.prompt_tokens", "Prompt", "slider", tokens, "Load", "tokens"),
            FormField("lengths.output_tokens", "Answer", "slider", tuple(between(16, 4096)), "Load", "tokens"),
            FormField("slo.ttft_s", "First token promised within", "slider", _steps(-2, 2), "Load", "s"),
            FormField("slo.tpot_s", "Each token promised within", "slider", _steps(-3, 0), "Load", "s"),
        )
        return (*asked, *load, *machine, *plan)
    things, length = ("sequences", "context_tokens") if kind == "decode" else ("prompts", "prompt_tokens")
    words = {"context_tokens": "Context", "prompt_tokens": "Prompt"}
    batch = (
        FormField("batch_per_accelerator", "Batch per accelerator", "slider", _parts(), "Load", things),
        FormField(length, words[length], "slider", tokens, "Load", "tokens"),
    )
    return (*asked, *batch, *plan)


#: what another kind takes over that nobody has filled in
_PLAN = ("parallel.tp", "parallel.ep", "parallel.attention", "formats", "precision.kv_cache")
#: what a kind begins with where the scenario that the page starts from has none of it
_USUAL: Mapping[str, Any] = {
    "batch_per_accelerator": 4,
    "context_tokens": 4096,
    "prompt_tokens": 4096,
    "parallel.tp": 8,
    "parallel.ep": "max",
    "parallel.attention": "tp",
    "microbatches": 1,
    "formats": "fp8",
    "precision.kv_cache": "bf16",
    "more": "",
    "process": "poisson",
    "arrivals.rate_per_s": 1.0,
    "arrivals.concurrency": 32,
    "lengths.prompt_tokens": 2048,
    "lengths.output_tokens": 256,
    "slo.ttft_s": 2.0,
    "slo.tpot_s": 0.05,
    "replicas": 1,
}


@dataclass
class FilledForm:
    """What one person has filled in: values of the kind that is shown, and of others as they were left."""

    systems: tuple[str, ...]
    model: str
    kind: str
    of: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of_scenario(cls, start: Scenario) -> FilledForm:
        """As a scenario has it: its systems, and its first workload of each kind that the page asks; not its sweep.

        Raises InputError for a scenario without such a workload, and for systems that are more than a name.
        """
        data = start.data
        if named := [one for one in data["systems"] if not isinstance(one, str)]:
            raise InputError(Problem(f"the page starts from names of systems, got {named[0]!r}", start.file, key="ui"))
        made = cls(tuple(data["systems"]), "", "")
        for raw in data["workloads"].values():
            kind = raw["kind"]
            if kind in KINDS and kind not in made.of and _has_load(raw):
                made.of[kind] = _values(kind, raw)
                made.model, made.kind = made.model or str(raw["model"]), made.kind or kind
        if not made.kind:
            asks = f"{', '.join(KINDS)} (arrivals {' or '.join(LOADS)}, a number of them)"
            raise InputError(Problem(f"the page asks {asks}; there is none here", start.file, key="ui"))
        if "decode" in made.of:
            made.kind = "decode"
        return made

    @property
    def fields(self) -> tuple[FormField, ...]:
        """What is asked now, what the other load is for left out; values that the form lacks beside its own."""
        values = self.values
        shown = [one for one in fields(self.kind) if one.only in ("", values.get("process"))]
        return tuple(_with(one, values[one.name]) for one in shown)

    @property
    def values(self) -> dict[str, Any]:
        """By name of the field."""
        mine = self.of.setdefault(self.kind, {})
        usual = {one.name: _USUAL.get(one.name) for one in fields(self.kind)}
        return {**usual, **mine, "systems": list(self.systems), "model": self.model, "kind": self.kind}

    def change(self, values: Mapping[str, Any]) -> None:
        """What somebody filled in. Names that are no field are passed over, whoever sends them; values are checked by
        the schema, with all else."""
        known = {one.name for one in fields(self.kind)}
        said = {name: value for name, value in values.items() if name in known}
        if isinstance(chosen := said.pop("systems", None), list):
            self.systems = tuple(str(one) for one in chosen)
        self.model = str(said.pop("model", self.model))
        kind = said.pop("kind", self.kind)
        mine = self.of.setdefault(self.kind, {})
        mine.update(said)
        if kind in KINDS:
            self.of.setdefault(kind, {name: mine[name] for name in _PLAN if name in mine})
            self.kind = str(kind)

    def scenario(self) -> dict[str, Any]:
        """The scenario that is asked, as data. Raises InputError for more keys that are none."""
        values = self.values
        workload: dict[str, Any] = {"kind": self.kind, "model": self.model}
        for one in self.fields:
            if one.name in _OWN or values[one.name] is None:
                continue
            for key in _FORMATS if one.name == "formats" else (one.name,):
                _put(workload, key, values[one.name])
        if self.kind == "serving":
            # how many requests there are follows the load: a fixed number of them would be fewer than many users
            workload["arrivals"] = {"process": values["process"], **workload.get("arrivals", {})}
            workload["sensitivity"] = False
        data = {"name": "What if", "schema_version": 1, "systems": list(self.systems), "workload": workload}
        for key, value in _more(values["more"]).items():
            reading.set_dotted(data, key, value, where=_MORE)
        if isinstance(apart := workload.get("per_system"), dict):  # of a system that is not chosen there is none
            workload["per_system"] = {name: keys for name, keys in apart.items() if name in self.systems}
        return data


def _with(one: FormField, value: Any) -> FormField:
    """A field that has a value among its own: in its place, or last."""
    if one.look not in ("choice", "slider") or value in one.values:
        return one
    numbers = [each for each in (*one.values, value) if isinstance(each, int | float)]
    ordered = sorted(numbers) if len(numbers) == len(one.values) + 1 else [*one.values, value]
    return FormField(one.name, one.label, one.look, tuple(ordered), one.group, one.unit, one.only)


def _values(kind: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A workload of a scenario as values of fields; what no field has as more keys."""
    rest = copy.deepcopy(dict(raw))
    out: dict[str, Any] = {}
    for name in ("kind", "model"):
        rest.pop(name, None)
    for one in fields(kind):
        found = _taken(rest, one.name)
        found = _default(kind, one.name) if found is None else found
        if found is not None:
            out[one.name] = found
    weights, activations = (_taken(rest, key) or _default(kind, key) for key in _FORMATS)
    out["formats"] = weights
    if activations != weights:
        _put(rest, _FORMATS[1], activations)
    if kind == "serving":
        out["process"] = _taken(rest, "arrivals.process") or "poisson"
        for name in ("arrivals.requests", "sensitivity"):
            _taken(rest, name)
    out["more"] = "".join(_lines(rest, {one.name.partition(".")[0] for one in fields(kind)} | {"precision"}))
    return out


def _has_load(raw: Mapping[str, Any]) -> bool:
    """Whether a workload is a step, or a service with a load that a slider has."""
    if raw["kind"] != "serving":
        return True
    arrivals = raw["arrivals"]
    return arrivals.get("process") in LOADS and arrivals.get("rate_per_s") != "most"


def _lines(rest: Mapping[str, Any], shared: set[str]) -> Iterator[str]:
    """Keys that no field has, a line each; of sections that fields have keys of, key by key."""
    import yaml

    for key, value in rest.items():
        inner = {f"{key}.{name}": one for name, one in value.items()} if key in shared else {key: value}
        for name, one in inner.items():
            yield yaml.safe_dump({f"workload.{name}": one}, default_flow_style=None, width=200)


def _default(kind: str, key: str) -> Any:
    """What a key is where a scenario leaves it out; None where it has to say it, and for names that are no key."""
    head, *rest = key.split(".")
    known = kinds.get(kind).spec.model_fields.get(head)
    if known is None or known.is_required():
        return None
    value = known.default
    for name in rest:
        value = getattr(value, name, None)
    return value


def _taken(data: dict[str, Any], key: str) -> Any:
    """A value out of nested data, and what it leaves empty with it; None where it is not there."""
    head, _, rest = key.partition(".")
    if not rest:
        return data.pop(head, None)
    inner = data.get(head)
    if not isinstance(inner, dict):
        return None
    found = _taken(inner, rest)
    if not inner:
        del data[head]
    return found


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    reading.set_dotted(data, key, value, where="form")


def _more(text: Any) -> dict[str, Any]:
    """Lines ``KEY: VALUE``, keys dotted."""
    read = reading.parse_yaml(str(text), _MORE).data if str(text or "").strip() else {}
    return {str(key): value for key, value in read.items()}


__all__: Sequence[str] = ("KINDS", "LOADS", "FilledForm", "FormField", "fields", "models", "systems")
