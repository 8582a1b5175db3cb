"""The frame itself: roles, statistics, the page, and errors of its data files."""

from __future__ import annotations

import json
import re
import statistics

import pytest

from cmsim import reading
from cmsim.errors import InfeasibleError, InputError
from cmsim.validation import AREAS, Row, fit_expert_imbalance, reference, validate
from cmsim.validation.folds import held_out
from cmsim.validation.report import Report


def row(id_: str, predicted: float | None = None, **more) -> Row:
    base = {"area": "a", "role": "judged", "system": "s", "what": "w", "published": 100.0, "unit": "s", "source": "x"}
    return Row(**{**base, "id": id_, "predicted": predicted, "tolerance_pct": 10.0, **more})


@pytest.mark.slow
def test_page_is_the_one_in_docs(whole, root):
    page = (root / "docs" / "validity.md").read_text(encoding="utf-8")
    assert page == whole.markdown(), "run `cmsim validate --out docs/validity.md` and read the difference"


def test_pages_of_quick_areas_are_those_in_docs(report, root):
    folder = root / "docs" / "validity"
    made = {name: text for name, text in report.pages().items() if name.removesuffix(".md") in report.areas}
    there = {name: (folder / name).read_text(encoding="utf-8") for name in made}
    assert there == made, "run `cmsim validate --out docs/validity.md` and read the difference"


@pytest.mark.slow
def test_pages_behind_it_are_those_in_docs(whole, root):
    folder = root / "docs" / "validity"
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert there == whole.pages(), "run `cmsim validate --out docs/validity.md` and read the difference"
    # figures differ with the library that draws them
    assert {path.stem for path in folder.glob("*.png")} == set(AREAS)
    assert {path.suffix for path in folder.iterdir()} == {".md", ".png"}


def test_links_of_the_pages_lead_somewhere(root):
    docs = root / "docs"
    for page in (docs / "validity.md", *(docs / "validity").glob("*.md")):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        links = [link for link in links if not link.startswith("http")]
        assert links or page.stem == "fits"
        assert not [link for link in links if not (page.parent / link).is_file()]


def test_an_area_is_a_figure_and_five_lines(report):
    page = report.markdown()
    for name, rows in report.areas.items():
        block = page.partition(f"## {reference.read_head(name).title}\n")[2].partition("\n## ")[0]
        assert f"(validity/{name}.png)" in block and f"(validity/{name}.md)" in block
        assert len(re.findall(r"^- \*\*", block, re.M)) == 5
        assert f"{sum(row.role == 'judged' for row in rows)} rows" in block


def test_figures_show_every_point_that_is_compared(report):
    for name in ("collectives", "expert_parallel", "kernels"):
        groups = held_out(name)
        assert sum(len(one.measured) for one in report.pairs[name]) == sum(map(len, groups.values()))
    for name in ("system-totals", "system-power", "headline-points", "flow-backend", "trace-replays"):
        compared = [row for row in report.areas[name] if row.error_pct is not None]
        assert sum(len(one.measured) for one in report.pairs[name]) == len(compared)
    for pairs in report.pairs.values():
        assert pairs
        assert all((one.measured > 0).all() and (one.predicted > 0).all() for one in pairs)
    # a statistic is of the points that the figure shows
    (error,) = [row.error_pct for row in report.areas["collectives"] if row.id == "hccl-dies/median"]
    (points,) = [one.error_pct for one in report.pairs["collectives"] if one.group == "hccl-dies"]
    assert error == pytest.approx(statistics.median(abs(points)))


@pytest.mark.slow
def test_the_figure_of_power_shows_what_is_judged(whole):
    power = {one.role: one for one in whole.pairs["power-under-load"] if one.group != "nodes"}
    (error,) = [row.error_pct for row in whole.areas["power-under-load"] if row.id == "hgx_h100/power/median"]
    assert error == pytest.approx(statistics.median(abs(power["judged"].error_pct)))


def test_fitted_rows_are_never_judged(report):
    judged = {found["id"] for found in report.rows()}
    for fit in reference.fits().values():
        assert not judged & set(fit.rows)
    assert not judged & {found["id"] for role in ("fitted", "left_out") for found in report.rows(role)}


