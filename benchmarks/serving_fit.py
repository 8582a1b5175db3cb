"""Fits constants of serving stacks to rows of a table of served models, over all of its systems together.

    python benchmarks/serving_fit.py workloads/reference/serving_measured.csv [--stack NAME] [--rows 24]
    python benchmarks/serving_fit.py TABLE --stack vllm_served --without hgx_h200
    python benchmarks/serving_fit.py TABLE --without each

``cmsim calibrate serving`` fits the host of one engine on one system, from where its stack stands; the same fit, of
several systems, is how constants in ``topologies/stacks`` were found. Rows of models that
``workloads/reference/serving.yaml`` holds out are never fitted. With ``--without`` those of a system are neither: the
fit begins with what other engines have, and the system left out is told with what is found, as if there were no
constants for its accelerator alone; ``each`` does so for every system of an engine that has several. Of a
constant that a stack has for one accelerator alone every row keeps its own; stacks that differ in a constant that only
one of them has are fitted together. Of a table that has no times output tokens a second are fitted. Prints constants,
what rows tell of them, how many rows were used, and the errors: of rows fitted, of models held out, of the system left
out, and of all systems left out together.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from cmsim import api, published, reading
from cmsim.calibration import tables
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import load_stack
from cmsim.scenario import load_scenario
from cmsim.validation.engine_fit import CONSTANTS, HostFit, MeasuredService, prepared_row

#: stacks -> constants that are fitted; others are as their files say
STACKS = {
    "vllm_served": ("arrival_us", "layer_us", "token_us", "meeting_us", "decode_times", "prefill_times"),
    "tensorrt_llm": ("arrival_us", "layer_us", "meeting_us", "decode_times", "prefill_times"),
    "sglang_served": ("arrival_us", "decode_times", "expert_layer_us", "expert_prefill_times"),
    "vllm_default": ("arrival_us", "layer_us", "meeting_us", "decode_times", "prefill_times"),
    "tensorrt_llm_default": (
        *("sequence_us", "arrival_us", "layer_us", "expert_layer_us", "token_us", "meeting_us"),
        *("decode_times", "prefill_times", "expert_prefill_times"),
    ),
    "sglang_default": ("arrival_us", "layer_us", "token_us", "meeting_us", "decode_times", "prefill_times"),
    "ascend_served": (
        *("step_us", "sequence_us", "expert_layer_us", "draft_us"),
        *("decode_times", "prefill_times", "expert_prefill_times"),
    ),
    "sglang_mixed": (*("arrival_us", "layer_us", "token_us", "decode_times", "prefill_times", "expert_prefill_times"),),
}

#: stacks that are fitted as another one, and what only some of them have
TOGETHER = {"ascend_served_drafts": "ascend_served", "ascend_served_eager": "ascend_served"}
SOME = ("draft_us",)
#: rows below which nothing is fitted
_FEWEST = 5
Group = list[tuple[str, str, MeasuredService]]


def held_out(table: str) -> str:
    """Pattern of models that constants are not fitted on, as the area says."""
    document = reading.read_yaml(reading.DATA / "workloads" / "reference" / "serving.yaml")
    sets = document.data["sets"].items()
    of = next(one["of"] for name, one in sets if name.endswith("held-out") and one["table"] == Path(table).name)
    pattern = str(of.get("model_path") or of["model"])
    print(f"{table}: models held out: {pattern}")
    return pattern


def prepared(table: str, stacks: list[str], rows: int, folder: Path, seed: int) -> dict[str, Group]:
    """Services of rows by stack: of models that are fitted and of those held out evenly spread over systems."""
    frame = tables.read(table)
    form = published.service_form_of([str(name) for name in frame.columns], table)
    cases: dict[tuple[str, str, str], list[tuple[published.Case, float, float, float]]] = defaultdict(list)
    for cells in published.cells_of(frame):
        case, measured = form.case(cells), form.measured(cells)
        told = measured.tpot_ms or measured.output_tokens_per_s
        if case.scenario is None or form.left_out(cells) or cells.get("mode", "") == "disagg" or not told:
            continue
        run = load_scenario(published.with_files(case, folder)).runs[0]
        system = api.system(run)
        stack = TOGETHER.get(system.stack.name, system.stack.name)
        if stack in stacks:
            ttft = None if form.ttft_left_out(cells) else measured.ttft_ms
            key = stack, system.spec.name, cells.get("model_path") or cells["model"]
            each_s = np.nan if measured.tpot_ms else 1.0 / told
            cases[key].append((case, (ttft or np.nan) / 1e3, (measured.tpot_ms or np.nan) / 1e3, each_s))
    chance = np.random.default_rng(seed)
    out: dict[str, Group] = defaultdict(list)
    for (stack, machine, model), found in cases.items():
        for at in sorted(chance.permutation(len(found))[:rows].tolist()):
            try:
                case, ttft_s, tpot_s, each_s = found[at]
                out[stack].append((machine, model, prepared_row(case, ttft_s, tpot_s, folder, each_s)))
            except (InfeasibleError, InputError) as reason:
                print(f"left out: {str(reason).partition(chr(10))[0]}")
    return out


def off(times: np.ndarray, group: Group) -> np.ndarray:
    """Errors of TPOT, TTFT and throughput, not a number where a row has none, shape (rows, 3). [1]"""
    ratio = times / np.array([one.wanted for *_, one in group])
    ratio[:, 2] = 1 / ratio[:, 2]  # the time of a token of the output
    return ratio - 1


def errors(of: HostFit, what: str, group: Group, x: np.ndarray) -> None:
    """Prints errors before and after."""
    if not group:
        return
    some = [one for *_, one in group]
    before, after = (said(off(of.times(some, at), group)) for at in (None, x))
    print(f"  {what} ({len(some)} rows): before {before}; after {after}", flush=True)


def systems(group: Group, held: str) -> list[str]:
    """Systems of an engine of which there are enough rows that may be fitted."""
    named = [system for system, model, _ in group if not re.search(held, model, re.IGNORECASE)]
    return sorted({system for system in named if named.count(system) >= _FEWEST})


def usual(stack: str, one: MeasuredService) -> bool:
    """Whether a row's accelerator has the constants that are fitted as all others have."""
    own, common = one.service.machines[0].system.stack.serving, load_stack(stack).serving
    return all(getattr(own, name) == getattr(common, name) for name in STACKS[stack])


