"""Metrics: facts of a workload and a makespan in, named numbers out. One small function per kind of workload.

``facts`` are what a generator says about its workload, by name:

    collective      size_B, busbw_factor, calls (default 1)
    training        tokens_per_step, steps (default 1), model_flops_per_token, hardware_flops_per_token,
                    peak_FLOPps (of one accelerator, in the precision MFU is stated on); of images and graphs
                    samples_per_step, model_flops_per_sample, hardware_flops_per_sample instead
    encoder         samples_per_run, model_flops_per_sample
    trace           rank_steps_per_run; tokens_per_run or samples_per_run where they are known
    prefill, decode tokens_per_run (over all accelerators), layers; decode: steps, tokens_per_step_per_sequence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cmsim.cost import million_USD
from cmsim.errors import InputError, did_you_mean
from cmsim.units import GB, TERA

Facts = Mapping[str, float]
Metrics = dict[str, float | str]


@dataclass(frozen=True)
class Measured:
    """What metrics of a kind are made of: facts of the workload, length of the run [s], accelerators (packages) in
    use, and bubble time of the breakdown [s]."""

    facts: Facts
    makespan_s: float
    accelerators: int
    bubble_s: float = 0.0

    @property
    def step_s(self) -> float:
        """Time of one step of the workload."""
        return self.makespan_s / self.facts.get("steps", 1)


def collective(run: Measured) -> Metrics:
    """time_s of one call, algbw_GBps = size / time, busbw_GBps = algbw x factor.

    Source: nccl-tests doc/PERFORMANCE.md.
    """
    facts = run.facts
    time_s = run.makespan_s / facts.get("calls", 1)
    algbw_GBps = facts["size_B"] / time_s / GB
    return {"time_s": time_s, "algbw_GBps": algbw_GBps, "busbw_GBps": algbw_GBps * facts["busbw_factor"]}


def trace(run: Measured) -> Metrics:
    """Throughput in tokens or samples where these are known, else in recorded steps of a rank: a trace says what ran,
    not what it was for. The replay of one rank by many does as many steps at once."""
    for of in ("token", "sample"):
        if f"{of}s_per_run" in run.facts:
            return throughput(run, run.facts[f"{of}s_per_run"], of)
    steps = run.facts.get("rank_steps_per_run")
    return {} if steps is None else {"rank_steps_per_s": steps / run.makespan_s}


def training(run: Measured) -> Metrics:
    """mfu = model FLOPs (causal, no recomputation) over peak; hfu = FLOPs done, recomputed ones too, over peak.

    Source: Chowdhery et al., PaLM, arXiv:2204.02311, appendix B; Korthikanti et al., arXiv:2205.05198, section 6.3.
    """
    facts = run.facts
    of = "sample" if "samples_per_step" in facts else "token"
    out = throughput(run, facts[f"{of}s_per_step"] * facts.get("steps", 1), of)
    each = float(out[f"{of}s_per_s_per_accelerator"])
    model_FLOPps = facts[f"model_flops_per_{of}"] * each
    return {
        "step_time_s": run.step_s,
        **out,
        "model_TFLOPps_per_accelerator": model_FLOPps / TERA,
        "mfu": model_FLOPps / facts["peak_FLOPps"],
        "hfu": facts[f"hardware_flops_per_{of}"] * each / facts["peak_FLOPps"],
        "bubble_fraction": run.bubble_s / run.makespan_s,
    }


def prefill(run: Measured) -> Metrics:
    """ttft_s is the whole prompt's pass, without queueing."""
    return {
        **throughput(run, run.facts["tokens_per_run"]),
        "ttft_s": run.makespan_s,
        "layer_time_s": run.step_s / run.facts["layers"],
    }


def decode(run: Measured) -> Metrics:
    """tpot_s = makespan / steps / E[tokens of a sequence in one step], more than 1 with speculation."""
    return {
        **throughput(run, run.facts["tokens_per_run"]),
        "tpot_s": run.step_s / run.facts.get("tokens_per_step_per_sequence", 1.0),
        "layer_time_s": run.step_s / run.facts["layers"],
    }


def encoder(run: Measured) -> Metrics:
    """step_time_s is one batch's pass, without queueing."""
    out = throughput(run, run.facts["samples_per_run"], "sample")
    model_FLOPps = run.facts["model_flops_per_sample"] * float(out["samples_per_s_per_accelerator"])
    return {"step_time_s": run.step_s, **out, "model_TFLOPps_per_accelerator": model_FLOPps / TERA}


def throughput(run: Measured, count: float, of: str = "token") -> Metrics:
    """Tokens (or samples) over time, of all and of one accelerator (package). [1/s]"""
    rate = count / run.makespan_s
    return {f"{of}s_per_s": rate, f"{of}s_per_s_per_accelerator": rate / run.accelerators}


