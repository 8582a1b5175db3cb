"""Metrics and frames that kinds have in common."""

from __future__ import annotations

from collections.abc import Mapping

from cmsim.kinds.kind import Frame, Metric, Metrics
from cmsim.units import TERA

_SPAN = {"start_ps": "when it begins [ps]", "end_ps": "when it ends [ps]"}

OPS = Frame(
    "ops",
    {
        "rank_class": "class of ranks that do the same",
        "multiplicity": "how many ranks are in it",
        "stream": "where the op runs",
        "op": "its name",
        "kind": "compute, host, collective, send or recv",
        "start_ps": "when it begins; a communication op when its rank arrives [ps]",
        "end_ps": "when it ends [ps]",
        "wait_ps": "part of it before anything moved [ps]",
        "flops": "of one rank [FLOP]",
        "peak_FLOPps": "of the engine it ran on, one rank; 0 without one [FLOP/s]",
        "bytes_B": "compute: memory traffic of one rank; communication: size as nccl-tests counts it [B]",
        "algorithm": "of a collective",
        "precision": "of the numbers",
        "weights": "format of the weights of a grouped product",
        "cores": "share of the cores that the op may use [1]",
        "kernel": "class of kernel",
        "group": "of the workload (tp, dp, ...) or the communicator of a trace",
        "limit": "what binds it: compute, memory, latency, host or link",
        "sent_B": "what one rank put on its port and NIC, payload [B]",
        "received_B": "what it took off them [B]",
    },
    "one row per op of each class of ranks",
)
LINKS = Frame(
    "links",
    {
        "resource": "kind, direction and class of the rank, node or leaf it belongs to",
        "instances": "how many equal ones there are",
        **_SPAN,
        "bytes_B": "over one instance, protocol overhead included [B]",
        "utilization": "rate on one instance over its capacity [1]",
        "rank_class": "the class it belongs to; of a node or leaf, the first one there",
        "port_share": "use of one rank's port that full utilization means; 0 if no port [1]",
    },
    "one row per class of resources and stretch of constant rate above zero",
    may_be_empty=True,
    some={
        "times": "`network: flow`: equal stretches at one distance, from `start_ps` to `end_ps` [1]",
        "each_ps": "`network: flow`: length of each of them [ps]",
    },
)
POWER = Frame(
    "power",
    {
        "component": "part of the facility",
        **_SPAN,
        "power_W": "mean over the interval [W]",
        "power_W_low": "the least it may be [W]",
        "power_W_high": "the most it may be [W]",
    },
    "one row per component and interval",
)
MAKESPAN = Metric("makespan_s", "s", "less", "length of the run", of_time=True)
_EXPOSED = Metric("exposed_comm_s", "s", "less", "communication in flight while no kernel runs, mean over ranks")
_FAULT = Metric("fault_slowdown", "1", "", "time over that without faults")
MEMORY = Metric("memory_peak_B", "B", "less", "what the fullest rank holds")
#: parts of the facility, of each of which there is a mean power
COMPONENTS = {
    "accelerators_idle": "accelerators at low idle",
    "accelerators_active": "what packages draw over low idle for being at work, engines at rest",
    "accelerators_compute": "matrix and vector engines",
    "accelerators_memory": "device memory",
    "accelerators_link": "ports of accelerators",
    "hosts": "hosts",
    "switch_chips": "switches",
    "optical_modules": "optical modules",
    "nics": "NICs",
    "fans": "fans",
    "power_supplies": "losses of power supplies",
    "facility": "what PUE adds",
}
#: where `power.over_time` asks for it: of all machines, facility, means over its steps
OVER_TIME = (
    Metric("power_p5_W", "W", "", "`power.over_time`: 5th percentile of its steps, once all machines are at work"),
    Metric("power_p95_W", "W", "less", "`power.over_time`: 95th percentile"),
    Metric("power_swing_W", "W", "less", "`power.over_time`: between the two"),
    Metric("power_ramp_W_per_s", "W/s", "less", "`power.over_time`: steepest change from one step to the next"),
    Metric("power_swing_Hz", "Hz", "", "`power.over_time`: frequency that swings most"),
    Metric("power_at_Hz_W", "W", "less", "`power.over_time`: how far up and down at that frequency"),
)
POWER_CURVE = Frame(
    "power_curve",
    {"start_s": "when a step of time begins [s]", "power_W": "of the facilities of all machines, mean over it [W]"},
    "`power.over_time`: one row per step of time",
    may_be_empty=True,
)
#: what every kind with programs records
PLAYED = (OPS, LINKS, POWER, POWER_CURVE)
#: parts of the bill of an hour
COSTS = {
    "depreciation": "what the machine loses",
    "financing": "interest on what is not paid back",
    "electricity": "at work and idle",
    "space": "building and cooling",
    "staff": "people who keep it going",
    "spares": "spare parts and support",
    "licences": "software",
    "migration": "moving a code base, once",
}
#: parts of what a machine costs to buy
PRICES = {
    "machine": "all of it, where its price is known as a whole",
    "accelerators": "packages alone",
    "hosts": "host processors with their share of the node",
    "switch_chips": "of the scale-up network",
    "modules": "optical modules",
    "nics": "where they are not on the package",
    "scale_out_switches": "a share of the network's",
    "racks": "cabinets with power shelves and cooling",
}
_POWER = (
    Metric("energy_J", "J", "less", "of the facility, PUE included", banded=True),
    Metric("power_avg_W", "W", "less", "of the facility, mean over the run", banded=True),
    Metric("power_peak_W", "W", "less", "of the facility, highest of the intervals", banded=True),
    Metric("power_it_W", "W", "", "mean without what PUE adds", banded=True),
    Metric("power_packages_W", "W", "", "mean of the accelerators alone", banded=True),
    *(Metric(f"power_{name}_W", "W", "", f"mean of: {text}") for name, text in COMPONENTS.items()),
    *OVER_TIME,
    Metric("carbon_g", "g", "", "CO2e of the energy, where the system has a carbon intensity", banded=True),
    Metric(
        "cost_per_hour_USD",
        "USD/h",
        "",
        "rent of the accelerators in use, where the system has it; with `cost`, the bill of a machine of one's own",
    ),
    *(Metric(f"cost_{name}_per_hour_USD", "USD/h", "", f"of the bill: {text}") for name, text in COSTS.items()),
    *(Metric(f"price_{name}_USD", "USD", "", f"to buy, with `cost`: {text}") for name, text in PRICES.items()),
    Metric("carbon_embodied_g", "g", "", "of carbon_g, what making the machine emitted; with `carbon.embodied`"),
)

