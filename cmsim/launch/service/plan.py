"""What launch files of serving say, in the words of their tools: one engine, and one plan of engines and clients."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from cmsim.errors import Problem
from cmsim.launch.plan import PlanRead, copied
from cmsim.launch.settings import Settings
from cmsim.launch.vocabulary import data

#: keys in the order they are shown in
ORDER = (
    *("tool", "engine", "tool_version_basis", "kind", "files", "assume", "cases", "name", "model", "model_guess"),
    *("system", "nodes", "accelerators_per_node", "accelerators_used", "replicas", "instances"),
    *("tp", "pp", "dp", "attention_dp", "attention_tp", "cp", "decode_context_parallel", "ep", "expert_tp"),
    *("precision", "max_model_len", "max_input_len", "osl_limit"),
    *("max_num_seqs", "max_num_seqs_scope", "max_num_seqs_per_dp_rank", "max_prefill_seqs"),
    *("max_num_batched_tokens", "max_num_batched_tokens_scope", "prefill_chunk", "prefill_chunk_scope"),
    *("max_prefill_tokens", "chunked_prefill", "prefix_caching", "kv_cache_dtype", "kv_block_size", "kv_host_cache"),
    *("quantization", "gpu_memory_fraction", "speculative", "hf_overrides", "disaggregated"),
    *("sweep", "isl", "isl_range", "isl_mean", "isl_stddev", "osl", "osl_range", "osl_mean", "osl_stddev"),
    *("shared_prefix", "turns", "conversations", "concurrency", "request_rate", "num_prompts", "distinct_prompts"),
    *("warmup_requests", "slo", "workload", "defaults", "note", "warn"),
    *("deprecated", "unknown", "unread", "ignored"),
)
#: keys that are shown where nothing is known of them, by kind
_ALWAYS = {
    "serving": ("model", "quantization", "defaults", "unread", "ignored"),
    "benchmark": ("model", "concurrency", "request_rate", "defaults", "unread", "ignored"),
}


@dataclass
class ServicePlan(PlanRead):
    """One service, or one benchmark of one. ``values``: what was read, by the keys of ``--explain``.

    ``engines``: of what runs, by role ("" where prefill and decode are together)
    """

    values: dict[str, Any] = field(default_factory=dict)
    kind: str = "serving"
    defaults: dict[str, Any] = field(default_factory=dict)
    warn: list[str] = field(default_factory=list)
    deprecated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    system_name: str = ""
    file: str = ""

    @property
    def tool(self) -> str:
        return str(self.values.get("tool", ""))

    @property
    def files(self) -> list[str]:
        return list(self.values.get("files", ()))

    def explained(self) -> dict[str, Any]:
        """The plan as the keys of ``--explain``, in their order."""
        found = {**self.values, "kind": self.kind, "defaults": self.defaults}
        for key in ("warn", "deprecated", "unknown", "unread", "ignored"):
            found[key] = getattr(self, key)
        always = _ALWAYS[self.kind]
        return {key: copied(found.get(key)) for key in ORDER if key in always or found.get(key) not in (None, [], {})}


@dataclass
class Engine:
    """One server as it is started. ``values``: what was read; ``world``: accelerators of one instance."""

    tool: str
    basis: str
    settings: Settings
    values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    role: str = ""
    transfer: str | None = None
    world: int = 1
    nodes: int | None = None
    per_node: int | None = None
    instances: int = 1
    wrapper: str = ""
    #: of the vocabulary that it is read with
    page: str = ""
    name: str = ""
    notes: list[str] = field(default_factory=list)
    #: how a proxy finds it
    port: str = ""
    #: says nothing of its own: a further node of an engine whose first one is there too
    follows: bool = False

    def default(self, key: str, value: Any) -> Any:
        self.defaults[key] = value
        return value

    def put(self, key: str, value: Any, otherwise: Any = None) -> None:
        """A value that was said, or the tool's; None is neither."""
        if value is not None:
            self.values[key] = value
        elif otherwise is not None:
            self.values[key] = self.default(key, otherwise)


def number(settings: Settings, key: str) -> int | None:
    """A whole number, with k for 1,000 and K for 1,024 as servers take them; `auto` is none."""
    value = settings.get(key)
    said = settings.by_key.get(key)
    if said is not None and (not said.values or said.value == ""):
        settings.wrong(said, "has no value; allowed: a whole number")
        return None
    if value is None or isinstance(value, bool) or str(value).strip().lower() == "auto":
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kKmMgG])", str(value).strip())
    if not found:
        return settings.whole(key)
    each = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}[found[2]]
    out = float(found[1]) * each
    if out != int(out) or (found[2] in "KMG" and "." in found[1]):
        settings.wrong(settings.by_key[key], f"got '{value}'; allowed: a whole number, with k, m, g or K, M, G behind")
        return None
    return int(out)


def size(settings: Settings, key: str) -> int | None:
    """A number of ranks or the like: 1 or more."""
    value = number(settings, key)
    if value is not None and value < 1:
        settings.wrong(settings.by_key[key], f"got '{value}'; allowed: a whole number of 1 or more")
        return None
    return value


def rank(settings: Settings, key: str) -> int:
    """Which of several a process is; what only a run would tell is the first."""
    said = str(settings.by_key[key].value) if settings.has(key) else ""
    return int(said) if re.fullmatch(r"\d{1,6}", said) else 0


def share(settings: Settings, key: str) -> float | None:
    """A share of memory, more than 0 and at most 1."""
    value = settings.get(key)
    if value is None or isinstance(value, bool):
        return None
    try:
        out = float(str(value))
    except ValueError:
        out = float("nan")
    if not 0 < out <= 1:
        settings.wrong(settings.by_key[key], f"got '{value}'; allowed: more than 0, up to 1")
        return None
    return out


def squeezed(text: str | None) -> str:
    return re.sub(r"[^a-z0-9]", "", (text or "").rstrip("/").rpartition("/")[2].lower())


def has_experts(model: str | None) -> bool:
    name = squeezed(model)
    common = data("serving")
    return bool(re.search(common["experts"], name)) and not re.search(common["dense"], name)


def has_states(model: str | None) -> bool:
    return bool(re.search(data("serving")["hybrid"], squeezed(model)))


def guess_of_path(model: str | None) -> str | None:
    """The published model that a path or a name alone means; None where it has a publisher, or nothing is known."""
    if not model or re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return None
    parts = [one for one in re.split(r"[/\\]", model) if one and one not in ("snapshots", "main")]
    if not parts:
        return None
    name = next((one for one in reversed(parts) if publisher(one)), parts[-1])
    if name.startswith("models--"):
        return name.removeprefix("models--").replace("--", "/")
    made = data("serving")["made"]
    while (cut := re.fullmatch(r"(.+)[-_.]([A-Za-z0-9]+)", name)) and cut[2].lower() in made:
        name = cut[1]
    found = publisher(name)
    if not found:
        return None
    if name.lower().startswith("meta-llama-3.1"):  # so called until it was renamed
        name = name[5:]
    return f"{found}/{name}"


def publisher(name: str) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    found = [start for start in data("serving")["publishers"] if plain.startswith(start)]
    return str(data("serving")["publishers"][max(found, key=len)]) if found else None
