"""Several models on one machine: accelerators of their own, one clock, links that all of them share."""

from __future__ import annotations

import pytest

import cmsim
from cmsim.errors import InputError

FIRST = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 10, "requests": 60},
    "lengths": {"prompt_tokens": 2048, "output_tokens": 32, "least": 0.5},
    "sensitivity": False,
    "prefill": {"accelerators": 1},
    "decode": {"accelerators": 1},
}
OTHER = {
    "model": "qwen3-32b",
    "arrivals": {"process": "poisson", "rate_per_s": 4, "requests": 40},
    "lengths": {"prompt_tokens": 4096, "output_tokens": 16},
    "prefill": {"accelerators": 2, "parallel": {"tp": 2}},
    "decode": {"accelerators": 2, "parallel": {"tp": 2}},
    "slo": {"ttft_s": 2, "tpot_s": 0.1},
}


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory, monkeypatch):
    """Steps that are played are kept for this file alone."""
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "beside"))


def one(**changes):
    return cmsim.run({"systems": ["hgx_h100"], "workload": FIRST | changes}).outcomes[0]


def test_models_do_not_meet_but_on_links():
    alone, beside = one(), one(beside={"other": OTHER})
    # NICs are each package's own
    times = [name for name in alone.metrics if name.startswith(("ttft", "tpot", "e2e", "itl"))]
    assert times and all(alone.metrics[name] == beside.metrics[name] for name in times)
    frame = beside.frame("models")
    assert dict(zip(frame["name"], frame["model"], strict=True)) == {"first": "llama-3.1-8b", "other": "qwen3-32b"}
    assert (frame["stable"] == "yes").all()
    rows = frame.set_index(["name", "metric"])["value"]
    assert (rows["first", "accelerators"], rows["other", "accelerators"]) == (2, 4)
    assert rows["first", "ttft_s_p50"] == alone.metrics["ttft_s_p50"]
    assert rows["other", "slo_attainment"] == 1 and rows["other", "energy_J"] > 0
    # the network of the hosts is one for a node
    moved = [
        out.frame("requests")["moved_s"].mean()
        for out in (one(cache_moves={"over": "host"}), one(cache_moves={"over": "host"}, beside={"other": OTHER}))
    ]
    assert moved[1] > 1.01 * moved[0]


def test_models_have_accelerators_of_their_own():
    many = one(beside={"a": OTHER, "b": OTHER | {"decode": {"accelerators": 3}}})
    assert "replicas take 11 accelerators together; hgx_h100 has 8" in many.message


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (OTHER | {"model": "qwen3-33b"}, "qwen3-32b"),
        (OTHER | {"goodput": True}, "beside.a.goodput: goes with the first"),
        (OTHER | {"kind": "decode"}, "kind"),
        ({"model": "qwen3-32b"}, "beside.a.arrivals"),
    ],
)
def test_what_is_wrong_is_said(other, message):
    with pytest.raises(InputError, match=message):
        cmsim.run({"systems": ["hgx_h100"], "workload": FIRST | {"beside": {"a": other}}})
