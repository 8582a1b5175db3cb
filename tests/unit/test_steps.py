"""Tables of steps: what is interpolated, how good it says it is, what it refuses, and what is kept."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim import api, engine, steps
from cmsim.errors import InfeasibleError, InputError
from cmsim.results import Infeasible, Result
from cmsim.scenario import Run, load_scenario
from cmsim.steps import cells, make, priced, store
from cmsim.steps.plays import Plays
from cmsim.workload import generate

DENSE: dict[str, Any] = {
    "kind": "decode",
    "model": "llama-3.1-8b",
    "batch_per_accelerator": 8,
    "context_tokens": 1024,
    "parallel": {"tp": 8},
}


def the_run(workload: dict[str, Any] | None = None, **changes: Any) -> Run:
    data = {"systems": ["hgx_h100"], "workload": {**DENSE, **(workload or {}), **changes}}
    return load_scenario(data).runs[0]


def axes(
    held: tuple[int, int] = (1, 16), tokens: tuple[int, int] = (512, 1024), **first: Any
) -> tuple[steps.Axis, ...]:
    whole = steps.Axis("workload.batch_per_accelerator", *held, name="sequences", whole=True, **first)
    return whole, steps.Axis("workload.context_tokens", *tokens)


class Fake:
    """Plays a formula of (batch, context) instead of a run, and counts."""

    def __init__(self, seconds: Any, room: float = float("inf")):
        self.seconds, self.room, self.calls = seconds, room, 0

    def __call__(self, run: Run, machines: api.Machines) -> Result | Infeasible:
        self.calls += 1
        held, tokens = run.spec.batch_per_accelerator, run.spec.context_tokens
        need_B = 1e9 * held * tokens if math.isfinite(self.room) else 0.0
        if need_B > self.room and "accelerator.memory_GB" not in run.system.set:
            budget = {"what": "memory", "needed_B": need_B, "available_B": self.room}
            return Infeasible(run.key, "w", "s", "decode", "does not fit", budget=budget)
        time_s = self.seconds(held, tokens, run)
        return Result(
            run=run.key,
            workload="w",
            system="s",
            accelerators=1,
            ranks=1,
            metrics={"makespan_s": time_s, "energy_J": 3 * time_s, "memory_peak_B": need_B},
            bound={"name": "HBM" if tokens > 700 else "compute"},
            limiter="memory",
            breakdown={},
        )


def made(fake: Fake, run: Run | None = None, over: Any = None, **how: Any) -> steps.Table:
    return steps.table(run or the_run(), over or axes(), evaluate=fake, **how)


def kinked(held: float, tokens: float, run: Any = None) -> float:
    """Linear in both, with a jump after 32 and after 96 sequences and a bend at 3,000 tokens."""
    jumps = 0.1 * (held > 32) + 0.3 * (held > 96)
    return 1.0 + jumps + 2e-6 * held * tokens + 1e-4 * max(tokens - 3000, 0)


def test_jumps_and_bends_are_found_and_the_stated_error_is_that_of_other_points():
    fake = Fake(kinked)
    table = made(fake, over=axes((1, 256), (128, 32768), line=True), points=300)
    assert table.error_max < 0.01 and not table.notes
    assert len(table.errors) == cells.HELD
    rng = random.Random(1)
    held = [rng.randint(1, 256) for _ in range(400)]
    tokens = [rng.randint(128, 32768) for _ in range(400)]
    truth = np.array([kinked(*at) for at in zip(held, tokens, strict=True)])
    told = table.step_s({"sequences": held, "context_tokens": tokens})
    assert np.abs(told.seconds / truth - 1).max() < 0.02
    assert np.quantile(np.abs(told.seconds / truth - 1), 0.95) < 0.01
    np.testing.assert_allclose(told.joules, 3 * told.seconds, rtol=1e-12)
    # right after a jump as right before it
    for at in (32, 33, 96, 97):
        assert table.at(at, 2000).seconds == pytest.approx(kinked(at, 2000), rel=2e-3)


def test_what_is_linear_takes_corners_and_points_to_check_alone():
    fake = Fake(lambda held, tokens, _: 1e-3 + 1e-6 * held * tokens)
    table = made(fake)
    assert fake.calls == 4 + 1 + cells.HELD
    assert table.error_max < 1e-12
    assert table.at(7, 600.5).seconds == pytest.approx(1e-3 + 1e-6 * 7 * 600.5, rel=1e-12)


def test_a_cost_that_goes_with_the_square_is_told_per_unit():
    fake = Fake(lambda held, tokens, _: 1e-6 * held * tokens + 1e-9 * held * tokens**2)
    table = made(fake, over=axes((1, 8), (128, 32768)))
    assert fake.calls < 60
    assert table.at(3, 10_000).seconds == pytest.approx(1e-6 * 3e4 + 1e-9 * 3 * 1e8, rel=1e-9)


@pytest.mark.parametrize("points", [1, 5, 60])
def test_points_that_do_not_suffice_are_said(points):
    table = made(Fake(lambda held, tokens, _: 1.0 + (tokens % 64) / 64), points=points)
    assert table.error_max > 0.01
    assert "sought was at most 1.0%" in table.notes[0] and f"{table.played} points" in table.notes[0]


def test_one_step_is_the_row_of_a_column():
    table = made(Fake(kinked), over=axes((1, 64), (128, 8192), line=True))
    rng = np.random.default_rng(2)
    held, tokens = rng.integers(1, 65, 500), rng.uniform(128, 8192, 500)
    rows = table.step_s({"sequences": held, "context_tokens": tokens})
    for at, one in enumerate(table.at(*pair) for pair in zip(held.tolist(), tokens.tolist(), strict=True)):
        assert (one.seconds, one.joules) == (rows.seconds[at], rows.joules[at])
        assert one.bound == rows.names[rows.bound[at]]
    assert {"HBM", "compute", "memory"} <= set(rows.names)


def test_sequences_between_are_the_next_whole_one():
    table = made(Fake(lambda held, tokens, _: held))
    assert table.at(2.2, 600).seconds == table.at(3, 600).seconds == 3
    assert table.step_s({"sequences": [2.2, 3.0], "context_tokens": 600}).seconds.tolist() == [3, 3]


def test_numbers_that_parts_do_not_divide_are_told_apart():
    def seconds(held: float, tokens: float, run: Run) -> float:
        return held + 5 * (held % 2)

    table = made(Fake(seconds), run=the_run(microbatches=2))
    (plan,) = table.plans
    assert plan.apart == (2, 1) and set(plan.families) == {(0, 0), (1, 0)}
    assert [table.at(held, 600).seconds for held in (1, 2, 7, 8, 15, 16)] == [6, 2, 12, 8, 20, 16]
    rows = table.step_s({"sequences": [1, 2, 7, 8, 15, 16], "context_tokens": 600})
    assert rows.seconds.tolist() == [6, 2, 12, 8, 20, 16]


def test_of_open_plans_a_step_takes_the_fastest():
    def seconds(held: float, tokens: float, run: Run) -> float:
        return 10 + held if run.spec.microbatches == 1 else 2 * held + 4

    table = made(Fake(seconds), run=the_run(microbatches="best"))
    assert [dict(plan.chosen) for plan in table.plans] == [{"microbatches": 1}, {"microbatches": 2}]
    rows = table.step_s({"sequences": [2, 14], "context_tokens": 600})
    assert rows.seconds == pytest.approx([8, 24]) and rows.plan.tolist() == [1, 0]
    assert table.at(14, 600).seconds == pytest.approx(24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parallel": {"tp": "best"}}, r"parallel\.tp: is left open"),
        ({"microbatches": {"best": [1, 2], "of": "energy_per_token_J"}}, "takes the fastest plan"),
    ],
)
def test_what_a_table_cannot_choose_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        made(Fake(kinked), run=the_run(changes))


def test_outside_of_the_range_nothing_is_extrapolated():
    table = made(Fake(kinked))
    for held, tokens, name, got in (
        (17, 600, "sequences", "17"),
        (0, 600, "sequences", "0"),
        (4, 1024.5, "context_tokens", "1024.5"),
        (4, float("nan"), "context_tokens", "nan"),
        (float("nan"), 600, "sequences", "nan"),
    ):
        for ask in (
            lambda held=held, tokens=tokens: table.at(held, tokens),
            lambda held=held, tokens=tokens: table.step_s({"sequences": [1, held], "context_tokens": [600, tokens]}),
        ):
            with pytest.raises(InputError, match=rf"{name}: got {got}\. Allowed: .* nothing is extrapolated"):
                ask()


def test_columns_that_are_none_are_refused():
    table = made(Fake(kinked))
    with pytest.raises(InputError, match=r"no axis 'sequence'\. Did you mean 'sequences'"):
        table.step_s({"sequence": 1, "context_tokens": 600})
    with pytest.raises(InputError, match="'context_tokens' is required"):
        table.step_s({"sequences": 1})
    with pytest.raises(InputError, match="got sequences 2, context_tokens 3"):
        table.step_s({"sequences": [1, 2], "context_tokens": [600, 700, 800]})
    with pytest.raises(InputError, match="expected sequences, context_tokens; got 1"):
        table.at(1)
    assert len(table.step_s({"sequences": [], "context_tokens": []}).seconds) == 0


@pytest.mark.parametrize(
    ("key", "low", "high", "said"),
    [
        ("system.accelerators", 1, 8, "Allowed: workload.KEY"),
        ("workload.context_tokens", 0, 8, "Allowed: whole numbers from 1"),
        ("workload.context_tokens", 9, 8, "got 9 to 8"),
    ],
)
def test_axes_that_are_none_are_refused(key: str, low: int, high: int, said: str):
    with pytest.raises(InputError, match=said):
        steps.Axis(key, low, high)


def test_keys_that_the_workload_does_not_have_are_refused():
    with pytest.raises(InputError, match="prompt_tokens"):
        made(Fake(kinked), over=[steps.Axis("workload.prompt_tokens", 1, 8)])
    with pytest.raises(InputError, match="two axes are called 'context_tokens'"):
        made(Fake(kinked), over=[steps.Axis("workload.context_tokens", 1, 8)] * 2)


def test_what_does_not_fit_is_no_number():
    room = float(api.Machines()(the_run()).rank_memory_B)
    fits = int(room / 1e9 / 8)  # tokens beside 8 sequences
    fake = Fake(kinked, room)
    table = made(fake, over=axes((1, 64), (1, 64)), points=200)
    rows = table.step_s({"sequences": [8, 8, 64], "context_tokens": [fits, fits + 1, 64]})
    assert rows.fits.tolist() == [True, False, False]
    assert np.isnan(rows.seconds).tolist() == [False, True, True] == np.isnan(rows.joules).tolist()
    assert rows.seconds[0] == pytest.approx(kinked(8, fits), rel=0.01)
    with pytest.raises(InfeasibleError, match="sequences 64, context_tokens 64"):
        table.at(64, 64)
    with pytest.raises(InfeasibleError) as error:
        table.at(8, fits + 1)
    assert error.value.budget["available_B"] == room < error.value.budget["needed_B"]


def test_a_run_of_which_nothing_fits_is_infeasible():
    run = load_scenario(
        {
            "systems": ["hgx_h100"],
            "workload": {**DENSE, "model": "deepseek-r1", "parallel": {"tp": 1, "attention": "dp"}},
        }
    ).runs[0]
    with pytest.raises(InfeasibleError, match=r"does not fit|no step of these ranges fits"):
        steps.table(run, axes((1, 4), (512, 600)), folder=None, points=10)


def test_axes_of_inference_count_sequences_of_the_busiest_holder():
    for changes, per in (({"parallel": {"tp": 8}}, 1 / 8), ({"parallel": {"tp": 2}}, 1 / 2)):
        run, machines = the_run(changes), api.Machines()
        held, tokens = steps.of_inference(run, machines)
        assert (held.called, held.unit, tokens.called) == ("sequences", per, "context_tokens")
        spec = run.spec.model_copy(update={"batch_per_accelerator": 3 * held.unit})
        result = api.evaluate(dataclasses.replace(run, spec=spec), machines)
        assert isinstance(result, Result) and result.plan["sequences_per_rank"] == 3
    prefill = {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 64}
    prompts, tokens = steps.of_inference(
        load_scenario({"systems": ["hgx_h100"], "workload": prefill}).runs[0], machines
    )
    assert (prompts.called, tokens.called) == ("prompts", "prompt_tokens")
    collective = {"kind": "collective", "collective": "all_reduce", "message_bytes": 8}
    with pytest.raises(InputError, match="Allowed: decode, prefill"):
        steps.of_inference(load_scenario({"systems": ["hgx_h100"], "workload": collective}).runs[0], machines)


def test_real_steps_between_points_are_within_one_percent():
    workload = {**DENSE, "model": "qwen3-32b", "parallel": {"tp": 4}}
    data = {"systems": [{"system": "cloudmatrix384", "accelerators": 8}], "workload": workload}
    run, machines = load_scenario(data).runs[0], api.Machines()
    over = steps.of_inference(run, machines, things=(1, 64), tokens=(1024, 8192))
    table = steps.table(run, over, machines=machines, folder=None)
    assert table.error_max < 0.01 and not table.notes and table.played < 100
    rng = random.Random(3)
    for _ in range(10):
        held, tokens = rng.randint(1, 64), rng.randint(1024, 8192)
        spec = run.spec.model_copy(update={"batch_per_accelerator": held * over[0].unit, "context_tokens": tokens})
        result = api.evaluate(dataclasses.replace(run, spec=spec), machines)
        assert isinstance(result, Result)
        one = table.at(held, tokens)
        assert one.seconds == pytest.approx(result.metric("makespan_s"), rel=0.01)
        assert one.joules == pytest.approx(result.metric("energy_J"), rel=0.01)
        rows = table.step_s({"sequences": held, "context_tokens": tokens})
        for end in ("low", "high"):
            assert getattr(rows, f"joules_{end}")[0] == pytest.approx(result.metric(f"energy_J_{end}"), rel=0.01)
        assert rows.memory_B[0] == pytest.approx(result.metric("memory_peak_B"), rel=1e-3)


def prompts(**changes: Any) -> Run:
    """Prompts of a model with dense layers, on a chip whose products are measured: their tiles are jumps."""
    workload = {
        "kind": "prefill",
        "model": "llama-3.1-8b",
        "batch_per_accelerator": 1,
        "prompt_tokens": 512,
        "parallel": {"tp": 1},
        **changes,
    }
    return load_scenario({"systems": ["gb200_nvl72"], "workload": workload}).runs[0]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_products_of_any_number_of_tokens_are_priced_as_a_run_prices_them(microbatches: int):
    run, machines = prompts(microbatches=microbatches), api.Machines()
    plays = Plays(run, steps.of_inference(run, machines), machines, api.evaluate)

    def at(held: int, tokens: int) -> Run:
        return plays.at((held * microbatches, tokens))

    system = machines(run)
    its = priced.products(at(4, 128), at(4, 256), system, None, tokens=(512, 1024), parts=microbatches)
    assert its is not None
    told = its.seconds(np.array([700, 2048, 2049, 6000]))
    assert told[2] > 1.02 * told[1]
    # the head, whose rows are prompts, is left over
    left = []
    for seconds, (held, tokens) in zip(told, ((1, 700), (1, 2048), (1, 2049), (1, 6000)), strict=True):
        programs = generate.programs(at(held, tokens).spec, system, base=None)
        held_s, _ = engine.hold_s(programs, system)
        product = np.array([*programs.ops.kernels, ""])[programs.ops.kernel] == "gemm"
        left.append(held_s[product].sum() - microbatches * seconds)
    assert 0 < left[0] < 0.05 * told[0]
    assert left == pytest.approx([left[0]] * 4, rel=1e-6)


def test_prompts_between_points_are_within_one_percent_where_every_tile_is_a_jump():
    run, machines = prompts(), api.Machines()
    over = steps.of_inference(run, machines, things=(1, 8), tokens=(128, 8192))
    table = steps.table(run, over, machines=machines, folder=None)
    assert table.error_max < 0.01 and not table.notes and table.played < 150
    rng = random.Random(4)
    points = [(1, 2048), (1, 2049), *((rng.randint(1, 8), rng.randint(128, 8192)) for _ in range(8))]
    plays = Plays(run, over, machines, api.evaluate)
    rows = table.step_s(dict(zip(("prompts", "prompt_tokens"), zip(*points, strict=True), strict=True)))
    for number, point in enumerate(points):
        one, (seconds, joules, *_) = table.at(*point), plays(point)
        assert one.seconds == pytest.approx(seconds, rel=0.01) and one.joules == pytest.approx(joules, rel=0.01)
        assert (one.seconds, one.joules) == (rows.seconds[number], rows.joules[number])
    assert table.at(1, 2049).seconds > 1.01 * table.at(1, 2048).seconds


SMALL = ((1, 4), (512, 600))


def small(folder: Path | str | None, **how: Any) -> steps.Table:
    how = {"points": 30, **how}
    return steps.table(the_run(), axes(*SMALL, unit=1 / 8), folder=folder, **how)


def test_a_table_is_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = small(tmp_path)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert small(tmp_path) is first

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a table that is kept was made again")

    make.forget()
    with monkeypatch.context() as patch:
        patch.setattr(make, "_made", never)
        again = small(tmp_path)
    assert again is not first and repr(again) == repr(first)
    asked = {"sequences": [1, 3, 4], "context_tokens": [520, 555.5, 600]}
    for name in ("seconds", "joules", "joules_low", "memory_B", "bound", "limiter"):
        assert getattr(again.step_s(asked), name).tolist() == getattr(first.step_s(asked), name).tolist()
    make.forget()
    file.unlink()
    small(tmp_path)
    assert file.read_bytes() == data


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None):
    first = small(tmp_path)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :] if damage is None else damage)
    make.forget()
    assert repr(small(tmp_path)) == repr(first)
    assert file.read_bytes() == data


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path):
    (tmp_path / "file").write_text("")
    make.forget()
    assert small(tmp_path / "file" / "below").played
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv(store.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.folder() == tmp_path / "cmsim" / "steps"
    monkeypatch.setenv(store.ENVIRONMENT, str(tmp_path / "here"))
    assert store.folder() == tmp_path / "here"
    monkeypatch.setenv(store.ENVIRONMENT, "")
    assert store.folder() is None
    make.forget()
    assert small("").played and not list(tmp_path.iterdir())


def test_the_digest_follows_what_goes_in(tmp_path: Path):
    machines, over = api.Machines(), axes()

    def of(run: Run, over: Any = over, **how: Any) -> str:
        return store.digest(run, over, api.Machines(tmp_path), **({"tolerance": 0.01} | how))

    entry = {"system": "hgx_h100", "set": {"accelerator.memory_GBps": 3000}}
    slower = load_scenario({"systems": [entry], "workload": DENSE}).runs[0]
    seeded = load_scenario({"systems": ["hgx_h100"], "workload": DENSE, "seed": 2}).runs[0]
    model = tmp_path / "config.json"
    text = (store.reading.DATA / "workloads" / "models" / "llama-3.1-8b.json").read_text(encoding="utf-8")
    model.write_text(text, encoding="utf-8")
    named = the_run(model=str(model))
    seen = [
        of(the_run()),
        of(slower),
        of(seeded),
        of(the_run(microbatches=2)),
        of(named),
        of(the_run(), tolerance=0.02),
    ]
    seen.append(of(the_run(), axes((1, 17))))
    model.write_text(text + "\n", encoding="utf-8")
    seen.append(of(named))
    assert len(set(seen)) == len(seen)
    assert store.digest(the_run(), over, machines, tolerance=0.01) == seen[0]


SCRIPT = """
import sys
from cmsim import steps
from cmsim.scenario import load_scenario
run = load_scenario({"systems": ["hgx_h100"], "workload": %r}).runs[0]
over = [
    steps.Axis("workload.batch_per_accelerator", 1, 4, name="sequences", unit=1 / 8, whole=True),
    steps.Axis("workload.context_tokens", 512, 600),
]
steps.table(run, over, folder=sys.argv[1], points=30)
"""


def test_processes_side_by_side_make_the_same_bytes(tmp_path: Path):
    together = tmp_path / "together"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT % DENSE, str(together)], env={**os.environ, "PYTHONHASHSEED": str(seed)}
        )
        for seed in (1, 2)
    ]
    small(tmp_path / "here")
    assert [process.wait() for process in processes] == [0, 0]
    (here,), (there,) = (tmp_path / "here").iterdir(), together.iterdir()
    assert here.name == there.name and here.read_bytes() == there.read_bytes()


def grown(cost: Any, low: int, high: int) -> cells.Grown:
    def play(point: cells.Point) -> Any:
        return np.array([cost(point[0])] * 2 + [0.0])

    return cells.grow((low,), (high,), cells.Played(play), line=None, room=1.0, tolerance=0.01, most=200)


def test_where_a_point_that_no_box_knows_misses_its_box_is_cut():
    # the first box is tried at 22
    out = grown(lambda x: 1.2 if 100 < x <= 400 else 1.0, 1, 1000)
    assert len(out.cells) > 2 and out.errors.max() < 0.01


def test_no_form_goes_beyond_the_corners_because_it_meets_one_point():
    # the first box is tried at 186, where the cost of one unit would be met
    play = cells.Played(lambda point: np.array([1.1236 if point[0] == 186 else 1.0] * 2 + [0.0]))
    boxes = cells._Boxes(play, 1.0, 0.01, (128,), (256,))
    assert [cell.per for cell in boxes.cells] == [(False,)] and boxes.open


def test_boxes_share_corners_along_axes_that_do_not_jump():
    def cost(point: cells.Point) -> Any:
        a, b = point
        return np.array([a * max(b, 300.0) + 1e-3 * a * b] * 2 + [0.0])

    plays = [cells.Played(cost), cells.Played(cost)]
    apart, shared = (
        cells.grow((1, 1), (9, 999), play, line=None, room=1.0, tolerance=0.01, most=900, smooth=(False, smooth))
        for play, smooth in zip(plays, (False, True), strict=True)
    )
    assert len(apart.cells) > 3 < len(shared.cells) and shared.errors.max() < 0.01
    assert len(plays[1].rows) < len(plays[0].rows)
    ends = {cell.hi[1] for cell in shared.cells}
    assert all(cell.lo[1] in ends and cell.first[1] == cell.lo[1] + 1 for cell in shared.cells if cell.lo[1] > 1)
    covered = np.zeros((10, 1000), int)
    for cell in shared.cells:
        covered[tuple(slice(first, hi + 1) for first, hi in zip(cell.first, cell.hi, strict=True))] += 1
    assert (covered[1:, 1:] == 1).all()


def test_three_axes():
    def cost(point: cells.Point) -> Any:
        a, b, c = point
        return np.array([1 + a * b + 3 * c + (b > 16), 2.0 * a, 0.0])

    grown = cells.grow((1, 1, 1), (9, 32, 9), cells.Played(cost), line=1, room=1.0, tolerance=0.01, most=400)
    assert grown.errors.max() < 0.01
    covered = np.zeros((10, 33, 10), int)
    for cell in grown.cells:
        covered[tuple(slice(lo, hi + 1) for lo, hi in zip(cell.lo, cell.hi, strict=True))] += 1
    assert (covered[1:, 1:, 1:] == 1).all()
