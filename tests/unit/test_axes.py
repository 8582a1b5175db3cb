"""Points of a sweep: all combinations, keys that go together, conditions."""

from __future__ import annotations

from typing import Any

import pytest

import cmsim
from cmsim.errors import InputError

BASE = {
    "systems": ["hgx_h100"],
    "workload": {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024},
}
BATCH, CONTEXT = "workload.batch_per_accelerator", "workload.context_tokens"


def points(sweep: dict[str, Any], **other: Any) -> list[tuple[Any, ...]]:
    loaded = cmsim.load_scenario({**BASE, **other, "sweep": sweep})
    return [tuple(run.point.values()) for run in loaded.runs]


def test_keys_that_go_together_go_step_by_step():
    together = {BATCH: [8, 16, 32], CONTEXT: [4096, 2048, 1024]}
    assert points({"zip": together}) == [(8, 4096), (16, 2048), (32, 1024)]
    assert points({"seed": [0, 1], "zip": [together]})[:4] == [(0, 8, 4096), (0, 16, 2048), (0, 32, 1024), (1, 8, 4096)]


def test_ranges_go_together():
    assert points({"zip": {BATCH: {"from": 1, "to": 3, "steps": 3}, CONTEXT: ["1K", "2K", "4K"]}}) == [
        (1, 1024),
        (2, 2048),
        (3, 4096),
    ]


def test_a_key_of_another_workload_repeats_no_runs():
    two = {"a": BASE["workload"], "b": BASE["workload"]}
    sweep = {"zip": {"workloads.a.batch_per_accelerator": [8, 8, 16], "workloads.b.context_tokens": [512, 1024, 1024]}}
    loaded = cmsim.load_scenario({"systems": BASE["systems"], "workloads": two, "sweep": sweep})
    assert [run.key for run in loaded.runs] == [
        "a/hgx_h100/batch_per_accelerator=8",
        "a/hgx_h100/batch_per_accelerator=16",
        "b/hgx_h100/context_tokens=512",
        "b/hgx_h100/context_tokens=1024",
    ]


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (f"{BATCH} * {CONTEXT} <= 16384", [(8, 1024), (8, 2048), (16, 1024)]),
        ([f"{BATCH} > 8", f"not {CONTEXT} == 1024"], [(16, 2048)]),
        (f"{BATCH} in [8] and 1024 < {CONTEXT} < 4096", [(8, 2048)]),
        ("workloads.decode.batch_per_accelerator // 16 or false", [(16, 1024), (16, 2048)]),
    ],
)
def test_conditions(where: Any, left: list[tuple[Any, ...]]):
    assert points({BATCH: [8, 16], CONTEXT: [1024, 2048], "where": where}) == left


def test_a_condition_is_about_the_workloads_that_have_its_keys():
    two = {"a": BASE["workload"], "b": BASE["workload"]}
    sweep = {
        "workloads.a.batch_per_accelerator": [8, 16],
        "workloads.b.batch_per_accelerator": [8, 16],
        "where": "workloads.a.batch_per_accelerator < 16",
    }
    loaded = cmsim.load_scenario({"systems": BASE["systems"], "workloads": two, "sweep": sweep})
    assert [(run.workload, *run.point.values()) for run in loaded.runs] == [("a", 8), ("b", 8), ("b", 16)]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({BATCH: [8], "where": "workload.batch <= 8"}, "'workload.batch' is not swept. Swept: workloads.decode.batch"),
        ({BATCH: [8], "where": f"{BATCH}.bit_length()"}, "is not swept|is no condition"),
        ({BATCH: [8], "where": "__import__('os').system('x')"}, "'__import__' is not swept"),
        ({BATCH: [8], "where": f"{BATCH} ** 9 ** 9 > 1"}, "is no condition. Allowed: swept keys"),
        ({BATCH: [8], "where": f"{BATCH} <"}, "is no condition"),
        ({BATCH: [8], "where": f"{BATCH} > 8"}, "leaves no point"),
        ({BATCH: [8], "where": f"{BATCH} < 'x'"}, "cannot be worked out at workloads.decode.batch_per_accelerator = 8"),
        ({BATCH: [8], "where": f"{BATCH} / 0 > 1"}, "cannot be worked out"),
        ({BATCH: [8], "where": "'a' * 100000000 == 'b'"}, "cannot be worked out.*is no number"),
        ({BATCH: [8], "where": 7}, "expected a condition such as"),
        ({"zip": {BATCH: [8, 16], CONTEXT: [1024]}}, "as many values each, got .*: 2, .*: 1"),
        ({"zip": {BATCH: [8]}}, "expected two keys or more that go together"),
        ({"zip": []}, "got an empty list"),
        ({"zip": {BATCH: [8, 8], CONTEXT: [1024, 1024]}}, "stands here twice"),
        ({BATCH: [8], "zip": {BATCH: [8, 16], CONTEXT: [1, 2]}}, "the key is swept twice"),
        ({"zip": {BATCH: [], CONTEXT: []}}, "expected a list or"),
        ({"workload.batch": [1]}, "batch"),
    ],
)
def test_what_is_no_sweep_is_refused(sweep: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        points(sweep)