@pytest.mark.parametrize("name", sorted(reference.fits()))
def test_refitting_gives_the_shipped_number(name):
    shipped = reference.fits()[name]
    value, residual_pct = fit_expert_imbalance(name)
    assert value == pytest.approx(shipped.value, rel=1e-5)
    assert residual_pct == pytest.approx(shipped.residual_pct, abs=0.01)


def test_a_fit_without_a_solution_says_so():
    with pytest.raises(InfeasibleError, match="no imbalance between 2 and 3"):
        fit_expert_imbalance(low=2, high=3)


def test_every_row_has_one_role(report):
    for name in report.areas:
        published = reference.read_rows(name)
        seen = [found["id"] for role in ("judged", "fitted", "left_out") for found in report.rows(role)]
        assert len(seen) == len(set(seen))
        assert set(published) <= set(seen)


def test_rows_that_are_not_judged_say_why(report):
    assert not [found["id"] for role in ("fitted", "left_out") for found in report.rows(role) if not found["note"]]


def test_summary_is_json(report):
    document = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert [area["area"] for area in document["areas"]] == [name for name in AREAS if name in report.areas]
    assert document["ok"] == report.ok == all(area["ok"] for area in document["areas"])


def test_statistics():
    errors = [1.0, -2.0, 3.0, -4.0, 10.0]
    rows = [row(f"R{i}", 100 + error) for i, error in enumerate(errors)]
    rows += [row("F", 500.0, role="fitted"), row("L", role="left_out", published=">94")]
    (found,) = Report({"a": rows}).table()
    assert (found["rows"], found["judged"], found["fitted"], found["left_out"]) == (7, 5, 1, 1)
    assert found["median_error_pct"] == pytest.approx(statistics.median(map(abs, errors)))
    assert found["p90_error_pct"] == pytest.approx(4 + 0.6 * 6)
    assert (found["worst_error_pct"], found["worst_row"], found["ok"]) == (pytest.approx(10.0), "R4", True)
    assert not Report({"a": [row("R", 111.0)]}).ok
    assert Report({"a": [row("F", 500.0, role="fitted")]}).table()[0]["median_error_pct"] is None


def test_a_judged_row_has_a_prediction():
    with pytest.raises(AssertionError, match="judged without a prediction"):
        row("R")


def test_unknown_area():
    with pytest.raises(InputError, match="Did you mean 'system-totals'"):
        validate(["system-total"])


def test_one_area_and_progress():
    told: list[tuple[str, float]] = []
    report = validate(["system-power"], progress=lambda what, share: told.append((what, share)))
    assert [area["area"] for area in report.table()] == ["system-power"]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  DECODE-010:\n", "  DECODE-013:\n", "no such row. Did you mean 'DECODE-01"),
        (
            "predict: {scenario: supernode-decode, ",
            "predict: {scenario: supernode-decod, ",
            "Did you mean 'supernode-dec",
        ),
        ("role: judged", "role: judge", "Did you mean 'judged'"),
        ("rows: [ABL-013]", "rows: [ABL-013, ABL-012]", "row 'ABL-012' has 2 roles"),
        ("rows: [ABL-013]", "rows: [ABL-014]", "row 'ABL-013' has no role"),
    ],
)
def test_errors_of_data_files(tmp_path, monkeypatch, old, new, message):
    for path in reference.folder().iterdir():
        text = path.read_text(encoding="utf-8")
        if path.name == "headline-points.yaml":
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(reference, "folder", lambda: tmp_path)
    with pytest.raises(InputError, match=message):
        validate(["headline-points"])


def test_csv_with_an_empty_cell(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text(f"{','.join(reference.COLUMNS)}\nA-1,s,w,m,1,s,,p,published\n", encoding="utf-8")
    monkeypatch.setattr(reference, "folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"x\.csv:2: 'source' is empty"):
        reference.read_rows("x")


def test_every_area_ships_its_data():
    for name in AREAS:
        assert (reference.folder() / f"{name}.yaml").is_file()
    assert reference.folder().is_relative_to(reading.DATA)


def test_an_area_whose_files_are_elsewhere_has_a_page():
    report = Report({"theirs": [row("R-1", 101.0)]})
    page = report.markdown()
    assert "## theirs" in page and "1 rows, tolerance 10 %: all within" in page
    assert "| R-1 |" in report.pages()["theirs.md"]
