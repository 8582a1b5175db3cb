"""The verdict in words: computed sentences that say what the tables say, and nothing that they do not."""

from __future__ import annotations

import dataclasses

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.identity import Entry, Identity
from cmsim.kinds import MachineFacts
from cmsim.results import Failed, Infeasible, Result, Results
from cmsim.results.verdict import verdict


def told(system="large", batch=8, workload="decode", key="batch_per_accelerator"):
    """What a run carries of its identity."""
    one = Identity(workload, Entry(0, system), {f"workloads.{workload}.{key}": batch} if batch else {})
    return {"run": one.label, "workload": workload, "system": system, "entry": one.entry, "point": one.point}


def infeasible(system, batch):
    return Infeasible(**told(system, batch), kind="decode", message="does not fit")


def made(system="large", batch=8, workload="decode", kind="decode", rate=1000.0, latency=0.02, watts=1e4, **changes):
    metrics = {"tokens_per_s": rate, "makespan_s": latency, "power_avg_W": watts}
    metrics |= {"decode": {"tpot_s": latency}, "prefill": {"ttft_s": latency}}.get(kind, {})
    result = Result(
        **told(system, batch, workload),
        accelerators={"large": 100, "small": 10}.get(system, 50),
        ranks=100,
        metrics=metrics,
        bound={"name": "HBM", "time_s": latency / 2, "fraction": 0.5},
        limiter="memory",
        breakdown={},
        machine=MachineFacts(racks=4.0 if system == "large" else 1.0),
        kind=kind,
    )
    return dataclasses.replace(result, **changes)


def test_who_gives_more_on_each_basis():
    (text,) = verdict([made(batch=0), made("small", 0, rate=500.0, latency=0.01, watts=2e3)])
    # 1000/100 against 500/10 per accelerator, 250 against 500 per rack, 0.1 against 0.25 per W
    assert text == (
        "decode: large gives 2.0 times the tokens/s of small in all; small gives 5.0 times the tokens/s of large per "
        "accelerator, 2.0 times per rack and 2.5 times per megawatt. A token takes large 20.0 ms and small 10.0 ms. "
        "large and small are limited by memory and reach 50 and 50 % of their physical bounds."
    )


def test_ranges_over_a_sweep_and_the_rate_at_the_pace_of_the_slower():
    results = [
        made(batch=8, rate=1000.0, latency=0.020),
        made(batch=64, rate=3000.0, latency=0.040, limiter="compute"),
        made("small", 8, rate=500.0, latency=0.010, watts=2e3),
        made("small", 64, rate=1000.0, latency=0.015, watts=2e3),
    ]
    (text,) = Results(results).verdict()
    assert text.startswith(
        "decode: at equal batch_per_accelerator large gives 2.0 to 3.0 times the tokens/s of small in all; small gives "
        "3.3 to 5.0 times the tokens/s of large per accelerator"
    )
    # at 20 ms the larger batch of the small one is quick enough
    assert (
        "Where a token may take no longer than 20.0 ms, the least that large needs, it gives 10 tokens/s per "
        "accelerator and small 100." in text
    )
    assert "large is limited by memory at 8 and compute at 64 and reaches 50 % of its physical bound; small is" in text


def test_who_is_not_concerned_by_the_sweep_stands_at_each_of_its_points():
    (text,) = verdict([made(batch=0), *(made("small", batch, rate=rate) for batch, rate in ((8, 500.0), (64, 250.0)))])
    assert text.startswith(
        "decode: whatever the batch_per_accelerator large gives 2.0 to 4.0 times the tokens/s of small in all"
    )


def test_leads_that_change_over_the_sweep_are_told_by_point():
    results = [made(batch=b, rate=r) for b, r in ((8, 100.0), (16, 200.0), (32, 5000.0))]
    results += [made("small", b, rate=500.0) for b in (8, 16, 32)]
    (text,) = verdict(results)
    assert "in all small leads at 8 to 16 and large leads at 32" in text


def test_what_is_alike_is_no_lead():
    (text,) = verdict(
        [made(batch=0), made("other", 0, rate=1010.0, accelerators=100, watts=1e4, machine=MachineFacts(racks=4.0))]
    )
    assert "in all other and large are alike" in text and "times" not in text


def test_where_bands_of_power_overlap_it_cannot_be_told():
    def banded(result, low, high):
        metrics = {**result.metrics, "power_avg_W_low": low, "power_avg_W_high": high}
        return dataclasses.replace(result, metrics=metrics)

    small = made("small", 0, rate=500.0, watts=4e3)
    apart = verdict([banded(made(batch=0), 9e3, 1.1e4), small])[0]
    # 500 per 4 kW is 0.125 tokens/J, 1000 over 9 to 11 kW 0.091 to 0.111
    assert "1.2 times per megawatt" in apart
    over = verdict([banded(made(batch=0), 7e3, 1.3e4), small])[0]
    assert "per megawatt it cannot be told who gives more, for the bands of their power overlap" in over
    assert "2.0 times the tokens/s of small in all" in over
    both = verdict([banded(made(batch=0), 9.9e3, 1.01e4), banded(small, 3e3, 4.1e3)])[0]
    assert "1.2 times per megawatt" in both


