"""Figures of results made by hand: that they draw what they are given, label it, and repeat to the byte."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.identity import Entry, Identity
from cmsim.kinds import MachineFacts
from cmsim.plots import KINDS, breakdown, power, power_throughput, predicted, roofline, save, style, timeline
from cmsim.results import Result, Results
from cmsim.validation.pairs import Pairs

BATCHES = (8, 24, 96)


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
        columns={"ops": ops, "power": power_columns},
    )


def swept() -> Results:
    return Results(
        tuple(
            made(system, batch, tokens_per_s=scale * batch**0.7 * 1e4, power_W=watts * (1 + batch / 400))
            for system, scale, watts in (("supernode", 4.0, 4e5), ("rack", 1.0, 1.2e5))
            for batch in BATCHES
        )
    )


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_visible()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn_and_repeats(kind, tmp_path):
    first = save(KINDS[kind](swept()), tmp_path / "one.png")
    second = save(KINDS[kind](swept()), tmp_path / "deep" / "two.png")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[:4] == b"\x89PNG" and len(first.read_bytes()) > 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_takes_axes_and_touches_nothing_else(kind):
    from matplotlib import _pylab_helpers
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert KINDS[kind](swept(), ax) is ax
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


def test_rays_join_points_of_equal_efficiency():
    ax = power_throughput.draw(swept())
    rays = {text: line for line, text in zip((x for x in ax.lines if x.get_marker() == "None"), _rays(ax), strict=True)}
    assert rays
    for text, line in rays.items():
        value, unit = text.split()
        x, y = line.get_xdata()[-1], line.get_ydata()[-1]
        assert x / y == pytest.approx(float(value) if unit == "tokens/J" else 1 / float(value))


def _rays(ax):
    return [text for text in texts(ax) if text.endswith(("tokens/J", "J/token"))]


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
    assert names == [
        "class 0 × 4   compute",
        "   comm",
        "class 10 × 4   compute",
        "   comm",
        "class 19 × 4   compute",
        "   comm",
    ]
    assert "(3 of 20 rank classes)" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["compute", "collective", "wait"]
    assert ax.get_xlabel() == "time [ms]"


def test_timeline_of_very_many_ops_joins_what_cannot_be_told_apart():
    ax = timeline.draw(Results([made(classes=1, ops_per_class=50_000)]))
    bars = [len(collection.get_paths()) for collection in ax.collections]
    assert sum(bars) < 15_000


def test_a_run_is_picked_by_name():
    results = swept()
    assert timeline.draw(results, run=results[4].run).get_title(loc="left") == results[4].run
    assert power.draw(results).get_title(loc="left") == results[0].run
    with pytest.raises(InputError, match="no run 'x'"):
        power.draw(results, run="x")


def test_breakdown_has_a_bar_per_run_that_is_full():
    ax = breakdown.draw(swept())
    assert [label.get_text() for label in ax.get_yticklabels()] == [result.run for result in swept()]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(6, 3)
    assert widths.sum(axis=1) == pytest.approx(1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["compute", "memory", "link"]
    assert texts(ax).count("6 ms") == 6


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
