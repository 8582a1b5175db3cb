"""Small tables: rows by name, in any dressing, refused with their place."""

from __future__ import annotations

import gzip
import math

import pytest

from cmsim.errors import InputError
from cmsim.reading.tables import read_records, records


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", b"a,b\n1,x y\n2,\n"),
        ("t.csv", b"\xef\xbb\xbfa, b\r\n\r\n 1 ,x y\r\n,\r\n2,"),
        ("t.csv", b'"a","b"\n"1","x y"\n2,""\n'),
        ("t.tsv", b"a\tb\n1\tx y\n2\t\n"),
        ("t.tsv.gz", gzip.compress(b"a\tb\n1\tx y\n2\t\n", mtime=0)),
        ("t.csv.gz", gzip.compress(b"a,b\n1,x y\n2,\n", mtime=0)),
    ],
)
def test_dressings_of_a_table(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    found = read_records(tmp_path / name, needed=("a",), known=("a", "b"))
    assert [dict(row) for row in found] == [{"a": "1", "b": "x y"}, {"a": "2", "b": ""}]
    assert found[1].number("a") == 2.0 and math.isnan(found[1].number("b"))
    assert str(found[0].problem("b", "is wrong")).endswith(f"{name}:{3 if data[3:7] == b'a, b' else 2}: b: is wrong")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv:1: no column 'size'. Allowed: nothing."),
        ("sise,n\n1,2\n", "t.csv:1: no column 'size'. Did you mean 'sise'?"),
        ("size,size\n1,2\n", "t.csv:1: column 'size' stands 2 times"),
        ("size,m\n1,2\n", "t.csv:1: unknown column 'm'. Allowed: dtype, n, size."),
        ("size,n\n1,2\n1,2,3\n1\n", "t.csv:3: got 3 fields, allowed: 2 (size, n)\nt.csv:4: got 1 fields"),
        ('size,n\n1,"two\nlines",3\n', "t.csv:3: got 3 fields"),
        ("size,n\n1," + "2" * 140_000, "t.csv:2: is no CSV (field larger than field limit"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, said):
    with pytest.raises(InputError) as caught:
        records(text, file="t.csv", needed=("size",), known=("size", "n", "dtype"))
    assert said in str(caught.value)


def test_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match=r"t\.csv: is not UTF-8 text \(byte 2\)"):
        read_records(tmp_path / "t.csv")