def test_a_basis_that_is_not_known_is_not_spoken_of():
    without = {"tokens_per_s": 1000.0, "makespan_s": 0.02}
    (text,) = verdict(
        [
            made(batch=0, metrics=without, machine=MachineFacts()),
            made("small", 0, metrics=without, machine=MachineFacts()),
        ]
    )
    assert "rack" not in text and "megawatt" not in text and "A token" not in text
    assert "in all large and small are alike" in text


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [made()],
        [made(batch=8), made(batch=16)],  # one system
        [made(batch=8), made("small", 16)],  # no point that both ran
        [made(), infeasible("small", 8)],
        [Failed(**told("small", 0), kind="decode", message="no")],
        [made(workload="a"), made("small", workload="b")],
    ],
    ids=["nothing", "one run", "one system", "other points", "only one fits", "failed", "other workloads"],
)
def test_nothing_is_said_where_there_is_nothing_to_hold_against_each_other(outcomes):
    assert verdict(outcomes) == []


def test_points_that_not_all_ran_are_left_out_and_said():
    results = [
        made(batch=8),
        infeasible("large", 64),
        made("small", 8, rate=500.0),
        made("small", 64, rate=1e9),
        infeasible("third", 8),
        Failed(**told("third", 64), kind="decode", message="no"),
    ]
    (text,) = verdict(results)
    assert "large gives 2.0 times the tokens/s of small in all" in text
    assert text.endswith("large cannot run it at 64; third cannot run it; third failed.")


def test_three_systems():
    third = made("third", 0, rate=2000.0)
    (text,) = verdict([made(batch=0), made("small", 0, rate=500.0, watts=2e3), third])
    assert "third gives 2.0 times the tokens/s of large in all" in text
    assert "small gives 1.2 times the tokens/s of third per accelerator" in text


def test_collectives_are_as_fast():
    def one(system, size, time_s):
        metrics = {"time_s": time_s, "makespan_s": time_s, "busbw_GBps": 1.0}
        return dataclasses.replace(
            made(kind="collective", metrics=metrics), **told(system, size, "sum", "message_bytes")
        )

    (text,) = verdict([one("large", 8, 2e-6), one("large", 64, 3e-6), one("small", 8, 1e-6), one("small", 64, 2e-6)])
    assert text.startswith("sum: at equal message_bytes small is 1.5 to 2.0 times as fast as large. ")
    (text,) = verdict([one("large", 8, 2e-6), one("large", 64, 3e-6), one("small", 8, 1e-6), one("small", 64, 4e-6)])
    assert "small leads at 8 and large leads at 64" in text


# the real thing


@pytest.fixture(scope="module")
def steps():
    return cmsim.run("supernode_against_rack")


def test_it_says_what_its_table_says(steps):
    texts = dict(text.split(": ", 1) for text in steps.verdict())
    assert list(texts) == ["prefill", "decode", "training", "resnet50"]
    for workload in ("prefill", "training"):
        large, small = (steps[f"{workload}/{name}"] for name in ("cloudmatrix384", "gb200_nvl72"))
        ratio = large.metric("tokens_per_s") / small.metric("tokens_per_s")
        assert f"cloudmatrix384 gives {ratio:.1f} times the tokens/s of gb200_nvl72 in all" in texts[workload]
    quickest = steps["decode/cloudmatrix384/batch_per_accelerator=8"].metric("tpot_s")
    assert f"may take no longer than {1e3 * quickest:.1f} ms, the least that cloudmatrix384 needs" in texts["decode"]
    for text in texts.values():
        assert not any(word in text for word in ("nan", "inf ", "None", "  ", ".."))
        assert 2 <= text.count(". ") + 1 <= 4


def test_it_ends_what_the_command_prints(steps, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    printed = CliRunner().invoke(app, ["run", "supernode_against_rack"]).stdout
    words = " ".join(printed.split())
    assert words.endswith(" ".join(" ".join(steps.verdict()).split()))
    one = CliRunner().invoke(app, ["run", "allreduce", "--set", "systems=[gb200_nvl72]"])
    assert one.exit_code == 0 and "physical bound" not in one.stdout


def service(system: str, stable: str = "yes", kept: float = 0.954, accelerators: int = 40) -> Result:
    metrics = {"output_tokens_per_s": 1000.0, "makespan_s": 10.0, "tpot_s_p50": 0.02, "stable": stable}
    if stable == "yes":
        metrics |= {"ttft_s_p50": 0.5, "slo_attainment": kept, "goodput_requests_per_s": 12.5}
    one = made(system, 0, "chats", "serving")
    return dataclasses.replace(one, metrics=metrics, accelerators=accelerators, bound={}, limiter="")


def test_of_services_it_is_told_what_they_have_in_use_and_who_keeps_what_is_promised():
    (text,) = verdict([service("large"), service("small", kept=1.0, accelerators=10)])
    assert "(large with 40 and small with 10 accelerators)" in text
    assert "The first token takes large 500 ms and small 500 ms, and each one after it 20.0 ms and 20.0 ms" in text
    assert "95 % of users of large and 100 % of those of small have what is promised; that holds up to 12.5" in text


def test_a_service_that_does_not_keep_up_is_told():
    (text,) = verdict([service("large", stable="no"), service("small")])
    assert "large does not keep up with what comes: its users wait the longer the longer it runs." in text
    assert "The first token" not in text