def elsewhere(stack: str, name: str) -> float:
    """A constant where other engines have it, the middle of those that have one: no row of this one was seen."""
    engine = stack.partition("_")[0]
    others = [getattr(load_stack(one).serving, name) for one in STACKS if one.partition("_")[0] != engine]
    return float(np.median([value for value in others if value] or [CONSTANTS[name].start]))


def left_out(of: HostFit, x: np.ndarray, apart: Group) -> np.ndarray:
    """Errors of a system whose rows were not fitted, with the constants of the others, all of them. [1]"""
    known = {name: getattr(of.tuning, name) for name in CONSTANTS} | of.values(x)
    known = {name: value for name, value in known.items() if value is not None}
    whole = HostFit(list(known), of.tuning, None)
    with np.errstate(divide="ignore"):  # a constant of 0 stays 0
        at = np.log(np.array(list(known.values())))
    some = [one for *_, one in apart]
    return off(whole.times(some, at), apart)


def said(found: np.ndarray) -> str:
    """Median and 90th percentile of absolute errors, and the median with its sign, of what rows have."""
    parts = []
    for name, one in zip(("TPOT", "TTFT", "throughput"), 100 * found.T, strict=True):
        one = one[np.isfinite(one)]
        if len(one):
            size = np.abs(one)
            parts.append(f"{name} {np.median(size):.1f} / {np.percentile(size, 90):.1f} % ({np.median(one):+.1f})")
    return ", ".join(parts)


def fit(stack: str, group: Group, held: str, without: str) -> np.ndarray | None:
    """Fits one stack and prints what was found; errors of the system left out, where there is one. [1]"""
    fitted = [one for one in group if not re.search(held, one[1], re.IGNORECASE)]
    apart = [one for one in fitted if one[0] == without]
    fitted = [one for one in fitted if one[0] != without]
    if without:  # an accelerator with constants of its own tells nothing of those that others have
        fitted = [one for one in fitted if usual(stack, one[2])]
    if len(fitted) < _FEWEST:
        print(f"{stack}: {len(fitted)} rows of models that are not held out; at least {_FEWEST} are needed")
        return None
    rows = [one for *_, one in fitted]
    tunings = [one.service.machines[0].system.stack.serving for one in rows]
    same = [name for name in STACKS[stack] if len({getattr(one, name) for one in tunings if getattr(one, name)}) < 2]
    names = list(STACKS[stack]) if without else same
    fullest = max(tunings, key=lambda one: sum(bool(getattr(one, name)) for name in names))
    of = HostFit(names, fullest, None, SOME)
    if without:  # where the stack stands now all systems were seen
        of.begin = np.log([elsewhere(stack, name) for name in names])
    x = of.found(rows, of.begin, stack)
    slopes, width = of.slopes(rows, x), np.array([CONSTANTS[name].width for name in names])
    sd = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes + np.diag(width**-2.0))))
    models = ", ".join(sorted({f"{model.split('/')[-1]} on {system}" for system, model, _ in fitted}))
    print(f"{stack}: {len(rows)} rows of {models}" + (f", without {without}" if without else ""))
    for name, value, spread in zip(names, np.exp(x), sd, strict=True):
        before, wide = getattr(fullest, name), float(np.exp(1.645 * spread))
        print(f"  {name}: {before or 0:g} -> {value:.4g}, nine of ten from {value / wide:.3g} to {value * wide:.3g}")
    errors(of, "fitted", fitted, x)
    errors(of, "models held out", [one for one in group if re.search(held, one[1], re.IGNORECASE)], x)
    if not without or not apart:
        return None
    found = left_out(of, x, apart)
    print(f"  {without} left out ({len(apart)} rows): {said(found)}", flush=True)
    return found


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--stack", action="append", choices=sorted(STACKS), help="may be repeated; default: all")
    parser.add_argument("--rows", type=int, default=12, help="of a model on a system, drawn at random, the most")
    parser.add_argument("--without", default="", metavar="SYSTEM", help="a system whose rows are not fitted; each")
    parser.add_argument("--only", default="", metavar="SYSTEM", help="a system whose rows alone are fitted")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    held = held_out(given.table)
    # models that are not built in are files as long as their steps are asked for
    with tempfile.TemporaryDirectory(prefix="cmsim-") as folder:
        stacks = given.stack or list(STACKS)
        groups = prepared(given.table, stacks, given.rows, Path(folder), given.seed)
        apart: list[np.ndarray | None] = []
        for stack in stacks:
            some = [one for one in groups[stack] if given.only in ("", one[0])]
            there = systems(some, held)
            if given.without == "each":
                apart += [fit(stack, some, held, one) for one in there if len(there) > 1]
            else:
                apart.append(fit(stack, some, held, given.without))
        if found := [one for one in apart if one is not None]:
            together = np.concatenate(found)
            print(f"systems left out together ({len(together)} rows): {said(together)}")


if __name__ == "__main__":
    main(sys.argv[1:])
