"""Frames as people of pandas expect them, and what a notebook completes and shows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import cmsim
from cmsim import markup
from cmsim.arrays import Packed, coded
from cmsim.results import Infeasible, categories

TWO = {
    "name": "Two machines",
    "systems": ["hgx_h100", "gb200_nvl72"],
    "workload": {
        "kind": "decode",
        "model": "llama-3.1-8b",
        "batch_per_accelerator": 4,
        "context_tokens": 1024,
        "parallel": {"tp": 2},
        "per_system": {"gb200_nvl72": {"parallel": {"tp": 4}}},
    },
    "sweep": {"workload.batch_per_accelerator": [1, 4]},
}


@pytest.fixture(scope="module")
def two():
    return cmsim.run(TWO)


def texts(frame):
    return [name for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)]


def test_text_is_categorical_and_numbers_are_numbers(two):
    ops = two[0].ops
    assert {"run", "op", "kind", "stream", "limit"} <= set(texts(ops))
    for name in ops.columns.difference(texts(ops)):
        assert ops[name].dtype.kind in "if", name
    # the words that are there, in the order in which they come
    for name in texts(ops):
        assert ops[name].cat.categories.tolist() == list(dict.fromkeys(ops[name])), name
    assert ops["op"].tolist() == two[0].columns["ops"]["op"].tolist()


def test_of_several_runs_words_are_those_of_all(two):
    ops = two.ops
    assert ops["run"].cat.categories.tolist() == [one.run for one in two]
    assert texts(ops) == texts(two[0].ops) and len(ops) == sum(len(one.ops) for one in two)
    each = [name for one in two for name in one.columns["ops"]["op"].tolist()]
    assert ops["op"].tolist() == each
    longest = ops.assign(took_ps=ops["end_ps"] - ops["start_ps"]).groupby(["run", "op"], observed=True)["took_ps"].sum()
    assert len(longest) == sum(one.ops["op"].nunique() for one in two)
    # a merge by the run, as with the table of metrics
    assert len(ops.merge(two.metrics[["run", "tokens_per_s"]], on="run")) == len(ops)


def test_a_folder_gives_the_same_frames(two, tmp_path):
    again = cmsim.Results.load(two.save(tmp_path / "two"))
    for name in ("ops", "links", "power"):
        pd.testing.assert_frame_equal(two.frame(name), again.frame(name))


def test_a_million_words_are_a_few_bytes_each():
    rows = 100_000
    packed = Packed({"op": coded(np.arange(rows) % 3 - 1, np.array(["a", "b", "unused", "c"], object))})
    made = pd.Series(categories.column(packed, "op"))
    assert made.cat.categories.tolist() == ["c", "a", "b"] and made.tolist()[:4] == ["c", "a", "b", "c"]
    assert made.memory_usage(index=False, deep=True) < 2 * rows
    # a table that has a word twice
    twice = Packed({"op": coded(np.array([0, 1, 2]), np.array(["a", "b", "a"], object))})
    assert pd.Series(categories.column(twice, "op")).tolist() == ["a", "b", "a"]


def test_metrics_are_plotted_as_any_frame_is(two):
    import matplotlib.pyplot as plt

    frame = two.metrics
    assert frame.select_dtypes("number").columns.size > 30
    axes = frame.plot(x="batch_per_accelerator", y="tokens_per_s", kind="scatter")
    assert axes.get_ylabel() == "tokens_per_s"
    lines = frame.pivot(index="batch_per_accelerator", columns="system", values="energy_per_token_J").plot().lines
    assert [len(line.get_xdata()) for line in lines] == [2, 2]
    plt.close("all")


def test_names_that_are_completed(two):
    assert dir(cmsim) == sorted(cmsim.__all__)
    shown = [name for name in dir(two) if not name.startswith("_")]
    assert {"metrics", "ops", "links", "power", "table", "save", "verdict"} <= set(shown)
    for name in shown:
        assert getattr(type(two), name, None) is None or getattr(type(two), name).__doc__, f"{name} says what it is"


def test_completed_as_ipython_does(two):
    from IPython.core.completer import IPCompleter, provisionalcompleter

    with provisionalcompleter():
        completer = IPCompleter(namespace={"results": two, "cmsim": cmsim}, use_jedi=False)
        completer.disable_matchers = ["IPCompleter.magic_matcher"]
        of_package = {one.text for one in completer.completions("cmsim.", 6)}
        of_results = {one.text for one in completer.completions("results.", 8)}
        of_runs = [one.text for one in completer.completions('results["', 9)]
    assert of_package == {f".{name}" for name in cmsim.__all__ if not name.startswith("_")}
    assert {".metrics", ".ops"} <= of_results and not any(name.startswith("._") for name in of_results)
    assert of_runs == sorted(one.run for one in two)


def test_what_is_shown(two):
    text = two._repr_html_()
    assert "Two machines" in text and all(one.run in text for one in two)
    none = Infeasible("decode/a <b>", "decode", "a", "decode", "needs <more> memory")
    assert "infeasible" in none._repr_html_() and "&lt;more&gt;" in none._repr_html_()


def test_a_long_table_ends():
    rows = [(str(number), "x") for number in range(markup.MOST_ROWS + 1500)]
    text = markup.table(rows, notes=("a note",))
    assert text.count("<tr>") == markup.MOST_ROWS and "<li>and 1,500 more</li><li>a note</li>" in text
    assert len(json.dumps(text)) < 30_000
