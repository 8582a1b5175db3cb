"The streaming JSON reader: what json reads at once, it reads in blocks of any size, and says where files break."

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from cmsim.errors import InputError
from cmsim.reading import json_blocks
from cmsim.reading.json_blocks import blocks

TRICKY = [
    {
        "name": 'quote " brace } bracket ] comma , {"name": 1}',
        "args": {"deep": [[1, [2]], {"name": [{}, {"name": 2}]}]},
    },
    {"name": "back\\slash\\\\", "args": {}},
    {"name": "\\", "args": []},
    {"name": '\\"},{"name": "', "other": "},{"},
    {"name": "ünï ☃ 𝄞", "n": -1.5e-7},
    [],
    [[], {}],
    'text, with [brackets} and \\" all',
    None,
    17,
    {},
]


def document(path: Path, value: object, *, zipped: bool = False, **style: object) -> Path:
    data = json.dumps(value, **style).encode()  # type: ignore[arg-type]
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def read(path: Path, key: str | None = "events", **options: int) -> list[object]:
    return [element for block in blocks(path, key=key, **options) for element in block]


@pytest.mark.parametrize("block_B", [1, 2, 3, 7, 16, 61, 300, 2**18])
@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])
@pytest.mark.parametrize("zipped", [False, True])
def test_blocks_of_any_size_hold_the_same_elements(
    tmp_path: Path, block_B: int, style: dict[str, object], zipped: bool
) -> None:
    header = {"first": {"events": [1, 2]}, "word": "events", "escaped": 'a"events": ['}
    footer = {"last": [{"name": 1}, {"name": 2}], "end": "}"}
    value = {**header, "events": TRICKY * 3, **footer}
    path = document(tmp_path / "a.json", value, zipped=zipped, **style)
    found = blocks(path, key="events", block_B=block_B)
    assert [element for block in found for element in block] == TRICKY * 3
    assert found.header == {**header, **footer}
    assert not found.bare and not found.lenient
    expanded = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    assert found.size_B == len(expanded)


@pytest.mark.parametrize("block_B", [1, 5, 40, 2**18])
@pytest.mark.parametrize("key", [None, "events"])
def test_a_bare_list(tmp_path: Path, block_B: int, key: str | None) -> None:
    path = document(tmp_path / "a.json", TRICKY, indent=2)
    found = blocks(path, key=key, block_B=block_B)
    assert [element for block in found for element in block] == TRICKY
    assert found.bare and found.header == {}