def per_token(tokens_per_s: float, power: Mapping[str, float], of: str = "token") -> Metrics:
    """Facility energy and, where priced, carbon and money per token (or sample).

    J/token = P_avg / (tokens/s), tokens/J its inverse;  USD per million tokens as of `cmsim.cost`.
    Where power is a band, ``..._low`` and ``..._high`` are the least and the most that each may be.

    >>> per_token(746112, {"power_avg_W": 559e3})["energy_per_token_J"]
    0.7492172756...
    """
    joules = power["power_avg_W"] / tokens_per_s
    out: Metrics = {f"energy_per_{of}_J": joules, f"{of}s_per_J": 1 / joules}
    if "cost_per_hour_USD" in power:
        out[f"cost_per_M{of}_USD"] = million_USD(power["cost_per_hour_USD"], tokens_per_s)
    if "carbon_g" in power:
        out[f"carbon_per_M{of}_g"] = power["carbon_g"] / power["energy_J"] * joules * 1e6
    if "power_avg_W_low" in power:
        out.update(_banded(out, of, power))
    return out


def _banded(out: Metrics, of: str, power: Mapping[str, float]) -> Metrics:
    """Ends of the band of what is in proportion, or in inverse proportion, to power."""
    low, high = (power[f"power_avg_W_{end}"] / power["power_avg_W"] for end in ("low", "high"))
    ends: Metrics = {}
    for name in (f"energy_per_{of}_J", f"carbon_per_M{of}_g"):
        if name in out:
            ends.update({f"{name}_low": float(out[name]) * low, f"{name}_high": float(out[name]) * high})
    per_J = float(out[f"{of}s_per_J"])
    return {**ends, f"{of}s_per_J_low": per_J / high, f"{of}s_per_J_high": per_J / low}


#: by the ``kind`` of a workload
KINDS: dict[str, Callable[[Measured], Metrics]] = {
    "collective": collective,
    "trace": trace,
    "training": training,
    "prefill": prefill,
    "decode": decode,
    "encoder": encoder,
}


#: what decides between plans where nobody says
_DECISIVE = ("tokens_per_s", "samples_per_s", "time_s", "makespan_s")
#: needs the breakdown of a run, not its length alone
_NOT_OF_TIME = "bubble_fraction"


def of_time(kind: str, facts: Facts, *, makespan_s: float, accelerators: int) -> dict[str, float]:
    """The metrics of a run that are in proportion to its length, or to one over it."""
    own = KINDS[kind](Measured(facts, makespan_s, accelerators))
    found = {key: value for key, value in own.items() if not isinstance(value, str) and key != _NOT_OF_TIME}
    return {**found, "makespan_s": makespan_s}


def decisive(found: Mapping[str, float], metric: str | None) -> tuple[str, float]:
    """(name, value) of the metric that decides between plans: the named one, else the first of its kind.

    Raises InputError where the run has none of that name.
    """
    name = metric or next(name for name in _DECISIVE if name in found)
    if name not in found:
        raise InputError(f"the run has no metric '{name}' to choose by. {did_you_mean(name, found)}")
    return name, found[name]


def follows_time(metric: str | None) -> bool:
    """Whether the metric that decides follows from the length of a run alone, without its power or its breakdown."""
    named = ("energy", "_per_J", "power_", "cost_", "carbon_", "exposed_", "memory_", _NOT_OF_TIME)
    return metric is None or not any(part in metric for part in named)


def metrics(
    kind: str,
    facts: Facts,
    *,
    makespan_s: float,
    accelerators: int,
    exposed_comm_s: float = 0.0,
    bubble_s: float = 0.0,
    memory_peak_B: float | None = None,
    algorithm: str = "",
    power: Mapping[str, float] | None = None,
    bounds_s: Mapping[str, float] | None = None,
    fault_slowdown: float | None = None,
) -> Metrics:
    """All metrics of a run, in the order in which people read them.

    exposed_comm_s, bubble_s: from the breakdown [s]    memory_peak_B: of the fullest rank [B]
    algorithm: of a collective    power: power metrics of the run    bounds_s: of a collective,
    egress, ingress, bisection and latency, each for itself [s]
    fault_slowdown: time over that without faults [1]

    Raises InputError for a kind without metrics and for a fact that is missing.
    """
    if kind not in KINDS:
        raise InputError(f"no metrics for workloads of kind '{kind}'. {did_you_mean(kind, KINDS)}")
    try:
        own = KINDS[kind](Measured(facts, makespan_s, accelerators, bubble_s))
    except KeyError as error:
        raise InputError(f"metrics of a {kind} workload need the fact '{error.args[0]}'") from None
    out: Metrics = {**own, "makespan_s": makespan_s, "exposed_comm_s": exposed_comm_s}
    if kind == "collective" and algorithm:
        out["algorithm"] = algorithm
    if bounds_s:
        out.update({f"bound_{name}_s": value for name, value in bounds_s.items()})
        out["bound_ratio"] = float(own["time_s"]) / max(bounds_s.values())
    if fault_slowdown is not None:
        out["fault_slowdown"] = fault_slowdown
    if memory_peak_B is not None:
        out["memory_peak_B"] = memory_peak_B
    if power is not None:
        if "tokens_per_s" in own:
            out.update(per_token(float(own["tokens_per_s"]), power))
        if "samples_per_s" in own:
            out.update(per_token(float(own["samples_per_s"]), power, "sample"))
        out.update(power)
    return out
