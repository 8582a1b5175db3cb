"""Figures of results made by hand: that they draw what they are given, label it, and repeat to the byte."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim import cost, numbers
from cmsim.errors import InputError
from cmsim.identity import Entry, Identity
from cmsim.kinds import MachineFacts
from cmsim.kinds.collective import CollectiveFacts
from cmsim.kinds.decode import DecodeFacts
from cmsim.plots import (
    KINDS,
    break_even,
    breakdown,
    collective,
    latency,
    links,
    metric,
    pareto,
    parts,
    power,
    power_throughput,
    predicted,
    queue,
    roofline,
    save,
    scaling,
    style,
    timeline,
    tornado,
    trade_off,
    waterfall,
)
from cmsim.plots import series as lines
from cmsim.plots.window import window
from cmsim.results import Result, Results
from cmsim.validation.pairs import Pairs

BATCHES = (8, 24, 96)
#: of pictures in tests/pictures: small, with fonts that matplotlib brings. A label that is two letters away is farther
#: off than that; edges that another release blurs otherwise are not
SMALL = {"dpi": 60}
TOLERANCE = 2.0


def made(system="rack", batch=8, *, classes=2, ops_per_class=6, tokens_per_s=1e5, power_W=4e4) -> Result:
    step = 10**9
    rows = classes * ops_per_class
    end = np.tile(np.arange(1, ops_per_class + 1), classes) * step
    kinds = np.array(["compute", "collective"], dtype=object)[np.arange(rows) % 2]
    ops = {
        "rank_class": np.repeat(np.arange(classes), ops_per_class),
        "multiplicity": np.full(rows, 4),
        "stream": np.where(kinds == "compute", "compute", "comm").astype(object),
        "op": np.array([f"op{i}" for i in range(rows)], dtype=object),
        "kind": kinds,
        "start_ps": end - step,
        "end_ps": end,
        "wait_ps": np.where(kinds == "compute", 0, step // 4),
        "flops": np.where(kinds == "compute", 1e9 * (1 + np.arange(rows)), 0.0),
        "bytes_B": np.full(rows, 1e7),
        "peak_FLOPps": np.where(kinds == "compute", 4e13, 0.0),
        "precision": np.where(kinds == "compute", "bf16", "").astype(object),
        "kernel": np.where(kinds == "compute", "gemm", "").astype(object),
    }
    shares = np.array([0.5, 0.3, 0.2])
    components = ["accelerators_idle", "accelerators_compute", "facility"]
    whole = ops_per_class * step
    power_columns = {
        "component": np.repeat(np.array(components, dtype=object), 2),
        "start_ps": np.tile([0, whole // 2], 3),
        "end_ps": np.tile([whole // 2, whole], 3),
        "power_W": np.outer(shares, [0.8, 1.2]).ravel() * power_W,
    }
    swing_W = np.sin(np.arange(40) / 3) * power_W / 10
    power_curve = {"start_s": np.arange(40) * 0.5, "power_W": power_W + swing_W}
    time_s = whole / 1e12
    one = Identity("decode", Entry(0, system), {"workloads.decode.batch_per_accelerator": batch})
    return Result(
        run=one.label,
        workload="decode",
        entry=one.entry,
        point=one.point,
        system=system,
        accelerators=8,
        ranks=8,
        metrics={"tokens_per_s": tokens_per_s, "power_avg_W": power_W, "makespan_s": time_s},
        bound={"name": "HBM", "time_s": time_s / 2, "fraction": 0.5},
        limiter="memory",
        breakdown={"compute_s": 0.2 * time_s, "memory_s": 0.5 * time_s, "link_s": 0.3 * time_s, "host_s": 0.0},
        machine=MachineFacts(memory_Bps=2e12),
        columns={"ops": ops, "power": power_columns, "power_curve": power_curve},
    )


def swept() -> Results:
    return Results(
        tuple(
            made(system, batch, tokens_per_s=scale * batch**0.7 * 1e4, power_W=watts * (1 + batch / 400))
            for system, scale, watts in (("supernode", 4.0, 4e5), ("rack", 1.0, 1.2e5))
            for batch in BATCHES
        )
    )


def call(system="box", size_B=2**20, **more) -> Result:
    """A call of a collective at 100 GB/s behind 10 us, under a bound of 200 GB/s."""
    time_s = 1e-5 + size_B / 1e11
    one = Identity("collective", Entry(0, system), {"workloads.collective.message_bytes": size_B})
    metrics = {"time_s": time_s, "makespan_s": time_s, "algbw_GBps": size_B / time_s / 1e9}
    metrics = {**metrics, "busbw_GBps": 1.75 * size_B / time_s / 1e9, "bound_egress_s": size_B / 2e11}
    facts = CollectiveFacts(size_B=float(size_B), ranks_in_group=8.0)
    rest = {"metrics": metrics, "entry": one.entry, "point": one.point, "facts": facts, "kind": "collective", **more}
    return dataclasses.replace(made(system), run=one.label, workload="collective", breakdown={}, **rest)


def calls() -> Results:
    return Results(tuple(call(system, size_B) for system in ("box", "ring") for size_B in (2**30, 2**12, 2**20)))


def served() -> Results:
    """A service at three rates: the more requests come, the longer they wait."""
    out = []
    for rate in (1, 2, 4):
        one = Identity("serving", Entry(0, "box"), {"workloads.serving.arrivals.rate_per_s": rate})
        waited = np.linspace(0.1, 0.1 * rate, 50)
        requests = {
            "outcome": np.array(["done"] * 48 + ["timed_out"] * 2, dtype=object),
            "waited_s": waited,
            "prefill_s": np.full(50, 0.2),
            "moved_s": np.zeros(50),
            "decode_s": np.full(50, 1.0),
            "e2e_s": waited + 1.2,
            "generated_tokens": np.full(50, 11),
        }
        load = {
            "start_s": np.arange(5.0),
            "end_s": np.arange(1.0, 6.0),
            "waiting": np.arange(5.0) * rate,
            "running": np.full(5, 3.0),
            "cached_tokens": np.arange(5) * 1000.0,
        }
        rest = {"kind": "serving", "columns": {"requests": requests, "load": load}}
        metrics = {"ttft_s_p99": 0.2 + 0.1 * rate, "output_tokens_per_s": 10.0 * rate, "makespan_s": 5.0}
        rest |= {"metrics": metrics, "entry": one.entry, "point": one.point, "breakdown": {}}
        out.append(dataclasses.replace(made("box"), run=one.label, workload="serving", **rest))
    return Results(tuple(out))


def billed() -> Results:
    """Two machines with a bill, and what their figures stand on."""
    moved = {"name": "file: key", "draw": "key", "value": 1.0, "low": 0.5, "high": 2.0}
    effects = {"tokens_per_s": [-0.2, 0.1], "power_avg_W": [0.1, -0.1], "cost_per_Mtoken_USD": [0.2, -0.1]}
    ledger = {"draws": 200, "seed": 0, "assumptions": [{**moved, "effects": effects}], "errors": []}
    out = []
    for one in swept():
        parts = {f"cost_{name}_per_hour_USD": 10.0 for name in cost.PARTS}
        hour = {**parts, "cost_per_hour_USD": 80.0}
        each = {"cost_per_Mtoken_USD": cost.million_USD(80.0, one.metric("tokens_per_s"))}
        machine = dataclasses.replace(
            one.machine, price_USD=4e5, utilisation=0.8, price_per_kWh_USD=9e3 / one.metric("power_avg_W")
        )
        out.append(
            dataclasses.replace(one, metrics={**one.metrics, **hour, **each}, machine=machine, uncertainty=ledger)
        )
    return Results(tuple(out))


def grown(*, weak=False) -> Results:
    """Steps on one to eight boxes, of the same work or of work that grows with them; more boxes, more is lost."""
    out = []
    for system, lost in (("supernode", 0.02), ("rack", 0.15)):
        for doubled in range(4):
            boxes = 2**doubled
            point = {"systems.0.domains": boxes} | ({"workloads.decode.batch": 8 * boxes} if weak else {})
            one = made(system, tokens_per_s=1e5 * boxes * (1 - lost) ** doubled)
            work = boxes if weak else 1
            time_s = 1e6 * work / one.metric("tokens_per_s")
            run = Identity("decode", Entry(0, system), point).label
            changed = {"run": run, "point": point, "accelerators": 8 * boxes}
            out.append(dataclasses.replace(one, metrics={**one.metrics, "makespan_s": time_s}, **changed))
    return Results(tuple(out))


def moved(resources=3) -> Results:
    """A run whose first resource is full half of the time, and the others a part of it, in four stretches."""
    one = made()
    whole = round(one.metric("makespan_s") * 1e12)
    names = [f"port.out[{i}]" for i in range(resources)]
    links = {
        "resource": np.array(names, dtype=object),
        "instances": np.array([4] + [1] * (resources - 1)),
        "start_ps": np.array([0] + [whole // 2] * (resources - 1)),
        "end_ps": np.array([whole // 2] + [whole] * (resources - 1)),
        "utilization": np.array([1.0] + [0.4] * (resources - 1)),
        "times": np.array([1] + [4] * (resources - 1)),
        "each_ps": np.array([whole // 2] + [whole // 16] * (resources - 1)),
    }
    return Results((one, dataclasses.replace(one, run="moved", columns={**one.columns, "links": links})))


def of(kind) -> Results:
    if kind in ("scaling", "links"):
        return grown() if kind == "scaling" else moved()
    if kind in ("latency", "queue"):
        return served()
    if kind in ("tornado", "break-even"):
        return billed()
    return calls() if kind == "collective" else Results(tuple(_with_latency())) if kind == "pareto" else swept()


def swept_twice(points=((8, 1024), (24, 1024), (96, 1024), (8, 4096), (24, 4096))) -> list[Result]:
    """A sweep over batch and context, of which the longer has half the throughput."""
    out = []
    for batch, context in points:
        point = {"workloads.decode.context_tokens": context, "workloads.decode.batch_per_accelerator": batch}
        one = made("rack", batch, tokens_per_s=1e4 * batch**0.7 * 1024 / context)
        out.append(dataclasses.replace(one, run=Identity("decode", one.entry, point).label, point=point))
    return out


def lines_of(ax):
    return [line for line in ax.lines if line.get_marker() not in ("None", "")]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_visible()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn_and_repeats(kind, tmp_path):
    first = save(KINDS[kind](of(kind)), tmp_path / "one.png")
    second = save(KINDS[kind](of(kind)), tmp_path / "deep" / "two.png")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[:4] == b"\x89PNG" and len(first.read_bytes()) > 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_takes_axes_and_touches_nothing_else(kind):
    from matplotlib import _pylab_helpers
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert KINDS[kind](of(kind), ax) is ax
    assert ax.has_data() and ax.get_xlabel()
    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_draw_is_said(kind):
    with pytest.raises(InputError, match=r"no result to draw|there is none"):
        KINDS[kind](Results(()))


def test_power_over_throughput_has_a_line_per_system():
    ax = power_throughput.draw(swept())
    lines = [line for line in ax.lines if line.get_marker() != "None"]
    assert len(lines) == 2
    expected = [result.metric("tokens_per_s") for result in swept() if result.system == "rack"]
    assert lines[1].get_xdata() * 1e3 == pytest.approx(expected)
    assert lines[1].get_ydata() * 1e3 == pytest.approx([122.4e3, 127.2e3, 148.8e3])
    assert {"supernode", "rack", "8", "24", "96"} <= set(texts(ax))
    assert ax.get_xlabel() == "throughput [thousand tokens/s]"
    assert ax.get_ylabel() == "facility power, average [kW]"
    assert "batch per accelerator" in ax.get_title(loc="left")


def test_bands_are_of_draws_where_there_are_any():
    ax = power_throughput.draw(billed())
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    watts = [one.metric("power_avg_W") / 1e3 for one in billed() if one.system == "supernode"]
    # nine of ten draws of an effect of a tenth on either side
    assert band.max() == pytest.approx(max(watts) * np.exp(0.09), rel=0.02)
    across = [one for one in ax.collections if len(one.get_paths()) and one.get_paths()[0].vertices.shape == (2, 2)]
    assert len(across) == len(billed())


def test_power_over_throughput_per_something():
    ax = power_throughput.draw(billed(), per="accelerator")
    assert ax.get_ylabel() == "facility power, average per accelerator [kW]"
    assert lines_of(ax)[1].get_ydata() == pytest.approx([122.4 / 8, 127.2 / 8, 148.8 / 8])
    with pytest.raises(InputError, match="cannot draw per 'megawatt'"):
        power_throughput.draw(billed(), per="megawatt")


def test_a_tornado_has_the_ends_and_the_share():
    ax = tornado.draw(billed(), metric="power_avg_W")
    value = billed()[0].metric("power_avg_W") / 1e3
    ends = sorted(bar.get_x() + bar.get_width() for bar in ax.patches if bar.get_height() < 1)
    assert [value * np.exp(end) for end in (-0.1, 0.1)] == pytest.approx(ends)
    assert texts(ax) == ["100 %"]


def test_a_break_even_has_the_answer_above_it():
    ax = break_even.draw(billed())
    figure = ax.get_figure()
    assert len(figure.axes) == 3
    assert "supernode wins below" in figure.get_suptitle() and "in nine of ten draws" in figure.get_suptitle()


def test_rays_join_points_of_equal_efficiency():
    ax = power_throughput.draw(swept())
    rays = {text: line for line, text in zip((x for x in ax.lines if x.get_marker() == "None"), _rays(ax), strict=True)}
    assert rays
    for text, line in rays.items():
        value, unit = text.split()
        x, y = line.get_xdata()[-1], line.get_ydata()[-1]
        assert x / y == pytest.approx(float(value) if unit == "tokens/J" else 1 / float(value))


def _rays(ax):
    return [said for text in ax.texts if (said := text.get_text()).endswith(("tokens/J", "J/token"))]


@pytest.mark.parametrize("tokens_per_J", [7.0, 0.3, 0.03, 1.4])
def test_rays_have_round_numbers(tokens_per_J):
    ax = power_throughput.draw(Results([made(tokens_per_s=4e4 * tokens_per_J)]))
    said = _rays(ax)
    assert said and len({text.split()[1] for text in said}) == 1
    for text in said:
        digits = text.split()[0].replace(",", "").replace(".", "").strip("0")
        assert digits in ("1", "2", "3", "5"), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.mpl_image_compare(baseline_dir="../pictures", tolerance=TOLERANCE, savefig_kwargs=SMALL)
def test_looks(kind):
    return KINDS[kind](of(kind)).get_figure()


@pytest.mark.mpl_image_compare(baseline_dir="../pictures", tolerance=TOLERANCE, savefig_kwargs=SMALL)
def test_looks_of_predicted():
    groups = [pairs("ring", "judged", [1.0, 1.2]), pairs("tree", "fitted", [1.05]), pairs("ring", "left_out", [0.5])]
    return predicted.draw(groups, title="Rings").get_figure()


def test_strong_scaling_is_the_same_work():
    ax = scaling.draw(grown())
    throughput, perfect = ax.lines[:2]
    assert throughput.get_xdata().tolist() == [8, 16, 32, 64]
    assert perfect.get_ydata() == pytest.approx(1e5 * np.array([1, 2, 4, 8]))
    _, lower = ax.get_figure().axes
    assert lower.lines[0].get_ydata() == pytest.approx(100 * 0.98 ** np.arange(4))
    assert lower.lines[1].get_ydata() == pytest.approx(100 * 0.85 ** np.arange(4))
    assert ax.get_title(loc="left").startswith("Strong scaling")
    times = scaling.draw(grown(), metric="makespan_s")
    assert times.lines[1].get_ydata() == pytest.approx(10 / np.array([1, 2, 4, 8]))


def test_weak_scaling_is_work_that_grows_and_keys_that_go_together_are_one_line():
    ax = scaling.draw(grown(weak=True), metric="makespan_s")
    assert len(ax.lines) == 4 and ax.get_title(loc="left").startswith("Weak scaling")
    assert ax.lines[1].get_ydata() == pytest.approx([10] * 4)


@pytest.mark.parametrize("metric", ["mfu", "power_avg_W"])
def test_scaling_is_of_throughput_or_time(metric):
    with pytest.raises(InputError, match=f"scaling draws no '{metric}'. Allowed: tokens_per_s, makespan_s"):
        scaling.draw(grown(), metric=metric)


def test_links_in_use_are_means_over_stretches():
    ax = links.draw(moved())  # the first that moved anything
    assert ax.get_title(loc="left") == "Links in use: moved"
    shown = np.asarray(ax.images[0].get_array())
    assert shown[0, :199] == pytest.approx(np.full(199, 100)) and not shown[0, 201:].any()
    # four stretches of a sixteenth each are half of the half that they are in
    assert shown[1].mean() == pytest.approx(40 / 4, rel=1e-6)
    assert ax.get_yticklabels()[0].get_text() == "port.out[0]  ×4"


def test_of_many_links_those_most_in_use_are_drawn():
    ax = links.draw(moved(40))
    assert ax.images[0].get_array().shape[0] == 24
    assert ax.get_title(loc="left").endswith("24 of 40 classes of links, those most in use")


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_no_formulas(kind, tmp_path):
    odd = [
        dataclasses.replace(one, run="$\\frac{$", workload="$\\frac{$", entry=Entry(0, "$\\x{$" + one.system))
        for one in of(kind)
    ]
    save(KINDS[kind](Results(tuple(odd))), tmp_path / "odd.png")


def test_two_folders_are_two_series():
    slow = [dataclasses.replace(one, metrics={**one.metrics, "tokens_per_s": 1e4}) for one in swept()]
    both = Results.joined([swept(), Results(tuple(slow))], ["fast", "slow"])
    ax = power_throughput.draw(both)
    assert [len(line.get_xdata()) for line in lines_of(ax)] == [3] * 4
    strokes = {line.get_linestyle() for line in lines_of(ax)}
    assert len(strokes) == 2
    assert {"supernode, fast", "supernode, slow", "rack, fast", "rack, slow"} <= set(texts(ax))
    # without names they are numbered, and a set alone has none
    assert {one.source for one in Results.joined([swept(), swept()])} == {"1", "2"}
    assert {one.source for one in Results.joined([swept()], ["alone"])} == {""}


def test_a_sweep_over_two_keys_is_a_family_of_lines():
    for points in (swept_twice(), swept_twice()[::-1]):
        found = lines.series(points, lambda one: True)
        assert {line.along for line in found} == {"batch_per_accelerator"}
        by_context = {line.fixed["context_tokens"]: [line.said(one) for one in line.runs] for line in found}
        assert by_context == {"1024": ["8", "24", "96"], "4096": ["8", "24"]}
        assert len({line.colour for line in found}) == 2 and len({line.ink for line in found}) == 1
    ax = power_throughput.draw(Results(tuple(swept_twice())))
    assert "context tokens 4,096" in texts(ax) and "decode, context tokens 1,024" in texts(ax)
    assert ax.get_title(loc="left").endswith("by batch per accelerator and context tokens")
    assert len(lines_of(ax)) == 2


def test_systems_have_the_same_colours_in_every_figure():
    other = dataclasses.replace(made("none"), metrics={"makespan_s": 1.0})
    results = Results((other, *swept()))
    found = lines.colours(results)
    assert found == dict(zip(("none", "supernode", "rack"), style.SERIES, strict=False))
    drawn = lines_of(power_throughput.draw(results))
    assert [line.get_color() for line in drawn] == [found["supernode"], found["rack"]]
    with_tpot = Results((other, *_with_latency()))
    assert [line.get_color() for line in lines_of(trade_off.draw(with_tpot))] == [found["supernode"], found["rack"]]


def _with_latency() -> list[Result]:
    return [
        dataclasses.replace(
            one, kind="decode", metrics={**one.metrics, "tpot_s": 0.02, "tokens_per_s_per_accelerator": 100.0}
        )
        for one in swept()
    ]


def paced(system, batch, token_s) -> Result:
    """Every user of a batch has a token after so long."""
    one = made(system, batch, tokens_per_s=batch * 8 / token_s)
    return dataclasses.replace(one, kind="decode", metrics={**one.metrics, "tpot_s": token_s})


def test_what_users_get_against_what_accelerators_give():
    runs = [paced(name, n, t * (1 + n / 50)) for name, t in (("supernode", 0.02), ("rack", 0.01)) for n in (8, 24, 96)]
    # as slow as 96 and with less throughput: on no front
    beaten = paced("rack", 90, 0.01 * (1 + 96 / 50))
    said = {"workload": {"slo": {"ttft_s": 1, "tpot_s": 0.03}}}
    upper = pareto.draw(Results((*runs, beaten), scenario=said))
    figure = upper.get_figure()
    below = next(ax for ax in figure.axes if ax is not upper)
    looks = {line.get_label(): line for line in lines_of(upper)}
    assert [line.get_color() for line in looks.values()] == list(style.SERIES[:2])
    x, y = looks["rack"].get_data()
    assert len(x) == 3 and sorted(x, reverse=True) == list(x) and sorted(y) == list(y)
    assert max(y) == pytest.approx(96 * 8 / (0.01 * (1 + 96 / 50)) / 8)
    assert below.get_lines()[0].get_data()[1][0] == pytest.approx(8 * 8 / (0.02 * 1.16) / 4e4)
    # the pace that is promised stands in both, and its words lie on no point
    for ax in (upper, below):
        assert texts(ax) == ["30 ms a token"]
        assert any(np.allclose(line.get_xdata(), 1 / 0.03) for line in ax.lines)
        figure.draw_without_rendering()
        box = ax.texts[0].get_window_extent()
        points = np.concatenate([one.get_offsets() for one in ax.collections])
        assert not any(box.contains(*at) for at in ax.transData.transform(points))


def test_latency_stands_below_power():
    ax = power_throughput.draw(Results(tuple(_with_latency())))
    upper, lower = ax.get_figure().axes
    assert ax is upper and lower.get_ylabel() == "time of a token [ms]"
    assert lower.get_xlabel() == "throughput [thousand tokens/s]" and not upper.get_xlabel()
    for above, below in zip(lines_of(upper), lines_of(lower), strict=True):
        assert list(above.get_xdata()) == list(below.get_xdata()) and below.get_ydata() == pytest.approx([20, 20, 20])
    # nobody waits for what has no latency
    assert len(power_throughput.draw(swept()).get_figure().axes) == 1


def test_wide_ranges_are_logarithmic_and_labels_stay_apart():
    results = Results(
        [made("one", 1, tokens_per_s=1e2), made("two", 2, tokens_per_s=1e5), made("six", 2, tokens_per_s=1.01e5)]
    )
    ax = power_throughput.draw(results)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in ("one", "two", "six")]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_power_against_throughput_needs_tokens():
    result = dataclasses.replace(made(), metrics={"time_s": 1.0, "power_avg_W": 4e4})
    with pytest.raises(InputError, match="tokens_per_s and power_avg_W"):
        power_throughput.draw(Results([result]))


def test_timeline_shows_some_classes_of_many():
    ax = timeline.draw(Results([made(classes=20)]), classes=3)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["compute", "comm"] * 3
    assert texts(ax)[-3:] == ["class 0 × 4 ranks", "class 10 × 4 ranks", "class 19 × 4 ranks"]
    assert "(3 of 20 classes of ranks)" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["other kernels", "collectives", "wait"]
    assert ax.get_xlabel() == "time [ms]"


@pytest.mark.parametrize(
    ("classes", "ranks", "plan", "names"),
    [
        (3, 12, {"pp": 3}, ["stage 0 × 4 ranks", "stage 1 × 4 ranks", "stage 2 × 4 ranks"]),
        (4, 16, {"pp": 2, "ep": 4}, [f"stage {i} {a} × 4 ranks" for i in (0, 1) for a in "ab"]),
        (1, 4, {"ep": 2}, ["all 2 EP groups of 2"]),
        (2, 8, {"ep": 4}, ["class 0 × 1 EP group of 4", "class 1 × 1 EP group of 4"]),
        (2, 8, {"pp": 8}, ["class 0 × 4 ranks", "class 1 × 4 ranks"]),
        (1, 4, {}, ["all 4 ranks"]),
    ],
)
def test_classes_are_named_by_what_they_are(classes, ranks, plan, names):
    result = dataclasses.replace(made(classes=classes), ranks=ranks, plan=plan)
    assert list(parts.class_names(result).values()) == names


def layered(names=("attention", "ffn up"), layers=4, *, facts=None, plan=None) -> Result:
    """A rank that runs the same ops in every layer, 1 ms each."""
    result = made(classes=1, ops_per_class=layers * len(names))
    rows = layers * len(names)
    ops = {**result.columns["ops"], "op": np.array(names * layers, dtype=object)}
    ops |= {"kind": np.full(rows, "compute", object), "wait_ps": np.zeros(rows, int)}
    ops |= {"stream": np.full(rows, "compute", object), "kernel": np.full(rows, "", object)}
    more = {"facts": facts or DecodeFacts(1.0, 1.0, 1.0, float(layers)), "plan": plan or {}}
    return dataclasses.replace(result, columns={**result.columns, "ops": ops}, **more)


@pytest.mark.parametrize(
    ("start", "end", "expected_ms"),
    [
        (None, None, (0, 8)),
        ("layer 1", "layer 2", (2, 6)),
        ("layer 3", None, (6, 8)),
        ("1.5 ms", "3000us", (1.5, 3)),
        (0.001, 0.002, (1, 2)),
        ("step 0", "layer:0", (0, 2)),
    ],
)
def test_a_part_of_a_run_is_chosen_by_time_layer_or_step(start, end, expected_ms):
    result = layered()
    assert window(result, start, end) == pytest.approx([at * 10**9 for at in expected_ms])
    ax = timeline.draw(Results((result,)), start=start, end=end)
    assert ax.get_xlim()[1] * numbers.PREFIXES[5][0] == pytest.approx((expected_ms[1] - expected_ms[0]) * 1e-3)


def test_layers_of_micro_batches_side_by_side_are_one():
    facts = DecodeFacts(1.0, 2.0, 1.0, 2.0)
    result = layered(layers=8, facts=facts, plan={"micro_batches": 2})
    assert parts.passes(result).number.tolist() == [0, 0, 1, 1] * 2
    assert window(result, "step 1", "step 1") == (8 * 10**9, 16 * 10**9)
    numbered = layered(names=("layer 7 attention", "layer 8 ffn up"), layers=1)
    assert parts.passes(numbered).number.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("layer 4", None, "no layer 4 there: its last is 3"),
        ("step 1", None, "no step 1: its last is 0"),
        ("soon", None, "got 'soon'. Allowed: a time"),
        ("5 ms", "3 ms", "nothing lies between"),
        ("1 h", None, "Allowed"),
        ("1..2 s", None, "Allowed"),
        ("9 s", None, "nothing lies between"),
    ],
)
def test_a_part_that_is_not_there_is_said(start, end, message):
    with pytest.raises(InputError, match=message):
        window(layered(), start, end)
    with pytest.raises(InputError, match="tells its layer"):
        window(made(), "layer 1", None)


def test_parts_of_a_model_are_told_apart():
    names = ("attention", "attention backward", "expert up", "expert up wgrad", "ffn up", "head")
    ax = timeline.draw(Results((layered(names=names, layers=1),)))
    expected = ["attention", "attention, backward", "experts", "experts, backward", "feed-forward", "other kernels"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == expected
    assert "attention" in texts(ax), "names stand in bars that have room"


def test_crowded_lanes_show_the_share_of_each_part():
    ax = timeline.draw(Results((layered(names=("attention", "ffn up", "ffn down", "head"), layers=400),)))
    areas = [area.get_paths()[0].vertices for area in ax.collections]
    heights = [area[:, 1].max() - area[:, 1].min() for area in areas]
    assert len(areas) == 3 and "share of each part" in ax.get_xlabel()
    assert max(heights) < 0.8 * 0.75


def test_timeline_of_very_many_ops_is_small():
    ax = timeline.draw(Results([made(classes=1, ops_per_class=50_000)]))
    bars = [len(collection.get_paths()) for collection in ax.collections]
    assert sum(bars) < 100


def test_a_run_is_picked_by_name():
    results = swept()
    assert timeline.draw(results, run=results[4].run).get_title(loc="left") == results[4].run
    assert power.draw(results).get_title(loc="left") == results[0].run
    with pytest.raises(InputError, match="no run 'x'"):
        power.draw(results, run="x")


def test_breakdown_has_a_bar_per_run_that_is_full():
    ax = breakdown.draw(swept())
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"batch per accelerator {batch}" for _ in range(2) for batch in BATCHES]
    assert {"decode/supernode", "decode/rack"} <= set(texts(ax))
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(6, 3)
    assert widths.sum(axis=1) == pytest.approx(1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["compute", "memory", "link"]
    assert texts(ax).count("6 ms") == 6


def test_breakdown_of_sixty_runs_fits_on_a_page_and_is_read():
    ax = breakdown.draw(Results(tuple(made(f"system {i}", batch) for i in range(4) for batch in range(1, 16))))
    figure = ax.get_figure()
    assert figure.get_figheight() < 11.7
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in (*ax.get_yticklabels(), *ax.texts) if text.get_text()]
    boxes = [box for box in boxes if box.width]
    assert len(boxes) > 120
    tall = sorted(box.height * 72 / figure.dpi for box in boxes)
    assert tall[0] > 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    alone = breakdown.draw(Results((made("one"), made("two"))))
    assert [label.get_text() for label in alone.get_yticklabels()] == [made("one").run, made("two").run]


def test_labels_of_a_roofline_lie_on_no_point():
    result = made(classes=1, ops_per_class=14)
    crowd = 1e9 * np.array([1.0, 1.03] * 7) * (1 + np.arange(14) * 0.02)
    ops = {**result.columns["ops"], "kind": np.full(14, "compute", object), "flops": crowd}
    ops |= {
        "precision": np.full(14, "bf16", object),
        "peak_FLOPps": np.full(14, 4e13),
        "op": np.array([f"kernel {i}" for i in range(14)], dtype=object),
    }
    ax = roofline.draw(Results((dataclasses.replace(result, columns={**result.columns, "ops": ops}),)))
    (points,) = ax.collections
    figure = ax.get_figure()
    figure.draw_without_rendering()
    at = ax.transData.transform(points.get_offsets())
    radius = np.sqrt(points.get_sizes()) / 2 * figure.dpi / 72
    said = [text for text in ax.texts if text.get_visible() and text.get_text().startswith("kernel")]
    assert len(said) >= 4
    for text in said:
        box = text.get_window_extent()
        near = np.hypot(at[:, 0] - np.clip(at[:, 0], box.x0, box.x1), at[:, 1] - np.clip(at[:, 1], box.y0, box.y1))
        assert np.all(near >= radius), text.get_text()
    boxes = [text.get_window_extent() for text in said]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_roofline_puts_kernels_under_their_roofs():
    ax = roofline.draw(swept(), run="decode/rack/batch_per_accelerator=24")
    (points,) = ax.collections
    x, y = points.get_offsets().T
    # of the class with most kernel time: 1, 3 and 5 GFLOP over 10 MB, a millisecond each
    assert sorted(x) == pytest.approx([100, 300, 500])
    assert sorted(y) == pytest.approx([1, 3, 5])
    assert np.all(y <= np.minimum(40, x * 2e12 / 1e12))
    assert "bf16 40" in texts(ax) and "memory 2 TB/s" in texts(ax)
    without = dataclasses.replace(made(), machine=MachineFacts())
    with pytest.raises(InputError, match="no kernel has FLOPs and bytes"):
        roofline.draw(Results((without,)))


def test_power_stacks_to_the_total():
    result = made(power_W=4e4)
    ax = power.draw(Results([result]))
    top = max(path.vertices[:, 1].max() for area in ax.collections for path in area.get_paths())
    assert top == pytest.approx(1.2 * 40)
    assert ax.get_ylabel() == "facility power [kW]"
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "mean 40 kW, of it"
    assert [text.get_text() for text in legend.get_texts()] == [
        "facility (PUE)  8",
        "accelerators, compute  12",
        "accelerators, idle  20",
    ]


def test_means_of_power_do_not_beat_against_layers():
    layers, each = 300, 7
    result = layered(
        names=tuple(["attention"] + ["ffn up"] * (each - 1)), layers=layers, facts=DecodeFacts(1, 1, 1, 300)
    )
    rows, step = layers * each, 10**9
    watts = np.tile([9e4] + [3e4] * (each - 1), layers)
    columns = {"component": np.full(rows, "hosts", object), "start_ps": np.arange(rows) * step, "power_W": watts}
    columns["end_ps"] = columns["start_ps"] + step
    ax = power.draw(Results((dataclasses.replace(result, columns={**result.columns, "power": columns}),)))
    (area,) = ax.collections
    tops = area.get_paths()[0].vertices[:, 1]
    assert "means over 2 layers" in ax.get_ylabel()
    assert tops[tops > 0] == pytest.approx(watts[:each].mean() / 1e3)


def test_the_rated_power_is_a_line():
    result = dataclasses.replace(made(power_W=4e4), machine=MachineFacts(rated_W=1e5))
    ax = power.draw(Results((result,)))
    assert [line.get_ydata()[0] for line in ax.lines] == [100] and ax.get_ylim()[1] > 100
    assert "rated 100 kW: every part at its limit" in texts(ax)
    assert not power.draw(Results((made(),))).lines


def test_collectives_have_time_bandwidth_and_bounds_over_size():
    ax = collective.draw(calls())
    upper, lower = ax.get_figure().axes
    assert ax is upper
    sizes = [2**12, 2**20, 2**30]
    box, ring = lines_of(upper)
    assert list(box.get_xdata()) == sizes and list(ring.get_xdata()) == sizes
    assert box.get_ydata()[-1] / box.get_ydata()[0] == pytest.approx((1e-5 + 2**30 / 1e11) / (1e-5 + 2**12 / 1e11))
    assert lines_of(lower)[0].get_ydata()[-1] == pytest.approx(1.75 * 2**30 / (1e-5 + 2**30 / 1e11) / 1e9)
    (bound, _) = [line for line in lower.lines if line.get_marker() == "None"]
    assert bound.get_ydata() == pytest.approx([350] * 3)
    said = [text.get_text() for text in upper.get_legend().get_texts()]
    assert said == ["box", "box: bound", "ring", "ring: bound"]


def test_measured_calls_stand_beside_the_simulated():
    table = {"collective": ["all_reduce"] * 2, "n_ranks": [8, 8], "message_bytes": [2**20, 2**12]}
    table |= {"latency_us": [50.0, 12.0], "busbw_GBps": [36.7, 0.6]}
    upper, lower = collective.draw(calls(), measured=[table]).get_figure().axes
    points, below = (next(line for line in ax.lines if line.get_marker() == "x") for ax in (upper, lower))
    assert points.get_label() == "measured, all_reduce, 8 ranks"
    assert list(points.get_xdata()) == [2**12, 2**20] and list(below.get_ydata()) == [0.6, 36.7]
    with pytest.raises(InputError, match="no latency_us; it has message_bytes"):
        collective.draw(calls(), measured=[{"message_bytes": [1]}])


def test_an_unknown_file_ending(tmp_path):
    with pytest.raises(InputError, match=r"cannot draw '\.bmp' files"):
        save(breakdown.draw(swept()), tmp_path / "figure.bmp")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save(breakdown.draw(swept()), tmp_path / "file" / "figure.png")


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_drawn_for_print_too(ending, tmp_path):
    one, two = (save(breakdown.draw(swept()), tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
    assert len(one) > 5_000
    assert one == two


def test_labels_come_from_the_unit_suffix():
    assert style.words("busbw_GBps") == "busbw [GB/s]"
    assert style.words("power_peak_W", "kW") == "power peak [kW]"
    assert style.words("limiter") == "limiter"
    assert numbers.scale(0.0, "s") == (1.0, "s")
    assert numbers.scale(5000.0, "s") == (1.0, "s")


def pairs(group, role, factors, unit="us"):
    measured = 10.0 ** np.arange(1, len(factors) + 1)
    return Pairs(group, unit, role, measured, measured * np.array(factors))


def test_predicted_shows_judged_fitted_and_left_out_apart():
    from matplotlib.colors import to_hex

    groups = [
        pairs("ring", "judged", [1.0, 1.2]),
        pairs("tree", "judged", [0.9, 1.1]),
        pairs("tree", "fitted", [1.05]),
        pairs("ring", "left_out", [0.5]),
    ]
    ax = predicted.draw(groups, title="Rings")
    upper, lower = ax.get_figure().axes
    assert ax is upper and ax.get_xscale() == ax.get_yscale() == "log"
    assert (lower.get_xlabel(), ax.get_ylabel()) == ("measured or published [us]", "predicted [us]")
    ring, tree, fitted, left_out = ax.collections[2:]
    assert ring.get_offsets().tolist() == [[10, 10], [100, pytest.approx(120)]]
    assert to_hex(ring.get_facecolors()[0]) != to_hex(tree.get_facecolors()[0])
    assert not len(fitted.get_facecolors()) and to_hex(fitted.get_edgecolors()[0]) == to_hex(tree.get_facecolors()[0])
    assert to_hex(left_out.get_edgecolors()[0]) == style.MUTED
    said = [text.get_text() for text in lower.get_legend().get_texts()]
    assert said == ["ring", "tree", "fitted, not judged", "shown, not judged", "within 10 %", "within 25 %"]


def test_predicted_has_bands_and_the_error_of_each_point():
    ax = predicted.draw([pairs("us", "judged", [1.1, 0.8, 3.5])])
    _, lower = ax.get_figure().axes
    errors = lower.collections[-1].get_offsets()[:, 1].tolist()
    # the last one is +250 %, and said to be
    assert errors == pytest.approx([10, -20, 100])
    assert lower.get_title(loc="right") == "1 of 3 errors are beyond 100 % and stand at the edge"
    assert lower.get_legend().get_texts()[0].get_text() == "judged"
    wide, narrow = (band.get_paths()[0].vertices for band in ax.collections[:2])
    for band, pct in ((wide, 25), (narrow, 10)):
        ratio = sorted({round(y / x, 6) for x, y in band})
        assert ratio == pytest.approx([1 - pct / 100, 1 + pct / 100])


def test_predicted_of_several_units_says_so_and_repeats(tmp_path):
    groups = [pairs("us", "judged", [1.1]), pairs("kW", "left_out", [1.0], unit="kW")]
    ax = predicted.draw(groups)
    said = [text.get_text() for text in ax.get_figure().axes[1].get_legend().get_texts()]
    assert said[:2] == ["us", "shown, not judged (kW)"]
    assert ax.get_ylabel() == "predicted [unit in the legend]"
    save(ax, tmp_path / "one.png")
    save(predicted.draw(groups), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with pytest.raises(InputError, match="no point to draw"):
        predicted.draw([])


def test_a_metric_is_drawn_over_a_swept_key():
    ax = metric.draw(swept(), metric="power_avg_W")
    assert [line.get_label() for line in ax.lines] == ["supernode", "rack"]
    assert ax.lines[1].get_xdata().tolist() == list(BATCHES)
    assert ax.lines[1].get_ydata() * 1e3 == pytest.approx([122.4e3, 127.2e3, 148.8e3])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch per accelerator", "power avg [kW]")
    two = Results(tuple(swept_twice()))
    assert metric.draw(two, metric="tokens_per_s", over="context_tokens").get_xlabel() == "context tokens"
    assert metric.draw(served(), metric="ttft_s_p99").get_ylabel() == "ttft p99 [ms]"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": "beauty"}, "no run has a number 'beauty'"),
        ({"over": "moon"}, r"'moon' was not swept. Swept: batch_per_accelerator"),
    ],
)
def test_what_no_run_has_is_not_drawn(asked, said):
    with pytest.raises(InputError, match=said):
        metric.draw(swept(), **asked)


def test_a_metric_needs_a_swept_key():
    with pytest.raises(InputError, match="no key was swept to draw over"):
        metric.draw(Results((dataclasses.replace(made(), point={}),)), metric="tokens_per_s")


@pytest.mark.parametrize(
    ("what", "longest"), [("ttft", 0.6 - 0.3 * 2 / 49), ("tpot", 0.1), ("e2e", 1.6 - 0.3 * 2 / 49)]
)
def test_latency_is_of_requests_that_were_served(what, longest):
    ax = latency.draw(served(), metric=what)
    curves = [line for line in ax.lines if not line.get_label().startswith("_")]
    unit = {"[ms]": 1e-3, "[s]": 1.0}[ax.get_xlabel().rpartition(" ")[2]]
    assert len(curves) == 3 and all(len(line.get_xdata()) == 48 for line in curves)
    assert max(line.get_xdata()[-1] for line in curves) * unit == pytest.approx(longest)
    assert curves[0].get_ydata()[-1] == 1.0
    with pytest.raises(InputError, match="Did you mean 'ttft'"):
        latency.draw(served(), metric="ttf")


def test_services_of_one_system_are_told_apart():
    one = served()
    other = [dataclasses.replace(its, run=f"other/{its.run}", workload="other") for its in one]
    marks = {line.get_marker() for line in latency.draw(Results((*one, *other))).lines if line.get_label()[0] != "_"}
    assert len(marks) == 2 and "" not in marks


def test_a_service_over_time():
    ax = queue.draw(served(), run="serving/box/rate_per_s=4")
    running, waiting = ax.lines
    assert waiting.get_ydata()[::2].tolist() == [0, 4, 8, 12, 16] and set(running.get_ydata()) == {3.0}
    with pytest.raises(InputError, match="is no service"):
        queue.draw(swept())


def test_a_waterfall_goes_from_one_run_to_the_other():
    fast = dataclasses.replace(made("rack"), breakdown={"compute_s": 1e-3, "memory_s": 2e-3, "bubble_s": 1e-3})
    slow = dataclasses.replace(made("supernode"), breakdown={"compute_s": 1e-3, "memory_s": 5e-3, "link_s": 0.5e-3})
    ax = waterfall.draw(Results((fast, slow)))
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([4.0, 3.0, -1.0, 0.5, 6.5])
    assert [text.get_text() for text in ax.get_xticklabels()][1:-1] == ["memory", "bubble", "link"]
    assert ax.get_title(loc="left") == "supernode takes 1.62 times as long as rack"
    again = waterfall.draw(Results((fast, slow)), run=f"{slow.run},{fast.run}")
    assert again.get_title(loc="left") == "rack takes 0.615 times as long as supernode"
    with pytest.raises(InputError, match="no run 'moon'"):
        waterfall.draw(Results((fast, slow)), run=f"{slow.run},moon")
