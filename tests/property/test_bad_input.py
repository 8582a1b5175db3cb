"""Every key of scenario and system files times wrong values: refused by name, or taken; nothing else comes out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmsim import api
from cmsim.errors import CmsimError, InputError
from cmsim.hardware import load_system
from cmsim.reading import DATA, parse_yaml
from cmsim.scenario import load_scenario

yaml.SafeDumper.ignore_aliases = lambda *_: True
WRONG = [
    *(None, "x", "", [], {}, [1], {"a": 1}, True, 10**30, -1, 0, -(10**30), 1e308, 5e-324, math.nan, math.inf, 1.5),
    *("\u0661\u0662", "\u00b2", "a\0b", "\u202eabc", "\x1b]0;x\x07", 10**400, [[[[1]]]], 2**63, 2**31, "a\nb"),
    *("../../etc/passwd", "/dev/zero", "n" * 5000, "$\\frac{a_b^c$", 1e18, 1e-30, [1, "a", None]),
]
PARALLEL = {"tp": 1, "cp": 1, "pp": 1, "dp": "auto", "ep": 1, "attention": "tp", "expert_slots": {"redundant": "auto"}}
MODEL = {"ranks": 8, "model": "gpt-oss-20b", "parallel": PARALLEL, "balance": {"model": "zipf", "zipf_exponent": 0.1}}
WORKLOADS = {
    "call": {"kind": "collective", "ranks": 8, "collective": "all_reduce", "message_bytes": 1e6, "repeat": 1},
    "train": MODEL | {"kind": "training", "sequence_length": 128, "global_batch": 8, "dims": {}},
    "prefill": MODEL | {"kind": "prefill", "batch_per_accelerator": 1, "prompt_tokens": 128, "microbatches": 1},
    "decode": MODEL
    | {"kind": "decode", "batch_per_accelerator": 1, "context_tokens": 128}
    | {"speculative": {"draft_tokens": 1, "acceptance": 0.5}},
    "trace": {"kind": "trace", "path": "chakra/ring_allreduce_8npus_1MB", "compute": "recorded"},
}
SCENARIO: dict[str, Any] = {
    "name": "t",
    "systems": [{"system": "hgx_h100", "accelerators": 8, "faults": [], "set": {"scale_out.nic_GBps": 50}}],
    "network": "fluid",
    "faults": [{"part": "rank/0/port", "left": 0.5, "from_s": 0.0, "until_s": 1.0}],
    "perturb": {0: {"compute": 1.1}},
    "sweep": {"seed": {"from": 1, "to": 2, "steps": 2}},
    "jitter": {"distribution": "normal", "cv": 0.1},
    "workloads": WORKLOADS,
}
SYSTEM = yaml.safe_load((DATA / "topologies" / "hgx_h100.yaml").read_text(encoding="utf-8"))


def places(tree: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if key in ("sources", "published"):
            continue
        found.append((*before, key))
        if isinstance(value, dict | list):
            found += places(value, (*before, key))
    return found


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tree


#: of a key only some of the values are tried each time, others of the next
SOME = 3


@pytest.mark.parametrize(("number", "path"), list(enumerate(places(SCENARIO))))
def test_every_key_of_a_scenario_times_wrong_values(number, path):
    for value in WRONG[number % SOME :: SOME]:
        try:
            load_scenario(yaml.safe_dump(put(SCENARIO, path, value), allow_unicode=True))
        except InputError as error:
            assert str(error)


@pytest.mark.parametrize(("number", "path"), list(enumerate(places(SYSTEM))))
def test_every_key_of_a_system_times_wrong_values(number, path, tmp_path):
    file = tmp_path / "s.yaml"
    for value in WRONG[number % SOME :: SOME]:
        file.write_text(yaml.safe_dump(put(SYSTEM, path, value), allow_unicode=True), encoding="utf-8")
        try:
            load_system(str(file))
        except InputError as error:
            assert str(error)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(places(WORKLOADS["call"])), value=st.sampled_from(WRONG))
def test_what_is_taken_runs_to_an_outcome(path, value):
    data = {"systems": ["hgx_h100"], "workload": put(WORKLOADS["call"], path, value)}
    try:
        outcomes = api.run(data)
    except CmsimError as error:
        assert str(error)
    else:
        for one in outcomes.results:
            assert all(not isinstance(value, float) or math.isfinite(value) for value in one.metrics.values())


PIECES = [
    *(
        "a: ",
        "b",
        "!!int ",
        "!!bool ",
        "!!timestamp ",
        "!!set ",
        "&x ",
        "*x",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "  ",
        "- ",
        "'",
    ),
    *('"', "? ", ": ", "<<: ", "1e999", ".inf", "9" * 5000, "0x" + "f" * 5000, "\ud800", "\0", "1:2", "| "),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_text_is_yaml_or_refused(parts):
    try:
        parse_yaml("".join(parts), "x.yaml")
    except InputError as error:
        assert str(error)
