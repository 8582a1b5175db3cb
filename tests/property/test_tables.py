"""A table reads the same whichever way it goes: through Arrow or row by row."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cmsim.errors import InputError
from cmsim.reading import tables
from cmsim.reading.parsers import BLANK, NO_TIME, Clock, Label, Real, Whole
from cmsim.traces.ascend import tables as profiles

#: cells that two readers might take differently
ODD = (
    *(*BLANK, " ", '""', '"a"', '"a,b"', '"a""b"', 'a"b', '"a"b', '"', '"a\nb"', "a\rb", "é", "\x00", "N/A", "NULL"),
    *(
        "1",
        "+1",
        "-1",
        " 1 ",
        "1.0",
        "1.5",
        "1e3",
        "1e400",
        "0x1F",
        "1_0",
        "٣",
        "inf",
        "nan(1)",
        "NAN",
        "1.",
        ".5",
        "١",
    ),
    *("9007199254740993", "123456789012345678901", "1d5", "-0", "1,2", "true", "#", "\u2028", '"1"', '" 1"'),
    *("2024-05-10 00:00:00", "2024-05-10 00:00:00.25+08:00", "2024-02-30 00:00:00", "2024-05-10T00:00:00Z", "é" * 19),
)
GOOD = {
    "n": ("1", "12", "007", "3.0"),
    "x": ("0.5", "1e-3", "", "nan", '"2"'),
    "word": ("a", "", '"b,c"', "é"),
    "when": ("2024-05-10 00:00:00", "2024-05-10 00:00:00.123456+08:00", "", "1970-01-01T00:00:00Z"),
}


def cells(name: str) -> st.SearchStrategy[str]:
    return st.one_of(*[st.sampled_from(GOOD[name])] * 12, st.sampled_from(ODD))


HEADS = ("n,x,word,when", "when,n, x ,word", "\n\nn,x,word,when", '"n",x,word,when', "n,x,word,when,n")
ROWS = st.one_of(
    *[st.tuples(*map(cells, GOOD)).map(",".join)] * 12,
    st.sampled_from(["", " ", ",", ",,,", "1,2,3,4,5", "a", '"']),
)


def outcome(path: Path) -> object:
    """Columns as bytes, words, zones, notes; or the error."""
    label, clock = Label(), Clock(blank=True)
    parsers = {"n": Whole(), "x": Real(blank=True), "word": label, "when": clock}
    try:
        table = tables.read_table(path, parsers)
    except InputError as error:
        return str(error)
    found = {name: (column.dtype.str, column.tobytes()) for name, column in table.columns.items()}
    return found, label.names, clock.zoned, clock.local, len(table), table.header, table.text(len(table) - 1, "word")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    head=st.sampled_from(
        ["n,x,word,when", "when,n, x ,word", "\n\nn,x,word,when", '"n",x,word,when', "n,x,word,when,n"]
    ),
    mark=st.booleans(),
    last=st.booleans(),
    broken=st.booleans(),
)
@example(rows=["1,,a,"] * 3, end="\n", head="n,x,word,when", mark=True, last=False, broken=False)
def test_a_table_reads_the_same_either_way(tmp_path, monkeypatch, rows, end, head, mark, last, broken):
    text = head.replace("\n", end) + end + end.join(rows) + end * last
    data = b"\xef\xbb\xbf" * mark + text.encode() + b"\xff" * (broken and not last)
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "BY_ARROW_B", 10**9)
        slow = outcome(path)
        patch.setattr(tables, "BY_ARROW_B", 0)
        assert outcome(path) == slow


def texts(path: Path) -> object:
    """A table of a profiler; or the error."""
    try:
        return vars(profiles.read_table(path, ["word", "n", "none"]))
    except InputError as error:
        return str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    head=st.sampled_from(HEADS),
    mark=st.booleans(),
    last=st.booleans(),
)
@example(rows=["1,,a,", ",,,", "", "2,,,1"], end="\n", head=HEADS[0], mark=False, last=True)
@example(rows=["1,,a,", ",2,,3", "", "2,,b,1"], end="\n", head=HEADS[0], mark=True, last=True)
@example(rows=["1,, a ,", "2,é,b,1"], end="\r\n", head=HEADS[0], mark=False, last=False)
def test_a_profile_reads_the_same_either_way(tmp_path, monkeypatch, rows, end, head, mark, last):
    path = tmp_path / "table.csv"
    text = head.replace("\n", end) + end + end.join(rows) + end * last
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    with monkeypatch.context() as patch:
        patch.setattr(profiles, "BY_ARROW_B", 10**9)
        slow = texts(path)
        patch.setattr(profiles, "BY_ARROW_B", 0)
        assert texts(path) == slow


def test_a_profile_that_is_no_text_is_refused_either_way(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_bytes(b"n,x,word,when\n" + b"1,2,a,\n" * 20_000 + b"1,2,a,\xff\n")
    for size in (0, 10**9):
        monkeypatch.setattr(profiles, "BY_ARROW_B", size)
        assert "not text in UTF-8" in str(texts(path))


def test_a_plain_profile_does_go_through_arrow(tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("read row by row")

    path = tmp_path / "table.csv"
    rows = [f'{n},"""1,{n % 7}""", x{n % 5} ' for n in range(80_000)]
    path.write_text("n,shape,word\n\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert path.stat().st_size > profiles.BY_ARROW_B
    monkeypatch.setattr(profiles, "_by_rows", never)
    table = profiles.read_table(path, ["word", "shape", "none"])
    assert table.columns["word"] == [f"x{n % 5}" for n in range(80_000)]
    assert table.columns["shape"] == [f'"1,{n % 7}"' for n in range(80_000)]
    assert table.columns["none"] == [""] * 80_000
    assert (table.line[0], table.line[-1], set(table.fields)) == (3, 80_002, {3})


def test_every_odd_cell_in_every_column(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    for place, odd in itertools.product(range(4), ODD):
        row = ["2", "1.5", "w", "2024-05-10 00:00:00"]
        row[place] = odd
        path.write_bytes(("n,x,word,when\n1,2,a,\n" + ",".join(row) + "\n3,4,b,\n").encode())
        monkeypatch.setattr(tables, "BY_ARROW_B", 10**9)
        slow = outcome(path)
        monkeypatch.setattr(tables, "BY_ARROW_B", 0)
        assert outcome(path) == slow, (place, odd)


def test_plain_files_do_go_through_arrow(tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("read row by row")

    count = np.arange(60_000)
    words = ("a", "", "b", "nan")
    path = tmp_path / "table.csv"
    path.write_text(
        "n,skipped,x,word,when\n"
        + "".join(
            f"{n},?,{n / 8 if n % 5 else ''},{words[n % 4]},{'' if n % 3 else _day(n)}\n" for n in count.tolist()
        ),
        encoding="utf-8",
    )
    assert path.stat().st_size > tables.BY_ARROW_B
    monkeypatch.setattr(tables, "_by_rows", never)
    label, clock = Label(), Clock(blank=True)
    table = tables.read_table(path, {"n": Whole(), "x": Real(blank=True), "word": label, "when": clock})
    np.testing.assert_array_equal(table["n"], count)
    np.testing.assert_array_equal(table["x"], np.where(count % 5, count / 8, np.nan))
    np.testing.assert_array_equal(table["word"], np.array([0, -1, 1, -1])[count % 4])
    np.testing.assert_array_equal(table["when"], np.where(count % 3, NO_TIME, (count // 3 % 28) * 86400 * 10**9))
    assert (label.names, clock.local, table.unused) == (("a", "b"), 20_000, ("skipped",))
    bare = tmp_path / "bare.csv"
    bare.write_bytes(path.read_bytes().partition(b"\n")[2])
    again = tables.read_table(bare, {"n": Whole()}, names=table.header)
    np.testing.assert_array_equal(again["n"], count)


def _day(n: int) -> str:
    return f"1970-01-{n // 3 % 28 + 1:02d} 00:00:00"


@pytest.mark.parametrize("long", ["1" * 140_000, '"' + f"{'1' * 100}\n" * 1400 + '"'])
def test_a_field_that_is_too_long_is_refused_either_way(tmp_path, monkeypatch, long):
    path = tmp_path / "table.csv"
    path.write_text(f"n,x\n1,2\n{long},2\n", encoding="utf-8")
    monkeypatch.setattr(tables, "BY_ARROW_B", 0)
    with pytest.raises(InputError, match=r"table\.csv.*is no CSV \(field larger than field limit"):
        tables.read_table(path, {"n": Label(), "x": Real()})
