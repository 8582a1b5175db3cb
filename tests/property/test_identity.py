"""Runs that differ are called differently, whatever is swept."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.errors import InputError
from cmsim.identity import Entry, Identity, shown, spelled
from cmsim.scenario import load_scenario

WORDS = st.text(alphabet="ab1.,=/'\"\\[{ -TrueNone#", max_size=6)
NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False),
    st.floats(0.1, 0.1000001),
    st.integers(10**6, 10**6 + 3).map(lambda n: n + 0.5),
)
SCALARS = st.one_of(NUMBERS, WORDS, st.booleans(), st.none())
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(WORDS, SCALARS, max_size=2))
KEYS = st.sampled_from(
    [
        *("workloads.w.batch", "workloads.w.precision.weights", "workloads.w.parallel.weights", "workloads.w.faults"),
        *("systems.0.faults", "systems.0.set.gemm.weights", "systems.0.batch", "faults", "seed", "workloads.w"),
    ]
)


def same(one, other) -> bool:
    """Whether values are equal: numbers by value, but no number is a boolean."""
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, int | float):
        return type(one) is type(other) and one == other
    return isinstance(other, int | float) and one == other


@given(VALUES, VALUES)
@settings(max_examples=500, deadline=None)
def test_values_that_differ_are_spelled_differently(one, other):
    if one != other:
        assert spelled(one) != spelled(other)
    if same(one, other) and not isinstance(one, list | dict):
        assert spelled(one) == spelled(other)


@given(st.lists(KEYS, min_size=1, max_size=4, unique=True), st.data())
@settings(max_examples=300, deadline=None)
def test_points_that_differ_have_labels_that_differ(keys, data):
    points = [{key: data.draw(VALUES) for key in keys} for _ in range(2)]
    assert len(shown(points[0])) == len(keys)
    labels = {Identity("w", Entry(0, "rack"), point).label for point in points}
    if not all(same(points[0][key], points[1][key]) or points[0][key] == points[1][key] for key in keys):
        assert len(labels) == 2


@given(
    batches=st.lists(st.one_of(st.floats(1, 1.00001), st.integers(1, 9)), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    names=st.lists(st.sampled_from(["a", "b", "a/batch=1", None]), min_size=1, max_size=3),
    formats=st.lists(st.sampled_from(["bf16", "fp8", "int8"]), min_size=1, max_size=2, unique=True),
    pues=st.lists(st.floats(1.1, 1.1000001), min_size=1, max_size=2, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_a_scenario_has_every_run_or_is_refused(batches, sizes, names, formats, pues):
    entries = [{"system": "hgx_h100"} | ({"name": name} if name else {}) for name in names]
    work = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "context_tokens": 64}
    sweep = {
        "workload.batch_per_accelerator": batches,
        "workload.precision.weights": formats,
        "systems[0].accelerators": sizes,
        "systems.0.set.host.pue": pues,
    }
    try:
        runs = load_scenario({"systems": entries, "workload": work, "sweep": sweep}).runs
    except InputError:
        repeated = len(set(batches)) < len(batches) or len(set(sizes)) < len(sizes) or len(set(names)) < len(names)
        assert repeated
        return
    expected = [
        (entry, *point)
        for entry in range(len(entries))
        for point in itertools.product(batches, formats, *((sizes, pues) if entry == 0 else ([None], [None])))
    ]
    assert [asked(run) for run in runs] == expected
    assert len({run.key for run in runs}) == len(expected)


def asked(run):
    """What a run was asked, from what it runs."""
    pue = (run.system.set.get("host") or {}).get("pue", run.system.set.get("host.pue"))
    spec = run.spec
    return run.identity.entry.number, spec.batch_per_accelerator, spec.precision.weights, run.system.accelerators, pue
