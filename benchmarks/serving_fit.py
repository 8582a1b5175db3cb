"""Fits constants of serving stacks to rows of a table of served models, over all of its systems together.

    python benchmarks/serving_fit.py workloads/reference/serving_measured.csv [--stack NAME] [--rows 24]
    python benchmarks/serving_fit.py TABLE --stack vllm_served --without hgx_h200

``cmsim calibrate serving`` fits the host of one engine on one system, from where its stack stands; the same fit, of
several systems, is how constants in ``topologies/stacks`` were found. Rows of models that
``workloads/reference/serving.yaml`` holds out are never fitted; with ``--without`` those of a system are neither. Of a
constant that a stack has for one accelerator alone every row keeps its own; stacks that differ in a constant that only
one of them has are fitted together. Of a table that has no times output tokens a second are fitted. Prints constants,
what rows tell of them, how many rows were used, and the errors: of rows fitted, of those left over, of models held out,
of the system left out.
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
from cmsim.scenario import load_scenario
from cmsim.validation.engine_fit import CONSTANTS, HostFit, MeasuredService, prepared_row

#: stacks -> constants that are fitted; others are as their files say
STACKS = {
    "vllm_served": ("arrival_us", "layer_us", "token_us", "decode_times", "prefill_times"),
    "tensorrt_llm": ("arrival_us", "layer_us", "decode_times", "prefill_times"),
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


def errors(of: HostFit, what: str, group: Group, x: np.ndarray) -> None:
    """Prints errors before and after."""
    if not group:
        return
    some = [one for *_, one in group]
    wanted = np.array([one.wanted for one in some])
    said = []
    for which, name in enumerate(("TPOT", "TTFT", "throughput")):
        for when, times in (("before", of.times(some, None)), ("after", of.times(some, x))):
            ratio = times[:, which] / wanted[:, which]
            off = 100 * np.abs((1 / ratio if name == "throughput" else ratio) - 1)
            off = off[np.isfinite(off)]
            if len(off):
                said.append(f"{name} {when} {np.median(off):.1f} / {np.percentile(off, 90):.1f} %")
    print(f"  {what} ({len(some)} rows): " + ", ".join(said), flush=True)


def fit(stack: str, group: Group, held: str, without: str) -> None:
    """Fits one stack and prints what was found."""
    fitted = [one for one in group if not re.search(held, one[1], re.IGNORECASE)]
    apart = [one for one in fitted if one[0] == without]
    fitted = [one for one in fitted if one[0] != without]
    if len(fitted) < _FEWEST:
        print(f"{stack}: {len(fitted)} rows of models that are not held out; at least {_FEWEST} are needed")
        return
    rows = [one for *_, one in fitted]
    tunings = [one.service.machines[0].system.stack.serving for one in rows]
    names = [name for name in STACKS[stack] if len({getattr(one, name) for one in tunings if getattr(one, name)}) < 2]
    fullest = max(tunings, key=lambda one: sum(bool(getattr(one, name)) for name in names))
    of = HostFit(names, fullest, None, SOME)
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
    if without:
        errors(of, f"{without} left out", apart, x)


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--stack", action="append", choices=sorted(STACKS), help="may be repeated; default: all")
    parser.add_argument("--rows", type=int, default=12, help="of a model on a system, drawn at random, the most")
    parser.add_argument("--without", default="", metavar="SYSTEM", help="a system whose rows are not fitted")
    parser.add_argument("--only", default="", metavar="SYSTEM", help="a system whose rows alone are fitted")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    held = held_out(given.table)
    # models that are not built in are files as long as their steps are asked for
    with tempfile.TemporaryDirectory(prefix="cmsim-") as folder:
        stacks = given.stack or list(STACKS)
        groups = prepared(given.table, stacks, given.rows, Path(folder), given.seed)
        for stack in stacks:
            some = [one for one in groups[stack] if given.only in ("", one[0])]
            fit(stack, some, held, given.without)


if __name__ == "__main__":
    main(sys.argv[1:])
