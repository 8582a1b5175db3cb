"""Figures of results made by hand: that they draw what they are given, label it, and repeat to the byte."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.identity import Entry, Identity
from cmsim.kinds import MachineFacts
from cmsim.plots import KINDS, breakdown, power, power_throughput, roofline, save, style, timeline
from cmsim.results import Result, Results

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
    assert style.prefixed(0.0, "s") == (1.0, "s")
    assert style.prefixed(5000.0, "s") == (1.0, "s")
