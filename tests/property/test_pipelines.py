"""Training steps as scenarios say them, played: does a pipeline wait what its schedule's closed form says? Rows T.. are
check values, and what a stage sends, holds and reduces is counted."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim import api
from cmsim.engine import Jitter, Options, Perturbation, plan, play
from cmsim.errors import InfeasibleError
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate import stages
from cmsim.workload.generate.kept import PARTS
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import load_model
from cmsim.workload.ops import COMPUTE, SEND

#: lines of memory that a step leaves to the next
STATES = ("weights", "gradients", "optimizer")

#: how long a pass through all layers of a rank takes [ps]: beside it messages take nothing
UNIT_PS = 10**15
#: what is left of messages, table and head
FREE = 1e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A path to a model of so many layers, with next to no table."""
    folder = tmp_path_factory.mktemp("models")

    def made(layers):
        path = folder / f"{layers}.json"
        config = {
            "model_type": "llama",
            "hidden_size": 256,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 512,
            "vocab_size": 8,
            "max_position_embeddings": 8192,
        }
        path.write_text(json.dumps(config))
        return str(path)

    return made


def step(model, schedule, p, m, *, v=1, layers=None, dp=1, tp=1, **changes):
    parallel = {"tp": tp, "pp": p, "dp": dp, "virtual_stages": v, **changes.pop("parallel", {})}
    parts = v if schedule not in ("zb_v", "dualpipe") else 2
    data = {
        "systems": [{"system": "hgx_h100", "domains": -(-p * dp * tp // 8), "accelerators": p * dp * tp}],
        "workload": {
            "kind": "training",
            "model": model(layers or p * parts),
            "sequence_length": 128,
            "global_batch": m * dp,
            "recompute": "none",
            "schedule": schedule,
            "parallel": parallel,
            **changes,
        },
    }
    return load_scenario(data).runs[0]


def planned(one, **options):
    system = api.system(one)
    return plan(generate.programs(one.spec, system), system, Options(**options))


def weighed(made, takes):
    """The plan with passes of these lengths, in units: forward, gradients of inputs, gradients of weights.

    Table, head, optimizer take no time, so that all stages are alike.
    """
    ops = made.programs.ops
    name = np.array([ops.names[number] for number in ops.name_id])
    apart = ("embedding", "final norm", "head", "loss", "optimizer")
    kind = np.where(np.char.endswith(name, " wgrad"), "W", "F")
    kind = np.where(np.char.endswith(name, " dgrad") | np.char.endswith(name, " backward"), "I", kind)
    left_out = np.any([np.char.startswith(name, one) for one in apart], axis=0)
    kind = np.where((ops.kind != COMPUTE) | left_out, "", kind)
    holds = []
    for rank_class, hold in enumerate(made.hold_ps):
        out, of = np.zeros(len(hold), np.int64), kind[made.rows_of(rank_class)]
        for pass_kind, units in zip("FIW", takes, strict=True):
            rows = of == pass_kind
            out[rows] = np.round(hold[rows] * (units * UNIT_PS / hold[rows].sum()))
        holds.append(out)
    return replace(made, hold_ps=holds)


def bubble(made, takes, m):
    """What the step takes beyond m micro-batches' passes of a rank, in units of one's."""
    total = sum(takes)
    line = play(weighed(made, takes))
    return (line.makespan_ps / UNIT_PS - total) * m


@pytest.mark.parametrize(
    ("check", "schedule", "p", "m", "v", "of", "expected"),
    [
        ("T05", "1f1b", 8, 64, 1, "ideal", 0.109375),
        ("T06", "1f1b", 8, 64, 1, "total", 0.0985915493),
        ("T07", "interleaved", 8, 64, 4, "ideal", 0.02734375),
        ("T08", "1f1b", 8, 20, 1, "makespan", 81),
        ("T09", "zb_h1", 8, 20, 1, "time", 7),
        ("T11", "1f1b", 8, 20, 1, "time", 21),
        ("T11, as GPipe", "gpipe", 8, 20, 1, "time", 21),
    ],
)
def test_check_values(model, check, schedule, p, m, v, of, expected):
    """F = 1, B = 2, W = 1, as the sources have it."""
    waits = bubble(planned(step(model, schedule, p, m, v=v)), (1, 1, 1), m)
    work = 3 * m
    value = {"ideal": waits / work, "total": waits / (work + waits), "makespan": work + waits, "time": waits}[of]
    assert value == pytest.approx(expected, rel=5 * FREE), check


def test_both_of_a_turn_end_with_it_where_each_is_of_many_pieces(model):
    """T10: its closed form has a forward and a backward side by side end together; one after the other the forward is
    handed on earlier, and a rank waits less for each of the others."""
    for tp, layers, expected in ((1, 8, 3), (2, 64, 6)):
        one = step(model, "dualpipe", 8, 20, layers=layers, tp=tp)
        assert bubble(planned(one), (1, 1, 1), 20) == pytest.approx(expected, rel=0.05 if tp > 1 else 5 * FREE)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["1f1b", "gpipe", "interleaved", "zb_h1", "zb_v", "dualpipe"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_steps_wait_as_the_closed_forms_say(model, schedule, half, more, v, forward, inputs, weights):
    p = 2 * half
    m, v = 2 * p * more, v if schedule == "interleaved" else 1
    if schedule in ("zb_v", "dualpipe"):
        # made for passes that take as long
        forward = inputs = weights
    if schedule == "zb_h1":
        # and for gradients of weights that fit into the gaps
        weights = min(forward, inputs, weights)
    expected = {
        "1f1b": (p - 1) * (forward + inputs + weights),
        "gpipe": (p - 1) * (forward + inputs + weights),
        "interleaved": (p - 1) * (forward + inputs + weights) / v,
        "zb_h1": (p - 1) * (forward + inputs - weights),
        "zb_v": (p - 1) * forward / 2,
        "dualpipe": (p / 2 - 1) * forward,
    }[schedule]
    made = planned(step(model, schedule, p, m, v=v))
    got = bubble(made, (forward, inputs, weights), m)
    assert got == pytest.approx(expected, abs=FREE * m * (forward + inputs + weights))


# what goes where


def count(programs, stage, name="", kind=None):
    """Rows of a stage by the slot they use."""
    ops = programs.ops
    rows = np.arange(programs.program_ptr[stage], programs.program_ptr[stage + 1])
    if kind is not None:
        rows = rows[ops.kind[rows] == kind]
    return Counter(programs.slots[ops.slot[row]] for row in rows if name in ops.names[ops.name_id[row]])


def made(one):
    return generate.programs(one.spec, api.system(one))


def test_interleaved_stages_send_so_many_times_as_often_and_round_to_the_first(model):
    plain, four = (made(step(model, "auto", 4, 8, v=v, layers=16)) for v in (1, 4))
    assert count(plain, 1, kind=SEND) == {"next.out": 8, "previous.out": 8}
    assert count(four, 1, kind=SEND) == {"next.out": 32, "previous.out": 32}
    # the last hands all but what is done to the first, which hands all but its own back
    assert count(plain, 3, kind=SEND) == {"previous.out": 8}
    assert count(four, 3, kind=SEND) == {"next.out": 24, "previous.out": 32}
    assert count(four, 0, kind=SEND) == {"next.out": 32, "previous.out": 24}
    ends = dict(zip(four.slots, four.groups.T, strict=True))
    assert ends["next.out"][3] == ends["previous.in"][0] >= 0 <= ends["previous.out"][0] == ends["next.in"][3]


def test_on_the_way_back_a_rank_hands_on_to_itself_where_it_turns(model):
    there_and_back = made(step(model, "zb_v", 4, 8))
    assert count(there_and_back, 3, kind=SEND) == {"back.previous.out": 8, "previous.out": 8}
    assert count(there_and_back, 0, kind=SEND) == {"next.out": 8, "back.next.out": 8}
    both_ends = made(step(model, "dualpipe", 4, 8, layers=8))
    assert count(both_ends, 3, kind=SEND) == {"previous.out": 4, "back.previous.out": 4}


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zb_h1", "zb_v", "dualpipe"])
@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_gradients_of_a_layer_are_reduced_once_and_weights_gathered_before_its_first_forward(
    model, schedule, zero_stage
):
    """With ZeRO 3 for every micro-batch."""
    v = 2 if schedule == "interleaved" else 1
    one = step(model, schedule, 2, 4, v=v, layers=8, dp=2, zero_stage=zero_stage)
    programs = made(one)
    for stage in range(2):
        # 4 layers a rank, of mirrored ones 8, of which each passes half of the micro-batches
        held = 8 if schedule == "dualpipe" else 4
        passes = (2 if schedule == "dualpipe" else 4) if zero_stage == 3 else 1
        assert count(programs, stage, "reduce gradients") == {"dp": held * passes}
        gathers = {0: 0, 1: held, 3: 2 * held * passes}[zero_stage]
        assert sum(count(programs, stage, "gather weights").values()) == gathers
    groups = programs.groups[:, programs.slots.index("dp")]
    sizes = np.unique(groups, return_counts=True)[1].tolist()
    assert sizes == ([4] if schedule == "dualpipe" else [2, 2])


@pytest.mark.parametrize("schedule", ["gpipe", "interleaved", "zb_h1", "zb_v", "dualpipe"])
def test_all_schedules_do_the_same_work(model, schedule):
    """FLOPs and bytes of kernels, over all ranks; each rank of DualPipe updates as much as any."""
    v = 2 if schedule == "interleaved" else 1
    one, other = (made(step(model, name, 2, 4, v=w, layers=8, dp=2)) for name, w in (("1f1b", 1), (schedule, v)))
    for column in ("flops", "bytes_B"):
        sums = []
        for programs in (one, other):
            ops, ptr = programs.ops, programs.program_ptr
            each = [getattr(ops, column)[a:b][ops.kind[a:b] == COMPUTE].sum() for a, b in itertools.pairwise(ptr)]
            sums.append(sum(each[program] for program in programs.program))
        assert sums[1] == pytest.approx(sums[0], rel=1e-9)


def test_what_a_rank_holds_follows_the_schedule(model):
    """1F1B holds p micro-batches on the first rank, interleaved p (1 + (p - 1)/(p v)), DualPipe p + 1 and the weights
    twice, over twice the ranks."""
    sizes = {
        schedule: made(step(model, schedule, 4, 16, v=v, layers=16, zero_stage=0)).footprint_B
        for schedule, v in (("1f1b", 1), ("interleaved", 4), ("dualpipe", 1), ("zb_h1", 1))
    }
    first = {name: {line: values[0] for line, values in found.items()} for name, found in sizes.items()}
    states = {name: sum(lines[line] for line in STATES) for name, lines in first.items()}
    activations = {name: sum(lines[line] for line in PARTS) for name, lines in first.items()}
    assert activations["interleaved"] / activations["1f1b"] == pytest.approx((4 + 3 / 4) / 4)
    assert first["zb_h1"] == first["1f1b"]
    assert states["dualpipe"] / states["1f1b"] == pytest.approx(2, rel=0.02)
    assert activations["dualpipe"] / activations["1f1b"] == pytest.approx(5 / 4, rel=0.02)


def test_stages_hold_what_is_stated(model):
    """Llama 3's own cut: the first holds the token table alone, and the last the head."""
    parallel = {"stage_layers": [0, 2, 2, 2, 2, 2, 2, 0]}
    programs = made(step(model, "interleaved", 4, 8, v=2, layers=12, parallel=parallel))
    ops = programs.ops
    products = []
    for stage in range(4):
        rows = slice(programs.program_ptr[stage], programs.program_ptr[stage + 1])
        names = [ops.names[number] for number in ops.name_id[rows]]
        products.append(names.count("ffn up"))
        assert names.count("embedding") == (8 if stage == 0 else 0)
        assert names.count("head") == (8 if stage == 3 else 0)
    assert products == [16, 32, 32, 16]
    assert not programs.notes


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zb_v", "dualpipe"])
def test_a_part_without_layers_is_played(model, schedule):
    v = 2 if schedule == "interleaved" else 1
    counts = [0, 4, 4, 4, 4, 4, 4, 0] if schedule in ("interleaved", "zb_v") else [0, 12, 12, 0]
    for zero_stage in (1, 3):
        one = step(
            model, schedule, 4, 8, v=v, layers=24, dp=2, zero_stage=zero_stage, parallel={"stage_layers": counts}
        )
        assert play(planned(one)).makespan_ps > 0


@pytest.mark.parametrize(
    ("layers", "p", "v", "modules", "first", "inner", "last"),
    [
        (30, 4, 4, 0, 1, 2, 1),  # table and head count as a layer each
        (14, 4, 4, 0, 0, 1, 0),
        (61, 4, 4, 0, 4, 4, 1),
        (61, 16, 1, 1, 4, 4, 1),
        (61, 4, 1, 1, 16, 16, 13),
        (32, 4, 1, 1, 8, 8, 8),
        (32, 1, 1, 1, 32, 0, 32),
    ],
)
def test_layers_that_do_not_divide_are_fewer_on_the_first_and_the_last(
    model, layers, p, v, modules, first, inner, last
):
    one = step(model, "auto", p, 4 * p, v=v, layers=layers, mtp_layers=modules)
    spec = load_model(one.spec.model)
    schedule = stages.pipeline(one.spec, Layout(1, 1, 1, p, 1), None, 4 * p)
    parts = stages.parts_of(one.spec, spec, schedule)
    counts = [len(parts[n % p][n // p].layers) for n in range(p * v)]
    if p > 1:
        assert counts == [first, *[inner] * (p * v - 2), last + modules]
    assert sum(counts) == layers + modules
    notes = stages.said(one.spec, spec, parts, schedule)
    runs = [(count, len(list(alike))) for count, alike in groupby([*counts[:-1], counts[-1] - modules])]
    held = ", ".join(str(count) if times == 1 else f"{times} x {count}" for count, times in runs)
    name = "virtual stages" if v > 1 else "stages"
    said = [f"{layers} layers do not divide by {p * v} {name}: they hold {held}"]
    assert notes == (said if p > 1 and len({first, inner, last}) > 1 else [])


@pytest.mark.parametrize(
    ("schedule", "p", "m", "changes", "key", "words"),
    [
        ("interleaved", 4, 8, {"parallel": {"virtual_stages": 5}}, "parallel.virtual_stages", "Nearest that do: 3, 6."),
        ("interleaved", 4, 8, {}, "parallel.virtual_stages", "takes 2 or more; of one it is '1f1b'"),
        ("auto", 4, 10, {"parallel": {"virtual_stages": 2}}, "global_batch", "Nearest that go: 8, 12."),
        ("zb_h1", 4, 8, {"parallel": {"virtual_stages": 2}}, "parallel.virtual_stages", "takes 1, or schedule"),
        ("zb_v", 4, 8, {"parallel": {"virtual_stages": 3}}, "parallel.virtual_stages", "takes 1 or 2"),
        ("interleaved", 1, 8, {"parallel": {"virtual_stages": 2}}, "parallel.pp", "takes 2 or more"),
        ("dualpipe", 3, 8, {}, "parallel.pp", "an even number"),
        ("dualpipe", 4, 6, {}, "global_batch", "Nearest that go: 8."),
        ("zb_v", 9, 18, {}, "parallel.virtual_stages", "Nearest parallel.pp that do: 6, 7."),
        ("1f1b", 25, 8, {}, "parallel.pp", "25 stages for 24 layers. Allowed: at most 24."),
        ("1f1b", 4, 8, {"parallel": {"stage_layers": [8, 8, 8]}}, "parallel.stage_layers", "3 numbers for 4 stages"),
        ("1f1b", 4, 8, {"parallel": {"stage_layers": [8, 8, 8, 8]}}, "parallel.stage_layers", "32 layers in all"),
        ("1f1b", 4, 8, {"parallel": {"stage_layers": [8, 0, 8, 8]}}, "parallel.stage_layers", "without layers"),
    ],
)
def test_what_a_schedule_does_not_take_is_said_with_what_it_takes(model, schedule, p, m, changes, key, words):
    with pytest.raises(InfeasibleError) as error:
        made(step(model, schedule, p, m, layers=24, **changes))
    (problem,) = error.value.problems
    assert problem.key == key and words in problem.message


# beside the rest


@pytest.mark.parametrize("schedule", ["gpipe", "interleaved", "zb_h1", "zb_v", "dualpipe"])
def test_a_straggler_and_jitter_are_felt_wherever_they_are(model, schedule):
    v = 2 if schedule == "interleaved" else 1
    one = step(model, schedule, 4, 8, v=v, layers=16, dp=2)
    even = play(planned(one)).makespan_ps
    for rank in (0, 3, 7):
        slow = {rank: Perturbation(compute=1.5)}
        folded, alone = planned(one, perturb=slow), planned(one, perturb=slow, fold=False)
        assert alone.classes == 8
        assert even < play(folded).makespan_ps == play(alone).makespan_ps
    scattered = {play(planned(one, jitter=Jitter(cv=0.1), seed=seed)).makespan_ps for seed in (1, 2)}
    assert len(scattered) == 2 and even not in scattered


def test_further_tokens_are_predicted_on_the_last_stage(model):
    plain, more = (made(step(model, "1f1b", 2, 4, layers=8, mtp_layers=n)) for n in (0, 1))
    for programs, layers, heads in ((plain, (4, 4), 1), (more, (4, 5), 2)):
        ops = programs.ops
        for stage in range(2):
            rows = slice(programs.program_ptr[stage], programs.program_ptr[stage + 1])
            names = Counter(ops.names[number] for number in ops.name_id[rows])
            assert names["ffn up"] == 4 * layers[stage]
            assert names["head"] == names["loss"] == 4 * heads * stage
            assert names["further tokens wgrad"] == 4 * (heads - 1) * stage
    # MFU leaves them out, as the source's own does; what is executed has a layer, 2 h^2 and the head more
    assert more.facts.model_flops_per_token == plain.facts.model_flops_per_token
    grown = more.facts.hardware_flops_per_token - plain.facts.hardware_flops_per_token
    weights = 4 * 256**2 + 3 * 256 * 512 + 2 * 256**2 + 8 * 256
    assert grown == pytest.approx(6 * weights + 3 * 2 * 128 / 2 * 4 * 128)
    for line in (*STATES, "activations of ffn"):
        assert sum(more.footprint_B[line]) > sum(plain.footprint_B[line])
