"""The report: one page that says what was asked and found, loads nothing, and works in a browser."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import cmsim
from cmsim.cli import app
from cmsim.errors import InfeasibleError
from cmsim.report import write_report

TWO: dict[str, Any] = {
    "name": "<Two> & more",
    "systems": ["hgx_h100", "hgx_h200"],
    "workload": {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024},
    "sweep": {"workload.batch_per_accelerator": [2, 16, 100000]},
}

SERVED: dict[str, Any] = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 10, "requests": 20},
    "lengths": {"prompt_tokens": 100, "output_tokens": 10},
    "slo": {"ttft_s": 1, "tpot_s": 0.1},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = cmsim.run(TWO)
    return write_report(found, tmp_path_factory.mktemp("report") / "report.html", per=["rack"])


def test_the_page_says_what_the_results_say(page: Path):
    text = page.read_text(encoding="utf-8")
    found = cmsim.run(TWO, record="summary")
    said = html.unescape(re.sub(r"<[^>]+>", " ", text))
    for sentence in found.verdict():
        assert " ".join(sentence.partition(": ")[2].split()) in " ".join(said.split())
    rows = re.findall(r"<tr>(?:<td data-value=.*?</td>)+</tr>", text)
    assert len(rows) == len(found.results) == 4
    for one, row in zip(found.results, rows, strict=True):
        assert f'data-value="{one.metrics["tpot_s"]}"' in row and one.system in row
    assert "2 infeasible" not in said and said.count("is infeasible:") == 2
    assert "&lt;Two&gt; &amp; more" in text and "<Two>" not in text


def test_what_is_not_known_of_any_run_has_no_column(tmp_path: Path):
    question = {
        "systems": ["hgx_h100"],
        "workloads": {"served": SERVED, "step": {**TWO["workload"], "model": "llama-3.1-8b"}},
    }
    found = cmsim.run(question, record="summary")
    text = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    served, step = re.findall(r"<caption>.*?</table>", text, re.S)
    assert ">limiter<" not in served and ">limiter<" in step and ">bound reached<" in step
    limits = text.partition("What limits it")[2].partition("</section>")[0]
    assert "<td>served on" not in limits and "<td>step on" in limits
    parts = re.search(r'class="words">([^<]*)</td>', limits)[1]
    assert parts and not parts.endswith(",") and not re.search(r"\b0\W*%", parts)


def test_intervals_are_told(tmp_path: Path):
    found = cmsim.run({**TWO, "sweep": {"workload.batch_per_accelerator": [2]}, "uncertainty": {"draws": 200}})
    text = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nine of ten draws" in text and text.count("<td>tpot</td>") == 2
    assert "Which assumption moves the throughput" in text


def test_what_was_changed_is_told(tmp_path: Path):
    found = cmsim.run(TWO, set={"sweep": {}, "workload.context_tokens": 777}, record="summary")
    assert "context_tokens: 777" in write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing(page: Path):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!#)', text) and "url(http" not in text and "@import" not in text
    assert len(text) < 5e6 and text.count("<svg") >= 3
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_equal_results_give_equal_bytes(page: Path, tmp_path: Path):
    again = write_report(cmsim.run(TWO), tmp_path / "again.html", per=["rack"])
    assert again.read_bytes() == page.read_bytes()


def test_a_report_of_nothing_gives_the_reason(tmp_path: Path):
    none = cmsim.run({**TWO, "sweep": {"workload.batch_per_accelerator": [100000]}})
    with pytest.raises(InfeasibleError, match="does not fit"):
        write_report(none, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cmsim.run(TWO, out=tmp_path / "ran", record="summary")
    out = tmp_path / "r.html"
    app.app(["report", str(tmp_path / "ran"), str(tmp_path / "ran"), "-o", str(out)], standalone_mode=False)
    assert str(out) in capsys.readouterr().out and out.read_text(encoding="utf-8").count("sortable") > 1
    for wrong in (["report", str(tmp_path / "ran"), "-o", "r.pdf"], ["report", str(tmp_path / "ran"), "--per", "desk"]):
        with pytest.raises(SystemExit):
            app.app(wrong)
        assert re.search(r"a report is an \.html file|--per: got 'desk'", capsys.readouterr().err)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium; pip install -e '.[pages]'")
@pytest.mark.filterwarnings("default")  # the library's own
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_opens_and_sorts_it(page: Path, width: int):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[pages]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            shown = browser.new_page(viewport={"width": width, "height": 900})
            wrong: list[str] = []
            asked: list[str] = []
            shown.on("console", lambda message: wrong.append(message.text))
            shown.on("pageerror", lambda error: wrong.append(str(error)))
            shown.on("request", lambda request: asked.append(request.url))
            shown.goto(page.as_uri())
            head = shown.get_by_role("button", name="tpot")
            cells = "table.sortable tbody tr td:nth-child(3)"
            head.click()
            up = [float(cell.get_attribute("data-value")) for cell in shown.query_selector_all(cells)]
            head.click()
            down = [float(cell.get_attribute("data-value")) for cell in shown.query_selector_all(cells)]
            assert up == sorted(up) and down == up[::-1] and len(set(up)) > 1
            assert shown.get_by_role("img").count() == shown.locator("figure").count() >= 3
            assert shown.get_by_role("heading", level=2).all_inner_texts()[0] == "Answer"
            # what is too wide scrolls inside itself
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert wrong == [] and asked == [page.as_uri()]
        finally:
            browser.close()
