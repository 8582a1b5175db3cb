"""The live page without its library: what is asked, what is told at once, what is played, what is taken along."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmsim import api
from cmsim.cli import ui as command
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.results import Results
from cmsim.scenario import load_scenario
from cmsim.ui import drawn, page
from cmsim.ui.form import KINDS, FilledForm, fields, models, systems
from cmsim.ui.told import GROWS, WhatIsKnown
from cmsim.ui.whatif import Answer, WhatIf

TWO: dict[str, Any] = {
    "systems": ["hgx_h100", "hgx_h200"],
    "workload": {
        "kind": "decode",
        "model": "llama-3.1-8b",
        "batch_per_accelerator": 8,
        "context_tokens": 1024,
        "parallel": {"tp": 2},
    },
}


@pytest.fixture(autouse=True)
def kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMSIM_STEPS", "")


@pytest.fixture(scope="module")
def known() -> WhatIsKnown:
    return WhatIsKnown()


def asked(known: WhatIsKnown, **values: Any) -> WhatIf:
    one = WhatIf(known, load_scenario(TWO))
    one.change({name.replace("__", "."): value for name, value in values.items()})
    return one


def told(one: WhatIf) -> Answer:
    """The answer once nothing is missing."""
    while (answer := one.answer()).missing:
        assert answer.scenario is not None
        one.prepare(answer.scenario)
    return answer


def test_choices_are_data_and_words_of_the_schema():
    named = {one.name: one.values for kind in KINDS for one in fields(kind)}
    assert named["systems"] == systems() and "hgx_h100" in systems() and "llama-3.1-8b" in models()
    assert "fp8" in named["formats"] and set(KINDS) == set(named["kind"])


@pytest.mark.parametrize("name", ["supernode_against_rack", "service_h100"])
def test_the_form_asks_what_the_scenario_it_starts_from_asks(name: str):
    start = load_scenario(name)
    form = FilledForm.of_scenario(start)
    mine = load_scenario(form.scenario())
    theirs = [
        run
        for run in start.runs
        if run.spec.kind == form.kind
        and all(value in (96, 2) for value in run.point.values())  # its own load, of those that it sweeps
    ]
    assert [run.system for run in mine.runs] == [run.system for run in theirs]
    for one, other in zip(mine.runs, theirs, strict=True):
        left = {"arrivals": {"requests"}, "sensitivity": True}
        assert one.spec.model_dump(exclude=left) == other.spec.model_dump(exclude=left) and one.open == other.open


def test_a_scenario_that_the_page_cannot_ask_is_refused():
    with pytest.raises(InputError, match="the page asks decode, prefill, serving"):
        FilledForm.of_scenario(load_scenario("allreduce"))
    with pytest.raises(InputError, match="names of systems"):
        FilledForm.of_scenario(load_scenario({**TWO, "systems": [{"system": "hgx_h100", "name": "mine"}]}))


def a_service(**keys: Any) -> dict[str, Any]:
    lengths = {"prompt_tokens": 64, "output_tokens": 16}
    workload = {
        "kind": "serving",
        "model": "llama-3.1-8b",
        "parallel": {"tp": 2},
        "accelerators": 2,
        "lengths": lengths,
    }
    return {"systems": ["hgx_h100"], "workload": {**workload, **keys}}


@pytest.mark.parametrize(
    "arrivals",
    [
        {"process": "poisson", "rate_per_s": "most"},
        {"process": "gamma", "rate_per_s": 2},
        {"process": "curve", "curve": [[0, 1], [10, 2]]},
    ],
)
def test_a_service_without_a_load_of_the_form_is_refused(arrivals: dict[str, Any]):
    start = load_scenario(a_service(arrivals=arrivals, slo={"ttft_s": 2.0, "tpot_s": 0.05}))
    with pytest.raises(InputError, match="arrivals poisson or closed, a number"):
        FilledForm.of_scenario(start)


def test_what_more_keys_ask_that_the_page_does_not_is_said(known: WhatIsKnown):
    one = asked(known, kind="serving")
    one.change({"more": "workload.arrivals.rate_per_s: most"})
    assert "a load that is a number, got rate_per_s: most" in one.answer().error
    one.change({"more": "workload: {kind: collective, collective: all_reduce, message_bytes: 1000}"})
    assert "more keys make it collective" in one.answer().error


def test_many_users_are_all_there(known: WhatIsKnown):
    one = WhatIf(known, load_scenario(a_service(arrivals={"process": "closed", "concurrency": 512})))
    [row] = told(one).rows
    assert 400 < row.metrics["in_system_mean"] <= 512


def test_answers_of_one_token_have_no_time_between_two(known: WhatIsKnown):
    one = WhatIf(known, load_scenario(a_service(arrivals={"process": "closed", "concurrency": 4})))
    one.change({"more": "workload.lengths.output_tokens: 1"})
    played = one.play(told(one))
    assert played.rows[0].metrics["output_tokens_per_s_per_accelerator"] > 0 and not played.why
    assert "tpot_mean_s" not in played.columns


def test_what_is_lacking_is_made_one_by_one():
    one = asked(WhatIsKnown(), context_tokens=900, systems=["hgx_h100"])
    answer = one.answer()
    assert answer.missing and answer.scenario is not None
    one.prepare(answer.scenario)
    assert one.answer().missing  # of two lengths one; who asks something else now does not wait for the other
    one.prepare(answer.scenario)
    assert not one.answer().missing


def test_what_is_told_of_a_played_point_is_what_is_played(known: WhatIsKnown):
    one = asked(known)
    first = one.answer()
    assert first.missing == ("hgx_h100", "hgx_h200") and not first.rows
    answer = told(one)
    assert not answer.played and [len(line.x) > 5 for line in answer.lines] == [True, True]
    played = one.play(answer)
    assert played.played and played.verdict
    for row, run in zip(answer.rows, played.rows, strict=True):
        for name in answer.columns:
            assert row.metrics[name] == pytest.approx(run.metrics[name], rel=1e-6), name
    assert [sum(why.steps_s.values()) for why in played.why] == pytest.approx(
        [why.whole_s[1] - why.whole_s[0] for why in played.why], rel=1e-2
    )


def test_another_load_is_told_without_playing(known: WhatIsKnown, monkeypatch: pytest.MonkeyPatch):
    told(asked(known))
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: pytest.fail("something was played"))
    answer = asked(known, batch_per_accelerator=24).answer()
    few = asked(known, batch_per_accelerator=16).answer()
    many = asked(known, batch_per_accelerator=32).answer()
    assert not answer.missing
    for row, less, more in zip(answer.rows, few.rows, many.rows, strict=True):
        assert less.metrics["tpot_s"] < row.metrics["tpot_s"] < more.metrics["tpot_s"]


def test_another_length_is_played_ahead(known: WhatIsKnown):
    one = asked(known)
    answer = told(one)
    assert answer.scenario is not None
    assert asked(known, context_tokens=768).answer().missing
    assert one.more(answer.scenario) and one.more(answer.scenario)  # the nearest of each system
    assert not asked(known, context_tokens=768).answer().missing
    between = asked(known, context_tokens=900).answer()
    assert not between.missing and between.rows[0].metrics["tpot_s"] < answer.rows[0].metrics["tpot_s"]


def test_what_does_not_fit_says_why(known: WhatIsKnown):
    one = asked(known, batch_per_accelerator=512, context_tokens=32768)
    answer = told(one)
    assert all(re.search("does not fit|no batch", row.reason) and not row.metrics for row in answer.rows)
    assert all("a rank needs" in row.reason for row in one.play(answer).rows)
    assert "does not fit" in drawn.shown(answer, one.colour, doing="", state="told", turn=1).table


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"systems": []}, "no system is chosen"),
        ({"context_tokens": "many"}, "workload.context_tokens: must be a number of tokens"),
        ({"more": "workload.blance: 1"}, "Did you mean 'balance'"),
        ({"more": "workload.balance: [1"}, "more keys:2: not valid YAML"),
        ({"more": "just words"}, "expected a mapping"),
        ({"model": "<b>none</b>"}, "<b>none</b>"),
        ({"more": "sweep: {workload.batch_per_accelerator: [1, 2]}"}, "a page asks one point"),
        ({"systems": ["nowhere"]}, "nowhere"),
    ],
)
def test_wrong_input_is_said_on_the_page(known: WhatIsKnown, values: dict[str, Any], said: str):
    one = asked(known, **values)
    answer = one.answer()
    while answer.missing and not answer.error:
        assert answer.scenario is not None
        one.prepare(answer.scenario)
        answer = one.answer()
    shown = drawn.shown(answer, one.colour, doing="", state="none", turn=1)
    assert said in answer.error + "".join(row.reason for row in answer.rows)
    assert "<b>none" not in shown.said + shown.table


def test_names_that_are_no_field_are_passed_over(known: WhatIsKnown):
    one = asked(known, nonsense=1, kind="training", policy="os:system")
    assert one.form.kind == "decode" and "nonsense" not in str(one.form.scenario())


def test_two_people_have_states_of_their_own(known: WhatIsKnown):
    one, other = asked(known), asked(known)
    before = other.form.scenario()
    one.change({"batch_per_accelerator": 2, "systems": ["hgx_h100"], "more": "workload.evenness: 0.9"})
    one.change({"kind": "serving"})
    assert other.form.scenario() == before and told(other).rows != one.answer().rows
    assert one.form.scenario()["workload"]["kind"] == "serving"


def test_a_system_keeps_its_colour(known: WhatIsKnown):
    one = asked(known)
    first, second = one.colour("hgx_h100"), one.colour("hgx_h200")
    one.change({"systems": ["hgx_h200", "hgx_a100"]})
    assert one.colour("hgx_h200") == second != first == one.colour("hgx_a100")


def test_a_service_is_told_between_loads_that_were_played(known: WhatIsKnown):
    one = asked(known, kind="serving")
    one.change({"more": "workload.arrivals.requests: 40"})
    one.change({"systems": ["hgx_h100"], "accelerators": 2, "arrivals.rate_per_s": 2, "lengths.output_tokens": 32})
    answer = told(one)
    played = one.play(answer)
    for name in answer.columns:
        assert answer.rows[0].metrics[name] == pytest.approx(played.rows[0].metrics[name])
    assert "slo_attainment" in answer.columns and len(answer.lines[0].x) == 1
    one.change({"arrivals.rate_per_s": 1024.0})
    assert told(one).rows[0].reason == GROWS


def test_what_is_taken_along(known: WhatIsKnown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = asked(known, more="workload.precision.weights: fp8", systems=["hgx_h100"])
    text = one.yaml()
    [run] = load_scenario(text).runs
    assert run.spec == one.scenario().runs[0].spec and yaml.safe_load(text)["systems"] == ["hgx_h100"]
    with zipfile.ZipFile(io.BytesIO(one.frames(one.scenario()))) as file:
        file.extractall(tmp_path)
    found = Results.load(tmp_path / "results")
    assert len(found.results) == 1 and len(found.results[0].frame_columns("ops")["op"])

    def written(results: Results, path: Path) -> Path:
        path.write_text(results.results[0].system)
        return path

    monkeypatch.setattr("cmsim.report.write_report", written)  # whole in tests/unit/test_ui_page.py
    assert one.report(one.scenario()) == b"hgx_h100"


def test_a_chart_says_in_words_what_it_shows(known: WhatIsKnown):
    one = asked(known)
    answer = told(one)
    parts = drawn.shown(answer, one.colour, doing="", state="told", turn=3)
    assert parts.chart.count("<svg") == 2 and parts.chart.count("<polyline") == 4
    assert re.search(r'aria-label="tokens/s per accelerator over tokens/s of a user. Now: hgx_h100 [\d,]+', parts.chart)
    assert 'data-turn="3"' in parts.said


@pytest.fixture
def pages(known: WhatIsKnown, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], page.PersonsPage]]:
    """Makes pages of people; what they go on with is done at once, on the one thread that plays."""
    panel = pytest.importorskip("panel", reason="pip install -e '.[ui]'")
    monkeypatch.setattr(panel.state, "execute", lambda coroutine: asyncio.run(coroutine()))
    monkeypatch.setattr(page, "_SETTLED_s", 0.0)
    ahead = iter([True])
    monkeypatch.setattr(WhatIf, "more", lambda *_: next(ahead, False))
    with ThreadPoolExecutor(max_workers=1) as worker:
        yield lambda: page.PersonsPage(known, worker, load_scenario(TWO))


@pytest.mark.filterwarnings("default")  # the library's own
def test_a_page_follows_its_person_alone(pages: Callable[[], page.PersonsPage]):
    one, other = pages(), pages()
    for each in (one, other):
        each.ask()
        assert each.answer.played and 'data-state="played"' in each.parts["said"].object
    before = other.parts["table"].object
    assert before == one.parts["table"].object
    one.told({"turn": 7, "values": {"batch_per_accelerator": 2}})
    assert one.parts["table"].object != before == other.parts["table"].object
    assert 'data-turn="7"' in one.parts["said"].object and one.parts["why"].css_classes == []
    one.told({"turn": 8, "values": {"context_tokens": 0}})
    assert 'role="alert"' in one.parts["said"].object and one.parts["table"].css_classes == ["stale"]
    one.told({"file": "scenario"})  # of what is wrong there is none
    assert one.form.file == {} and "no file" in one.parts["said"].object
    for nonsense in ({}, {"file": "passwords"}, {"values": [1]}, {"turn": "x", "values": {"kind": 3}}):
        other.told(nonsense)
    other.told({"file": "scenario"})
    text = base64.b64decode(other.form.file["text"]).decode()
    assert load_scenario(text).runs[0].spec == load_scenario(TWO).runs[0].spec


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    page._panel.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "panel", None)
    with pytest.raises(SystemExit):
        app(["ui", "--no-open"])
    assert "pip install 'cmsim[ui]'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # the library's own
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"address": "::1", "port": 5099}, "--address: must be a name or an address of IPv4, got '::1'"),
        ({"origins": ["http://x.y"]}, "--allow-origin: Invalid port in host value: http://x.y; write HOST:PORT"),
        ({"start": "allreduce"}, "the page asks decode"),
    ],
)
def test_what_cannot_be_served_is_said_before(how: dict[str, Any], said: str):
    pytest.importorskip("panel", reason="pip install -e '.[ui]'")
    if "start" in how:
        how = {"start": load_scenario(how["start"])}
    with pytest.raises(InputError, match=re.escape(said)):
        page.serve(**how)


@pytest.mark.parametrize(("address", "warned"), [("127.0.0.1", False), ("0.0.0.0", True), ("somewhere", True)])
def test_beyond_this_machine_there_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str, warned: bool
):
    given: dict[str, Any] = {}
    monkeypatch.setattr(page, "serve", lambda **said: (given.update(said), ("server", "http://there/"))[1])
    monkeypatch.setattr(page, "run", lambda server: given.update(server=server))
    app(["ui", "--no-open", "--address", address, "--allow-origin", "there:1"], standalone_mode=False)
    said = capsys.readouterr()
    assert said.out == "http://there/\n" and ("without a password" in said.err) == warned
    assert given["server"] == "server" and given["address"] == address and given["origins"] == ["there:1"]
    assert command._loopback("localhost") and command._loopback("::1")