#: what is known of a whole machine's power where its parts are not looked at
OF_WHOLE = (
    *("energy_per_token_J", "tokens_per_J", "cost_per_Mtoken_USD", "carbon_per_Mtoken_g"),
    *("energy_J", "power_avg_W", "carbon_g", "cost_per_hour_USD"),
    *(f"cost_{name}_per_hour_USD" for name in COSTS),
    *(f"price_{name}_USD" for name in PRICES),
    "carbon_embodied_g",
)


def rest(*, memory: bool = True, words: tuple[Metric, ...] = ()) -> tuple[Metric, ...]:
    """What every kind with programs measures behind its own.

    memory: whether the footprint of ranks is known    words: names and bounds of a call, which stand among them
    """
    return (MAKESPAN, _EXPOSED, *words, _FAULT, *([MEMORY] if memory else []))


def power_of(*of: str) -> tuple[Metric, ...]:
    """Energy, money and carbon of a token or sample, and the run's power; last of all metrics."""
    return (*(metric for one in of for metric in _each(one)), *_POWER)


def _each(of: str) -> tuple[Metric, ...]:
    return (
        Metric(f"energy_per_{of}_J", "J", "less", f"facility energy over {of}s", banded=True),
        Metric(f"{of}s_per_J", f"{of}s/J", "more", f"{of}s over facility energy", banded=True),
        Metric(f"cost_per_M{of}_USD", "USD", "less", f"rent of a million {of}s, where the system has it"),
        Metric(f"carbon_per_M{of}_g", "g", "less", f"CO2e of a million {of}s, where it is known", banded=True),
    )


def rates(*of: str) -> tuple[Metric, ...]:
    """Throughput in tokens or samples, of all and of one accelerator."""
    return tuple(
        metric
        for one in of
        for metric in (
            Metric(f"{one}s_per_s", f"{one}s/s", "more", f"{one}s over time", of_time=True),
            Metric(
                f"{one}s_per_s_per_accelerator",
                f"{one}s/s",
                "more",
                "the same, over accelerators (packages) in use",
                of_time=True,
            ),
        )
    )


#: ends the headline of every kind with programs
HEADLINE = (
    *("tokens_per_s", "tokens_per_s_per_accelerator", "samples_per_s", "samples_per_s_per_accelerator"),
    *("mfu", "energy_per_token_J", "energy_per_sample_J", "makespan_s", "power_avg_W"),
)


def headline(metrics: tuple[Metric, ...], *own: str) -> tuple[str, ...]:
    """Own names, then those of the common headline that the kind has."""
    known = {metric.name for metric in metrics}
    return (*own, *(name for name in HEADLINE if name in known))


def throughput(count: float, makespan_s: float, accelerators: int, of: str = "token") -> Metrics:
    """Tokens (or samples) over time, of all and of one accelerator (package). [1/s]"""
    rate = count / makespan_s
    return {f"{of}s_per_s": rate, f"{of}s_per_s_per_accelerator": rate / accelerators}


#: of kinds that run a model as it is, and count its FLOPs alone
MODEL_RATE = Metric(
    "model_TFLOPps_per_accelerator", "TFLOP/s", "more", "model FLOPs over time and accelerators", of_time=True
)


def with_model_rate(rates_: Metrics, model_flops: float, of: str) -> Metrics:
    """Throughput, and `MODEL_RATE` behind it. model_flops: of one ``of`` [FLOP]"""
    return {**rates_, MODEL_RATE.name: model_flops * float(rates_[f"{of}s_per_s_per_accelerator"]) / TERA}


def merged_headline(kinds: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Headlines of several kinds as one: a name stands in front of what follows it in its own."""
    out: list[str] = []
    for names in kinds.values():
        for i, name in enumerate(names):
            if name not in out:
                after = next((out.index(other) for other in names[i + 1 :] if other in out), len(out))
                out.insert(after, name)
    return tuple(out)
