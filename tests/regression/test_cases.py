"""Did an answer move? One folder per case: scenario.yaml, and what it gave when somebody last looked at it.

``pytest tests/regression --update-expected`` writes the answers anew; the commit that does so says why they moved.
To add a case: a folder with a scenario of one run, and that command. ``expected.json`` has the answer and a digest of
every column of every frame; ``ops.csv`` shows some rows, so that a diff is readable.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.results import Result

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/scenario.yaml"))
#: another CPU may round otherwise; nothing else may differ
TOLERANCE = 1e-6
DIGITS = 9
COLUMNS = ("rank_class", "multiplicity", "stream", "op", "kind", "algorithm", "limit", "start_ps", "end_ps", "wait_ps")
ROWS = 24


def rounded(value: Any) -> Any:
    """Numbers to nine significant digits, so that the files change only where answers do."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, bool | str):
        return value
    return float(f"{float(value):.{DIGITS}g}") if not isinstance(value, int | np.integer) else int(value)


def answer(result: Result) -> dict[str, Any]:
    return rounded(
        {
            "ranks": result.ranks,
            "rank_classes": int(np.max(result.columns["ops"]["rank_class"])) + 1,
            "ops": len(result.columns["ops"]["op"]),
            "limiter": result.limiter,
            "bound": dict(result.bound),
            "breakdown": dict(result.breakdown),
            "metrics": dict(result.metrics),
            "frames": {kind: digests(columns) for kind, columns in result.columns.items()},
        }
    )  # type: ignore[no-any-return]


def digests(columns: Mapping[str, Any]) -> dict[str, str]:
    """Of a frame its columns in order; of every column type, rows and a digest of its values.

    Whole numbers and text are taken as they are. Floating ones have nine significant digits, and what is nothing beside
    the column's largest is nothing: another CPU may round otherwise.
    """
    found = {"columns": ", ".join(columns)}
    for name, column in columns.items():
        values = np.asarray(column)
        if values.dtype.kind == "f":
            dust = 10.0**-DIGITS * np.abs(values).max(initial=0.0)
            data = b"".join(b"%.8e\n" % value for value in np.where(np.abs(values) > dust, values, 0.0).tolist())
        elif values.dtype == object:
            data = "\n".join(map(str, values.tolist())).encode()
        else:
            data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        found[name] = f"{values.dtype} x {len(values)}: {hashlib.sha256(data).hexdigest()[:16]}"
    return found


def timeline(result: Result) -> list[dict[str, str]]:
    """The first and the last ops, as text."""
    ops = result.columns["ops"]
    count = len(ops["op"])
    rows = sorted({*range(min(ROWS // 2, count)), *range(max(count - ROWS // 2, 0), count)})
    return [{"row": str(row), **{name: str(ops[name][row]) for name in COLUMNS}} for row in rows]


def differences(expected: Any, got: Any, where: str = "") -> list[str]:
    """What moved, one line each."""
    if isinstance(expected, dict) and isinstance(got, dict):
        lines = [f"{where}{key}: expected {expected[key]!r}, got nothing" for key in expected.keys() - got.keys()]
        lines += [f"{where}{key}: got {got[key]!r}, expected nothing" for key in got.keys() - expected.keys()]
        for key in expected:
            if key in got:
                lines += differences(expected[key], got[key], f"{where}{key}.")
        return sorted(lines)
    same = expected == got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        # power and shares that cancel to nothing leave dust
        same = abs(got - expected) <= TOLERANCE * abs(expected) + 1e-12
    return [] if same else [f"{where.rstrip('.')}: expected {expected!r}, got {got!r}"]


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, update_expected: bool) -> None:
    folder = HERE / case
    (result,) = cmsim.run(folder / "scenario.yaml")
    got, rows = answer(result), timeline(result)
    if update_expected:
        (folder / "expected.json").write_text(json.dumps(got, indent=2) + "\n", encoding="utf-8")
        with (folder / "ops.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with (folder / "ops.csv").open(encoding="utf-8", newline="") as file:
        expected_rows = list(csv.DictReader(file))
    moved = differences(expected, got)
    for one, two in zip(expected_rows, rows, strict=False):
        a, b = ({key: int(text) if text.lstrip("-").isdigit() else text for key, text in r.items()} for r in (one, two))
        moved += differences(a, b, f"ops.csv row {one['row']}: ")
    assert not moved and len(expected_rows) == len(rows), "\n".join([f"{case}:", *moved])


def test_a_moved_answer_is_seen() -> None:
    assert differences({"a": {"b": 1.0}}, {"a": {"b": 1.0 + 1e-7}}) == []
    assert differences({"a": {"b": 1.0}}, {"a": {"b": 1.00001}}) == ["a.b: expected 1.0, got 1.00001"]
    assert differences({"a": "ring"}, {"a": "direct"}) == ["a: expected 'ring', got 'direct'"]
    assert differences({"a": 1}, {"b": 1}) == ["a: expected 1, got nothing", "b: got 1, expected nothing"]


def test_a_value_that_moved_anywhere_in_a_frame_is_seen() -> None:
    frame = {"op": np.array(["a", "b"], dtype=object), "end_ps": np.array([1, 2]), "power_W": np.array([0.1, 0.2])}
    before = digests(frame)
    assert before["columns"] == "op, end_ps, power_W"
    assert differences({"power": before}, {"power": {**before, "end_ps": "x"}})[0].startswith("power.end_ps: expected ")
    assert digests({**frame, "power_W": frame["power_W"] * (1 + 1e-13)}) == before
    for name, other in (("op", np.array(["a", "c"], dtype=object)), ("end_ps", np.array([1, 3]))):
        assert {key for key, one in digests({**frame, name: other}).items() if one != before[key]} == {name}
    assert digests({**frame, "power_W": frame["power_W"] * (1 + 1e-6)})["power_W"] != before["power_W"]
    assert digests({**frame, "end_ps": frame["end_ps"].astype(np.int32)})["end_ps"] != before["end_ps"]
    assert digests(dict(reversed(frame.items())))["columns"] != before["columns"]
