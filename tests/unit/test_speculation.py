"""Tokens proposed and verified in a step: chains, trees, acceptance by depth, models that draft."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import cmsim
from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec, Speculative
from cmsim.workload.generate import inference
from cmsim.workload.ops import Programs


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"draft_tokens": 1, "acceptance": 0.7}, 1.7, id="S01"),
        pytest.param({"draft_tokens": 1, "acceptance": 0.85}, 1.85, id="S02"),
        pytest.param({"draft_tokens": 4, "acceptance": 0.8}, 3.3616, id="S03"),
        pytest.param({"draft_tokens": 3, "acceptance": 1.0}, 4.0, id="always"),
        pytest.param({"draft_tokens": 3, "acceptance": [0.8, 0.5, 0.25]}, 1 + 0.8 + 0.4 + 0.1, id="by depth"),
        pytest.param({"tree": [1, 1], "acceptance": 0.8}, 1 + 0.8 + 0.64, id="a tree of one branch"),
        # of four the second to fourth are right in a fifth of the rest each; then one behind each of them
        pytest.param({"tree": [4, 4], "acceptance": 0.6, "siblings": 0.2}, 1 + 0.7952 * 1.6, id="tree"),
        pytest.param({"tree": [2, 1], "acceptance": 0.5, "siblings": 0.0}, 1 + 0.5 + 0.5 * 0.25, id="half goes on"),
    ],
)
def test_tokens_of_a_step(said: dict[str, Any], expected: float):
    assert Speculative(**said).accepted == pytest.approx(expected, rel=1e-6)


def test_speed_up_S04():
    assert Speculative(acceptance=0.7).accepted * 874 / 1260 == pytest.approx(1.17920635, rel=1e-6)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tree": [2], "draft_tokens": 2, "acceptance": 0.7, "siblings": 0.2}, "goes without `draft_tokens`"),
        ({"draft_tokens": 2, "acceptance": [0.7]}, "got 1 numbers for 2 depths"),
        ({"tree": [2, 4], "acceptance": 0.7}, "siblings: goes with"),
        ({"tree": [1, 1], "acceptance": 0.7, "siblings": 0.1}, "siblings: goes with"),
        ({"tree": [256] * 17, "acceptance": 0.7, "siblings": 0.1}, "at most 4096"),
    ],
)
def test_what_does_not_go_together(said: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Speculative(**said)


def step(of: str = "llama-3.1-70b", tp: int = 8, **said: Any) -> Programs:
    keys = {"batch_per_accelerator": 1, "context_tokens": 1000, "parallel": {"tp": tp}}
    spec = DecodeSpec(kind="decode", model=of, **keys, **({"speculative": said} if said else {}))
    return inference.decode(spec, load_system("hgx_h100"))


def rows(made: Programs, name: str) -> np.ndarray:
    return made.ops.flops[np.array(made.ops.names)[made.ops.name_id] == name]


def test_all_of_a_tree_is_verified_and_each_depth_is_a_pass():
    plain, tree = step(), step(tree=[2, 6, 3], acceptance=0.7, siblings=0.2)
    assert rows(tree, "q, k, v")[0] == pytest.approx(12 * rows(plain, "q, k, v")[0])
    # drafts continue the last token, then two, then six
    assert rows(tree, "q, k, v")[80:] / rows(plain, "q, k, v")[0] == pytest.approx([1, 2, 6])
    assert tree.least.flops["bf16"] == pytest.approx(12 * plain.least.flops["bf16"])


def test_a_model_that_drafts_runs_all_of_its_layers():
    own, other = (step(draft_tokens=2, acceptance=0.7, model=name) for name in (None, "llama-3.1-8b"))
    assert len(rows(own, "q, k, v")) == 80 + 2 and len(rows(other, "q, k, v")) == 80 + 2 * 32
    small = step("llama-3.1-8b")
    for line in ("weights", "cache"):
        more = other.footprint_B[line][0] - own.footprint_B[line][0]
        # its cache has as many new tokens as are verified, two more than without drafts
        assert more == pytest.approx(small.footprint_B[line][0], rel=0.003)
    assert not any("one more layer" in note for note in other.notes)


@pytest.mark.parametrize(
    ("name", "tp", "message"),
    [("qwen3-30b-a3b", 8, "it has experts"), ("bert-base", 8, "encoder"), ("llama-2-7b", 8, "knows 32000 tokens")],
)
def test_models_that_cannot_draft(name: str, tp: int, message: str):
    with pytest.raises(cmsim.errors.InfeasibleError, match=message):
        step(tp=tp, acceptance=0.7, model=name)