@pytest.mark.parametrize("block_B", [1, 4, 2**18])
@pytest.mark.parametrize(
    "text", ['{"events": []}', ' {"events" :\n[ ] , "a": 1} ', "[]", "\ufeff[ ]", '\ufeff{"events":[]}']
)
def test_an_empty_list(tmp_path: Path, block_B: int, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert read(path, block_B=block_B) == []


def random_value(random_: random.Random, depth: int) -> object:
    kind = random_.randrange(7 if depth else 4)
    if kind < 2:
        return "".join(random_.choice('ab"\\{}[],: \n\té') for _ in range(random_.randrange(12)))
    if kind < 4:
        return random_.choice([1, -2.5, True, None, 10**12])
    if kind == 4:
        return [random_value(random_, depth - 1) for _ in range(random_.randrange(4))]
    return {str(random_value(random_, 0)): random_value(random_, depth - 1) for _ in range(random_.randrange(4))}


@pytest.mark.parametrize("seed", range(30))
def test_random_documents(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    elements = [random_value(random_, 4) for _ in range(random_.randrange(40))]
    value = {"a": random_value(random_, 3), "events": elements, "z": random_value(random_, 3)}
    path = document(tmp_path / "a.json", value, indent=random_.choice([None, 0, 3]))
    for block_B in (1, random_.randrange(2, 200), 2**18):
        found = blocks(path, key="events", block_B=block_B)
        assert [element for block in found for element in block] == elements
        assert found.header == {"a": value["a"], "z": value["z"]}


@pytest.mark.parametrize("piece_B", [1, 2, 3, 50])
def test_state_is_carried_over_pieces_of_the_scan(
    tmp_path: Path, piece_B: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_blocks, "_PIECE_B", piece_B)
    monkeypatch.setattr(json_blocks, "_GUESSES", 0)
    path = document(tmp_path / "a.json", {"a": 'b\\\\"', "events": TRICKY, "z": [1]})
    assert read(path) == TRICKY


def test_start_B_is_where_the_text_of_the_block_stands(tmp_path: Path) -> None:
    path = document(tmp_path / "a.json", {"a": 1, "events": [{"n": n} for n in range(2000)]})
    text = path.read_bytes()
    found, seen = blocks(path, key="events", block_B=100), 0
    for block in found:
        assert text[found.start_B :].lstrip().startswith(json.dumps(block[0]).encode())
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("block_B", [3, 50, 2**18])
@pytest.mark.parametrize("bare", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, block_B: int, bare: bool) -> None:
    small = TRICKY[:4]
    path = document(tmp_path / "a.json", small if bare else {"a": {"b": 1}, "events": small, "z": "["})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.json"):
            read(path, block_B=block_B)


def test_gzip_cut_or_spoilt_is_refused(tmp_path: Path) -> None:
    whole = document(tmp_path / "a.json", {"events": [{"n": n} for n in range(3000)]}, zipped=True).read_bytes()
    path = tmp_path / "b.json"
    for data in (whole[:-9], whole[: len(whole) // 2], whole[:30] + b"\xff" * 40 + whole[70:], whole[:-8] + bytes(8)):
        path.write_bytes(data)
        with pytest.raises(InputError, match="broken gzip data"):
            read(path, block_B=1000)


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(b'{"events": [' + b" " * 60_000_000))
    tracemalloc.start()
    with pytest.raises(InputError, match="larger than 2000000 bytes"):
        read(path, limit_B=2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"   ", "is empty|not the JSON"),
        (b"hello", "byte 0: not the JSON expected"),
        (b"  17", "byte 2: not the JSON expected"),
        (b'{"a": 1}', "no list events"),
        (b'{"a": {"events": []}}', "no list events"),
        (b'{"a": "events"}', "no list events"),
        (b'{"events": {}}', "byte 11: events is not a list"),
        (b'{"events": null}', "byte 11: events is not a list"),
        (b'{"events": [1, 2', "byte 16: cut short"),
        (b'{"events": [1, 2]', "cut short"),
        (b'{"events": [1, 2]]', "after the list"),
        (b'{"events": [1, 2]} x', "after the list"),
        (b"[1, 2] x", "byte 7: .*after the list"),
        (b'{"events": [1, x2]}', "byte 15: not valid JSON"),
        (b'{"events": [1, 2,]}', "byte 16: not valid JSON"),
        (b'{"events": [1,,2]}', "not valid JSON"),
        (b'{"events": [,]}', "byte 12: not valid JSON"),
        (b'{"events": [1}, 2]}', "not valid JSON|after the list"),
        (b'{"events": [{"a": 1]}', "not valid JSON|cut short"),
        (b'{bad: 1, "events": [1]}', "byte 1: not valid JSON"),
        (b'{"events": [1], bad: 1}', "byte 16: not valid JSON"),
        (b'{"events": [1], "events": [2]}', "stands twice"),
        (b'{"a": 1, "events": [1], "a": 2}', "stands twice"),
        (b"\x00" * 100, "not the JSON expected"),
        (b"\xff\xfe[\x00", "not the JSON expected"),
    ],
)
@pytest.mark.parametrize("block_B", [1, 2**18])
def test_what_is_wrong_is_said_with_its_byte(tmp_path: Path, text: bytes, message: str, block_B: int) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        read(path, block_B=block_B)


def test_a_key_is_wanted_but_not_a_list_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected \["):
        read(document(tmp_path / "a.json", {"events": []}), None)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize("before", [b'{"events": ', b"", b'{"a": '])
@pytest.mark.parametrize("brackets", [b"[", b'{"a":', b'[{"b":'])
def test_absurd_nesting_is_refused_before_it_is_held(tmp_path: Path, before: bytes, brackets: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(before + b"[" + brackets * 3_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="nested deeper than 1024"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


def test_one_element_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_blocks, "WHOLE_B", 10_000)
    path = tmp_path / "a.json"
    for text in (b'{"events": ["', b'{"a": "', b'{"events": [], "a": "', b'{"events": [{"n": 1}, {"a": "', b"  "):
        path.write_bytes(text + b"  " * 100_000)
        with pytest.raises(InputError, match=r"10000 bytes|only white space"):
            read(path, block_B=1000)


def test_numbers_that_are_none_and_broken_names_are_read_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"events": [{"rate": inf, "b": -Infinity, "c": NaN, "d": "inf, \xff\x01"}], "r": -inf}')
    found = blocks(path, key="events")
    ((event,),) = list(found)
    assert event["rate"] == float("inf") and event["b"] == -float("inf") and event["c"] != event["c"]
    assert event["d"] == "inf, \ufffd\x01"
    assert found.header == {"r": -float("inf")} and found.lenient == 2


def test_elements_whose_inner_lists_look_like_them_are_not_cut(tmp_path: Path) -> None:
    elements = [{"name": n, "inner": [{"name": i, "x": "y" * 20} for i in range(9)]} for n in range(50)]
    path = document(tmp_path / "a.json", {"events": elements})
    for block_B in (64, 500, 3000):
        assert read(path, block_B=block_B) == elements
