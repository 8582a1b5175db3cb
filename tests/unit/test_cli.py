"""The command line: outputs, exit codes, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cmsim.cli import check, complete, say, schema
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.identity import Entry
from cmsim.results import Results, named, names
from cmsim.validation.detail import MADE_BY
from cmsim.validation.pairs import Pairs

ROOT = Path(__file__).resolve().parents[2]

ALL_REDUCE = """
name: One all-reduce
systems: [hgx_h100]
workload: {kind: collective, collective: all_reduce, message_bytes: 1e8}
"""
DECODE = """
name: Small decode
systems: [hgx_h100, hgx_h20]
workloads:
  decode:
    kind: decode
    model: llama-3.1-8b
    batch_per_accelerator: 4
    context_tokens: 1024
sweep: {workloads.decode.batch_per_accelerator: [4, 16]}
report: {per: [accelerator, rack, megawatt]}
"""


class Said:
    """What a command gave."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err
        self.errors = [line.removeprefix("error: ") for line in err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two scenarios."""
    (tmp_path / "all_reduce.yaml").write_text(ALL_REDUCE)
    (tmp_path / "decode.yaml").write_text(DECODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def cmsim(*args: object) -> Said:
    """A command in this process."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="cmsim")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def process(*args: object, cwd: Path) -> Said:
    """A command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "cmsim", *map(str, args)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def scenario(folder: Path, text: str, name: str = "s.yaml") -> str:
    (folder / name).write_text(text)
    return name


# run


def test_run_prints_a_table(here):
    said = cmsim("run", "all_reduce.yaml")
    assert said.code == 0
    assert said.out.startswith("One all-reduce\n\ncollective\n")
    assert re.search(r"hgx_h100 +\d+ µs +\w+ +\d+ GB/s +\d+ GB/s +[\d.]+ J +\d+ % port +link", said.out)
    assert "per rack" not in said.out  # nothing is divided by racks
    assert "assumed" in said.out
    assert said.err.startswith("1 run in ")


def test_tables_relate_throughput_as_the_scenario_asks(here):
    said = cmsim("run", "decode.yaml")
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines() if line.startswith("hgx_")]
    points = [["hgx_h100", "4"], ["hgx_h100", "16"], ["hgx_h20", "4"], ["hgx_h20", "16"]]
    assert [row[:2] for row in rows[:4]] == points
    # what has no room goes on in another table, beside the same points
    assert [row[:2] for row in rows[4:]] in ([], points)
    assert "megawatt" in said.out and "rack" in said.out
    assert "per megawatt: average power of the facility" in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert all(line == line.rstrip() for line in said.out.splitlines())


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_tables_never_cut_a_number(here, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    said = cmsim("run", "decode.yaml")
    assert said.code == 0
    assert "…" not in said.out
    rows = re.findall(r"^hgx_h100 .*", said.out.partition("\n- ")[0], re.M)
    assert all(row.split()[1] in ("4", "16") for row in rows)
    limiters = [row for row in rows if re.search(r" (memory|compute|latency|host)$", row)]
    assert len(limiters) == 2


def test_json_is_one_document_and_nothing_else(here):
    said = cmsim("run", "decode.yaml", "--json", "--out", "results")
    assert said.code == 0
    document = json.loads(said.out)
    assert document == json.loads((here / "results" / "summary.json").read_text())
    assert document["results"][0]["run"] == "decode/hgx_h100/batch_per_accelerator=4"
    assert {"tpot_s", "tokens_per_s", "energy_per_token_J"} <= document["results"][0]["metrics"].keys()


def test_json_keeps_stdout_pure_in_a_process(here):
    said = process("run", "all_reduce.yaml", "--json", cwd=here)
    assert said.code == 0
    assert json.loads(said.out)["results"][0]["limiter"] == "link"
    assert "run in" in said.err


def test_quiet_says_nothing(here):
    said = cmsim("run", "all_reduce.yaml", "--quiet", "--out", "results")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert (here / "results" / "summary.json").exists()
    assert json.loads(cmsim("run", "all_reduce.yaml", "-q", "--json").out)


def test_built_in_scenarios_by_name():
    assert re.fullmatch(r"ok: headline \(scenario, \d+ runs\)\n", cmsim("check", "headline").out)


def test_set_changes_the_scenario(here):
    said = cmsim(
        "run", "all_reduce.yaml", "--set", "workload.message_bytes=[1e6, 2e6]", "--set", "network=ideal", "--json"
    )
    document = json.loads(said.out)
    assert [one["run"].rpartition("/")[2] for one in document["results"]] == [
        "message_bytes=1000000",
        "message_bytes=2000000",
    ]
    assert document["scenario"]["network"] == "ideal"


def test_sizes_stand_in_a_column(here):
    said = cmsim("run", "all_reduce.yaml", "--set", "workload.message_bytes=[1e6, 2e6]")
    assert re.search(r"hgx_h100 +1,000,000 ", said.out)
    assert re.search(r"hgx_h100 +2,000,000 ", said.out)


# mistakes


def test_missing_file(here):
    said = cmsim("run", "zzz.yaml")
    assert (said.code, said.out) == (2, "")
    assert said.errors == ["no such scenario file: zzz.yaml"]


def test_missing_name_says_the_nearest(here):
    said = cmsim("run", "headlin")
    assert said.code == 2
    assert said.errors[0].startswith("no scenario named 'headlin'. Did you mean 'headline'?")


def test_unknown_key_has_its_line(here):
    said = cmsim("run", scenario(here, ALL_REDUCE + "netwrk: fluid\n"))
    assert said.code == 2
    assert said.errors[0].startswith("s.yaml:5: netwrk: unknown key 'netwrk'. Did you mean 'network'?")
    assert "Traceback" not in said.err


def test_wrong_type_has_its_line(here):
    text = DECODE.replace("context_tokens: 1024", "context_tokens: lots")
    said = cmsim("run", scenario(here, text))
    assert (said.code, said.out) == (2, "")
    wanted = "must be a number of tokens, or one with K, M, G or T (powers of 1,024), got 'lots'"
    assert said.errors == [f"s.yaml:9: workloads.decode.context_tokens: {wanted}"]


def test_several_problems_are_said_at_once(here):
    text = """
systems: [hgx_h10, hgx_h100]
workloads:
  a: {kind: decode, model: qwen3-235b-a22b, batch_per_accelerator: 8, context_tokens: 100, parallel: {ep: 7}}
  b: {kind: collective, collective: all_reduce, message_bytes: 1e6, ranks: 64}
  c: {kind: decode, model: llama-3.1-405b, batch_per_accelerator: 8, context_tokens: 1000}
  d: {kind: collective, collective: all_reduce, message_bytes: 1e6, algorithm: rng}
"""
    name = scenario(here, text)
    said = cmsim("run", name)
    assert (said.code, said.out) == (2, "")
    found = "\n".join(said.errors)
    assert "s.yaml:2: systems[0]: no system named 'hgx_h10'. Did you mean 'hgx_h100'?" in found
    assert "s.yaml:4: workloads.a.parallel.ep: expert parallel size 7" in found  # does not divide
    assert "s.yaml:5: workloads.b" in found and "64" in found  # more ranks than there are
    assert "s.yaml:6: workloads.c.batch_per_accelerator: the model does not fit: a rank needs " in found
    assert "s.yaml:7: workloads.d: unknown algorithm 'rng'. Did you mean 'ring'?" in found
    assert len(said.errors) == 5
    assert cmsim("check", name).errors == said.errors


def test_truncated_trace(here):
    whole = ROOT / "workloads" / "traces" / "chakra" / "micro_all_gather_4npus_1MB"
    shutil.copytree(whole, here / "cut")
    for path in (here / "cut").glob("*.et"):
        path.write_bytes(path.read_bytes()[:-7])
    said = cmsim("run", scenario(here, "systems: [hgx_h100]\nworkload: {kind: trace, path: ./cut}\n"))
    assert (said.code, said.out) == (2, "")
    assert said.errors and "cut" in said.errors[0]
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("network", "--set: got 'network'; write key=value"),
        ("=1", "--set: got '=1'; write key=value"),
        ("network=[1", "--set: network: '[1' is not valid YAML"),
        ("network=1\nb: 2", "--set: network: '1"),
        ("network=idael", "all_reduce.yaml: network: got 'idael'. Did you mean 'ideal'?"),
        ("workload.message_bytes=abc", "all_reduce.yaml: workload.message_bytes: must be a number of bytes, or one"),
        ("workloads.nothing.x=1", "all_reduce.yaml"),
    ],
)
def test_bad_set(here, given, expected):
    said = cmsim("run", "all_reduce.yaml", "--set", given)
    assert (said.code, said.out) == (2, "")
    assert said.errors[0].startswith(expected)


def test_a_foreign_folder_is_left_alone(here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    said = cmsim("run", "all_reduce.yaml", "--out", "mine")
    assert (said.code, said.out) == (2, "")
    assert said.errors == ["mine: holds something that is not a folder of results, so it is left alone"]
    assert sorted(path.name for path in here.iterdir()) == ["all_reduce.yaml", "decode.yaml", "mine"]
    assert [path.name for path in (here / "mine").iterdir()] == ["thesis.txt"]


def test_usage_errors_exit_with_2():
    assert cmsim("run").code == 2
    assert cmsim("nothing").code == 2
    assert cmsim("run", "x", "--nothing").code == 2


def test_errors_go_to_stderr_with_json_too(here):
    said = cmsim("run", "nowhere.yaml", "--json")
    assert (said.code, said.out) == (2, "")
    assert said.errors


def test_a_bug_keeps_its_traceback(here, monkeypatch):
    import cmsim.api

    def broken(*_, **__):
        raise AssertionError("a bug")

    monkeypatch.setattr(cmsim.api, "run", broken)
    with pytest.raises(AssertionError, match="a bug"):
        globals()["cmsim"]("run", "all_reduce.yaml")


def test_an_interrupt_is_quiet(here, monkeypatch):
    import cmsim.api

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cmsim.api, "run", interrupted)
    said = globals()["cmsim"]("run", "all_reduce.yaml")
    assert (said.code, said.out) == (130, "")
    assert "Traceback" not in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_who_leaves_is_no_error(here):
    command = f"{sys.executable} -m cmsim show hgx_h100 | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("hgx_h100")
    assert done.stderr == ""


# compare


def test_compare_folders(here):
    cmsim("run", "all_reduce.yaml", "-q", "--out", "a")
    cmsim("run", "all_reduce.yaml", "-q", "--out", "b", "--set", "workload.message_bytes=2e8")
    said = cmsim("compare", "a", "b")
    assert said.code == 0
    assert re.search(r"^algbw_GBps +\d+ GB/s +\d+ GB/s +1\.\d\d×$", said.out, re.M)
    document = json.loads(cmsim("compare", "a", "b", "--json").out)
    assert [one["run"] for one in document["results"]] == ["collective/hgx_h100", "collective/hgx_h100#2"]
    assert 1.9 < document["ratios_to_first"]["collective/hgx_h100#2"]["time_s"] < 2.1


def test_compare_holds_equal_points_against_each_other(here):
    said = cmsim("compare", "decode.yaml")
    assert said.code == 0
    assert [line for line in said.out.splitlines() if line.startswith("decode, ")] == [
        "decode, batch_per_accelerator 4",
        "decode, batch_per_accelerator 16",
    ]
    ratios = json.loads(cmsim("compare", "decode.yaml", "--json").out)["ratios_to_first"]
    assert ratios["decode/hgx_h100/batch_per_accelerator=16"]["tokens_per_s"] == 1.0


def test_compare_refuses_what_is_no_result(here):
    (here / "empty").mkdir()
    said = cmsim("compare", "empty")
    assert said.code == 2
    assert said.errors == ["empty: is not a folder of results: it has no summary.json of ours"]


# list and show


def test_list_in_short():
    said = cmsim("list")
    assert said.code == 0
    for word in ("systems", "hgx_h100", "cuda_graph", "llama-3.1-8b", "headline", "all_reduce", "decode"):
        assert word in said.out


@pytest.mark.parametrize(
    "kind",
    [
        "systems",
        "accelerators",
        "stacks",
        "failures",
        "prices",
        "regions",
        "models",
        "scenarios",
        "collectives",
        "workloads",
    ],
)
def test_list_a_kind(kind):
    said = cmsim("list", kind)
    assert said.code == 0 and said.out
    rows = json.loads(cmsim("list", kind, "--json").out)[kind]
    assert rows and all({"name", "description"} <= row.keys() for row in rows)
    assert all(row["name"] in said.out for row in rows)


def test_list_knows_other_words_for_a_kind():
    assert cmsim("list", "algorithms").out == cmsim("list", "collectives").out
    assert cmsim("list", "system").out == cmsim("list", "systems").out


def test_list_refuses_what_it_does_not_know():
    said = cmsim("list", "sistems")
    assert said.code == 2
    assert "Did you mean 'systems'?" in said.errors[0]


def test_show_a_system():
    said = cmsim("show", "hgx_h100")
    assert said.code == 0
    assert re.search(r"power_system_idle_kW +[\d.]+ +2\.60 +[+-][\d.]+ %", said.out)
    assert re.search(r"facility\.pue +1\.15 +ASSUMED, 1\.08 to 1\.56", said.out)
    assert "NO SOURCE" not in said.out
    document = json.loads(cmsim("show", "hgx_h100", "--json").out)
    assert {"totals", "numbers", "description"} <= document.keys()
    system = document["numbers"]["system hgx_h100"]
    pue = next(number for number in system if number["key"] == "facility.pue")
    assert pue["assumed"] == [1.08, 1.56] and pue["value"] == 1.15


def test_a_stack_shown_with_a_system_is_that_of_its_accelerator():
    document = json.loads(cmsim("show", "hgx_a100", "--json").out)
    numbers = {number["key"]: number for number in document["numbers"]["stack cuda_graph"]}
    assert "A100" in numbers["kernels.gemm.compute"]["source"]
    from cmsim.hardware import load_system

    assert numbers["kernels.gemm.compute"]["value"] == load_system("hgx_a100").stack.kernels["gemm"].compute


@pytest.mark.parametrize("name", ["cm384", "h100_sxm", "cuda_graph", "deepseek-r1", "HGX_H100"])
def test_show_by_name_and_alias(name):
    said = cmsim("show", name)
    assert said.code == 0 and said.out
    assert json.loads(cmsim("show", name, "--json").out)["kind"] in ("system", "accelerator", "stack", "model")


def test_show_says_what_else_has_the_name():
    assert "also the name of: system hgx_h100" in cmsim("show", "h100_sxm").err


def test_show_a_file(here):
    shutil.copy(ROOT / "topologies" / "accelerators" / "h20.yaml", here / "mine.yaml")
    assert cmsim("show", "mine.yaml").out.startswith("h20 (accelerator)")
    assert cmsim("show", "all_reduce.yaml").code == 2


def test_show_nothing():
    said = cmsim("show", "hgx_h101")
    assert said.code == 2
    assert "Did you mean 'hgx_h10" in said.errors[0]


# check


def test_all_built_in_files_pass():
    folders = [
        ROOT / "topologies",
        ROOT / "topologies" / "accelerators",
        ROOT / "topologies" / "stacks",
        ROOT / "topologies" / "failures",
        ROOT / "topologies" / "costs",
        ROOT / "topologies" / "regions",
    ]
    files = [path for folder in folders for path in folder.glob("*.yaml")]
    files += (ROOT / "workloads" / "models").glob("*.json")
    said = cmsim("check", *sorted(files))
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == len(files)
    assert "no source" not in said.err


def test_check_goes_on_after_a_bad_file(here):
    bad = scenario(here, "systems: [hgx_h100]\nworkload: {kind: decod}\n")
    said = cmsim("check", bad, "all_reduce.yaml", "nowhere.yaml")
    assert said.code == 2
    assert said.out == "ok: all_reduce.yaml (scenario, 1 run)\n"
    assert len(said.errors) == 2
    assert said.errors[0].startswith("s.yaml:2: workload.kind: got 'decod'")


def test_check_tells_kinds_by_content(here):
    data = yaml.safe_load((ROOT / "topologies" / "hgx_h100.yaml").read_text())
    del data["sources"]["facility.pue"]
    data["facility"]["pue"] = 1.3
    (here / "mine.yaml").write_text(yaml.safe_dump(data))
    said = cmsim("check", "mine.yaml")
    assert (said.code, said.out) == (0, "ok: mine.yaml (system)\n")
    assert said.err == "note: mine.yaml: no source for facility.pue\n"
    data["acelerators"] = data.pop("accelerators")
    (here / "mine.yaml").write_text(yaml.safe_dump(data))
    said = cmsim("check", "mine.yaml")
    assert said.code == 2
    assert any("acelerators" in error for error in said.errors)
    (here / "other.yaml").write_text("a: 1\n")
    assert "is neither a scenario" in cmsim("check", "other.yaml").errors[0]


# schema


def test_reference_is_what_the_program_prints():
    printed = cmsim("schema").out
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == printed, "run `make docs`"


def test_editors_complete_scenarios_by_the_schema():
    assert (ROOT / "docs" / "scenario.schema.json").read_text(encoding="utf-8") == cmsim(
        "schema", "scenario", "--json"
    ).out, "run `make docs`"
    line = "# yaml-language-server: $schema=../docs/scenario.schema.json"
    without = [path.name for path in sorted((ROOT / "scenarios").glob("*.yaml")) if line not in path.read_text("utf-8")]
    assert not without


def test_every_field_has_a_row():
    from cmsim import kinds
    from cmsim.hardware import SystemSpec

    printed = schema.markdown()
    for model in (SystemSpec, *(kind.spec for kind in kinds.every())):
        for name in model.model_fields:
            assert f"| `{name}` |" in printed
    links = set(re.findall(r"\(#([\w-]+)\)", printed))
    heads = re.findall(r"^### (.+)$", printed, re.M)
    assert links <= {title.lower().replace("`", "").replace(" ", "-") for title in heads}
    assert "workload-of-kind-training" in links  # of a step of reinforcement learning


def test_json_schema():
    document = json.loads(cmsim("schema", "--json").out)
    assert list(document) == ["scenario", "system", "accelerator", "stack", "failures", "price", "region"]
    scenario = document["scenario"]
    kinds = [ref["$ref"].rpartition("/")[2] for ref in scenario["properties"]["workload"]["anyOf"]]
    assert set(kinds) <= scenario["$defs"].keys()
    refs = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(scenario)))
    assert refs <= scenario["$defs"].keys()
    # a key is left open once, also of a kind whose keys another kind has
    keys = document["scenario"]["$defs"]["TrainingSpec"]["properties"]
    assert {"$ref": "#/$defs/TrainingParallelSpec"} in keys["parallel"]["anyOf"]
    assert json.loads(cmsim("schema", "system", "--json").out) == document["system"]
    assert cmsim("schema", "systm").code == 2


# plot


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot(here, ending):
    cmsim("run", "all_reduce.yaml", "-q", "--out", "a")
    said = cmsim("plot", "breakdown", "a", "--out", f"figures/x.{ending}")
    assert said.code == 0, said.err
    assert said.out.strip() == str(Path("figures") / f"x.{ending}")
    assert (here / "figures" / f"x.{ending}").stat().st_size > 1000


def test_plot_runs_a_scenario_first_and_has_a_default_file(here):
    said = cmsim("plot", "timeline", "decode.yaml", "--run", "decode/hgx_h20/batch_per_accelerator=16")
    assert (said.code, said.out) == (0, "timeline.png\n")
    assert (here / "timeline.png").exists()


def test_plot_mistakes(here):
    said = cmsim("plot", "brekdown", "all_reduce.yaml")
    assert said.code == 2
    assert said.errors[0].startswith("brekdown: no such figure. Did you mean 'breakdown'?")
    said = cmsim("plot", "breakdown", "all_reduce.yaml", "--out", "x.gif")
    assert said.code == 2
    assert said.errors == ["x.gif: cannot draw '.gif' files. Allowed: .pdf, .png, .svg."]
    assert cmsim("plot", "breakdown", "all_reduce.yaml", "--run", "x").code == 2
    said = cmsim("plot", "power", "all_reduce.yaml", "--from", "layer 1")
    assert said.code == 2 and said.errors == ["--from: power has none; it is for timeline"]
    said = cmsim("plot", "power-throughput", "all_reduce.yaml")
    assert said.code == 2 and "tokens_per_s" in said.errors[0]
    assert not list(here.glob("*.png"))


def test_a_collective_is_plotted_with_a_log_beside_it(here):
    (here / "nccl.log").write_text(
        "# all_reduce_perf\n# Rank  0 Group  0 Pid 1 on a device  0\n# Rank  1 Group  0 Pid 2 on a device  1\n"
        "    1024   256  float  sum  -1   10.50  0.10  0.10  0   10.20  0.10  0.10  0\n"
    )
    said = cmsim("plot", "collective", "all_reduce.yaml", "--measured", "nccl.log")
    assert said.code == 0 and (here / "collective.png").is_file()
    assert cmsim("plot", "collective", "all_reduce.yaml", "--measured", "none.log").code == 2


def test_plot_kinds_are_those_of_the_figures():
    from cmsim import plots

    assert set(complete.PLOTS) == {*plots.KINDS, "search", "topology", "predicted"}


# validate


class Report:
    ok = True

    def table(self):
        return [{"area": "power", "rows": 3, "worst_error_pct": 4.25, "ok": self.ok}]

    def summary(self):
        return {"ok": self.ok, "areas": self.table()}

    def __init__(self):
        numbers = np.array([1.0, 2.0])
        self.pairs = {"system-power": [Pairs("kW", "kW", "judged", numbers, 1.1 * numbers)]}

    def markdown(self, folder):
        return f"# Validity, {folder}\n"

    def pages(self, page):
        return {"system-power.md": f"{MADE_BY}\n# Power, {page}\n"}


@pytest.fixture
def report(monkeypatch):
    import cmsim.validation

    made = Report()
    asked = []
    monkeypatch.setattr(cmsim.validation, "validate", lambda areas=None: (asked.append(areas), made)[1], raising=False)
    made.asked = asked
    return made


def test_validate(here, report):
    said = cmsim("validate")
    assert (said.code, report.asked) == (0, [None])
    assert re.search(r"power +3 +4\.25 +yes", said.out)
    assert json.loads(cmsim("validate", "--json", "--area", "power").out) == report.summary()
    assert report.asked[-1] == ["power"]
    for _ in range(2):
        said = cmsim("validate", "--out", "docs/validity.md")
        assert said.code == 0
    assert (here / "docs" / "validity.md").read_text() == "# Validity, validity\n"
    folder = here / "docs" / "validity"
    assert (folder / "system-power.md").read_text().endswith("# Power, validity.md\n")
    assert (folder / "system-power.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in folder.parent.iterdir()} == {"validity", "validity.md"}


def test_the_page_of_a_validation_replaces_nothing_of_others(here, report):
    (here / "results").mkdir()
    (here / "results" / "summary.json").write_text("{}")
    said = cmsim("validate", "--out", "results.md")
    assert said.code == 2 and "'summary.json' is of no validation" in said.err
    (here / "results" / "summary.json").unlink()
    (here / "results" / "notes.md").write_text("mine\n")
    assert cmsim("validate", "--out", "results.md").code == 2
    assert cmsim("validate", "--out", "page").code == 2
    assert report.asked == []
    assert not list(here.glob("*.md"))


def test_pages_are_written_whole_or_not_at_all(here, report, monkeypatch):
    assert cmsim("validate", "--out", "validity.md").code == 0
    before = (here / "validity.md").read_text()
    monkeypatch.setattr(type(report), "pages", lambda self, page: {"system-power.md": "new\n"})
    nothing = np.zeros(0)
    monkeypatch.setattr(report, "pairs", {"system-power": [Pairs("kW", "kW", "judged", nothing, nothing)]})
    assert cmsim("validate", "--out", "validity.md").code != 0
    assert (here / "validity.md").read_text() == before
    assert (here / "validity" / "system-power.md").read_text().endswith("# Power, validity.md\n")
    assert {path.name for path in here.iterdir() if path.suffix != ".yaml"} == {"validity", "validity.md"}


def test_out_of_tolerance_exits_with_1(here, report):
    report.ok = False
    said = cmsim("validate")
    assert said.code == 1
    assert "NO" in said.out
    assert said.err == "out of tolerance: power\n"


# the program itself


def test_version_and_help():
    from cmsim.version import __version__

    assert cmsim("--version").out == f"cmsim {__version__}\n"
    said = cmsim("--help")
    assert said.code == 0
    for command in ("run", "compare", "list", "show", "check", "schema", "plot", "validate", "--install-completion"):
        assert command in said.out


def test_start_up_is_light(here):
    code = (
        "import sys\n"
        "from cmsim.cli import main\n"
        "sys.argv = ['cmsim', *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'pandas', 'pyarrow', 'matplotlib', 'scipy', 'networkx'}\n"
        "if '--help' in sys.argv:\n"
        "    heavy |= {'numpy', 'pydantic', 'simpy', 'yaml'}\n"
        "else:\n"
        "    import gc\n"
        "    assert gc.isenabled(), 'off while rooms are imported, on while they run'\n"
        "    heavy |= {'cmsim.graphs', 'cmsim.workload.generate.plan'}\n"
        "    heavy |= {'cmsim.execution.ends', 'cmsim.execution.nearest'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args in (["--help"], ["run", "all_reduce.yaml"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_completion(here):
    assert "headline" in complete.scenarios("head")
    assert complete.scenarios("all") == ["allreduce", "all_reduce.yaml"] or "all_reduce.yaml" in complete.scenarios(
        "all"
    )
    (here / "folder").mkdir()
    assert "folder/" in complete.scenarios("fol")
    assert "hgx_h100" in complete.names("hgx")
    assert complete.plots("power") == ["power-throughput", "power", "power-curve"]


# pieces


def test_progress_waits(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with say.Bar(clock=lambda: now[0]) as bar:
        bar("a", 0.1)
        assert bar.drawn is None
        now[0] = 2.5
        bar("a", 0.5)
        assert bar.drawn is not None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with say.Bar(clock=lambda: now[0]) as bar:
        now[0] = 9.0
        bar("a", 0.5)
        assert bar.drawn is None


def test_notes_are_said_once():
    assert [note for note, _ in say.merged(["x 1 y 2", "x 3 y 4", "z", "z"])] == ["x 1 y 2 (and 1 alike)", "z"]


def test_problems_of_a_good_scenario(here):
    from cmsim.scenario import load_scenario

    assert check.problems(load_scenario("decode.yaml")) is None
    assert check.problems(load_scenario(DECODE)) is None
    wrong = check.problems(load_scenario(DECODE.replace("hgx_h20", "hgx_h2")))
    assert isinstance(wrong, InputError) and len(wrong.problems) == 1


def test_names_of_runs_come_from_what_they_carry():
    class One:
        run, entry = "w/a,b=1/x/n=8", Entry(0, "a,b=1/x")
        point = {"workloads.w.n": 1024, "workloads.w.word": "x,y=2", "workloads.w.share": 0.123456789}

    system, point = named(One())
    assert system == "a,b=1/x"
    assert point == {"n": "1,024", "word": '"x,y=2"', "share": "0.123456789"}
    # two workloads' batches stand in one column, two keys that end alike in two
    other = One()
    other.point = {"workloads.v.n": 8, "workloads.v.parallel.word": 1}
    assert [list(point) for _, point in names([One(), other])] == [
        ["n", "workload.word", "share"],
        ["n", "parallel.word"],
    ]


def test_a_run_of_an_older_folder_is_called_by_its_whole_label(here):
    cmsim("run", "decode.yaml", "-q", "--out", "old")
    path = here / "old" / "summary.json"
    summary = json.loads(path.read_text())
    for one in (*summary["results"], *summary["outcomes"]):
        one.pop("entry", None), one.pop("point", None)
    path.write_text(json.dumps(summary))
    label = "decode/hgx_h100/batch_per_accelerator=4"
    again = Results.load(here / "old")
    assert (again[label].entry, again[label].point) == (None, {})
    assert named(again[label]) == (label, {}) and again.verdict() == []
    said = cmsim("compare", "old").out
    assert all(part in said for part in ("decode/", "hgx_h100/", "batch_per_accelerator=16"))
    for kind in ("power-throughput", "breakdown"):
        assert cmsim("plot", kind, "old", "--out", "x.png").code == 0


def test_compare_tells_folders_of_one_name_apart(here):
    for folder in ("a/out", "b/out"):
        (here / folder).parent.mkdir()
        cmsim("run", "all_reduce.yaml", "-q", "--out", folder)
    assert "a/out:" in (said := cmsim("compare", "a/out", "b/out").out) and "b/out:" in said


def test_compare_chooses_runs_and_metrics(here):
    cmsim("run", "all_reduce.yaml", "-q", "--out", "a", "--set", "workload.message_bytes=[1K, 64K, 1 MiB]")
    said = cmsim("compare", "a", "--metric", "busbw*", "--metric", "makespan_s", "--run", "1024", "--run", "*1048576")
    assert said.code == 0, said.err
    rows = re.findall(r"^(\w+) ", said.out.partition("──\n")[2], re.M)
    assert rows == ["busbw_GBps", "makespan_s"] or set(rows) == {"busbw_GBps", "makespan_s"}
    assert "message_bytes=65536" not in said.out and "message_bytes=1048576" in said.out
    document = json.loads(cmsim("compare", "a", "--run", "1024", "--metric", "busbw_GBps", "--json").out)
    assert len(document["results"]) == 1 and list(*document["ratios_to_first"].values()) == ["busbw_GBps"]
    assert "--metric: got 'busbw'. Did you mean 'busbw_GBps'?" in cmsim("compare", "a", "--metric", "busbw").err
    assert "--run: got 'none'" in cmsim("compare", "a", "--run", "none").err


def test_compare_of_a_folder_that_is_not_there(here):
    cmsim("run", "all_reduce.yaml", "-q", "--out", "a")
    said = cmsim("compare", "a", "b/")
    assert (said.code, said.out) == (2, "") and "no such folder, and no scenario of that name: b/" in said.err
    assert "no such scenario file" in cmsim("compare", "a", "nowhere.yaml").err


def test_a_pipe_gets_one_table_whole(here, monkeypatch):
    """However many columns: a line has no end there. On a screen the rest goes on below, or is only counted."""
    cmsim(
        "run",
        "all_reduce.yaml",
        "-q",
        "--out",
        "a",
        "--set",
        f"workload.message_bytes={[1024 * i for i in range(1, 21)]}",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("COLUMNS", None)
    call = [sys.executable, "-m", "cmsim", "compare", "a"]
    done = subprocess.run(call, cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("metric ") == 1 and max(map(len, done.stdout.splitlines())) > 300
    assert all(f"message_bytes={1024 * i}" in done.stdout for i in range(1, 21))
    monkeypatch.setenv("COLUMNS", "100")
    narrow = cmsim("compare", "a").out
    assert narrow.count("metric ") > 1 and max(map(len, narrow.splitlines())) <= 100


def test_compare_keeps_to_a_screen(here):
    from cmsim.cli import side_by_side
    from cmsim.results import Results

    cmsim(
        "run",
        "all_reduce.yaml",
        "-q",
        "--out",
        "a",
        "--set",
        f"workload.message_bytes={[1024 * i for i in range(1, 21)]}",
    )
    results = Results.load("a").results
    labels = [side_by_side.head(one) for one in results]
    tables, left_out = side_by_side.side_by_side(results, labels, width=100, one_screen=True)
    assert len(tables) == 1 and left_out == 20 - (len(tables[0].columns) // 2)
    assert side_by_side.side_by_side(results, labels, width=100)[1] == 0


PLANS = """
systems:
  - hgx_h100
  - {system: hgx_h100, name: other}
workloads:
  serve:
    kind: decode
    model: llama-3.1-8b
    batch_per_accelerator: 8
    context_tokens: 4K
    parallel:
      tp: 8
    per_system:
      other:
        batch_per_accelerator: 8
"""


@pytest.mark.parametrize(
    ("change", "line", "key"),
    [
        (("tp: 8", "tp: 3"), 12, "workloads.serve.parallel.tp"),
        (
            ("accelerator: 8\n    context", "accelerator: 80000\n    context"),
            9,
            "workloads.serve.batch_per_accelerator",
        ),
        (("        batch_per_accelerator: 8", "        batch_per_accelerator: 80000"), 15, "batch_per_accelerator"),
        (("tp: 8\n", "tp: 8\n      ep: 2\n"), 13, "workloads.serve.parallel.ep"),
    ],
)
def test_plans_and_memory_name_the_line_of_the_key(here, change, line, key):
    assert change[0] in PLANS
    Path("plans.yaml").write_text(PLANS.replace(*change))
    said = cmsim("check", "plans.yaml")
    assert said.code == 1 and said.errors[0].startswith(f"plans.yaml:{line}: ") and f"{key}: " in said.errors[0]
    assert f"(plans.yaml:{line})" in cmsim("run", "plans.yaml").out


def test_a_swept_or_set_key_is_where_it_stands(here):
    Path("plans.yaml").write_text(PLANS + "sweep:\n  workloads.serve.parallel.tp: [3]\n")
    assert cmsim("check", "plans.yaml").errors[0].startswith("plans.yaml:17: sweep.workloads.serve.parallel.tp: got 3")
    Path("plans.yaml").write_text(PLANS)
    assert "(plans.yaml:" not in cmsim("run", "plans.yaml", "--set", "workload.parallel.tp=3").out


def test_a_system_without_sources_is_said_to_be_one(here, monkeypatch):
    """By path, as any file can be named; and in the list, where it stands there."""
    from cmsim.cli import catalogue

    data = yaml.safe_load((ROOT / "topologies" / "hgx_h100.yaml").read_text(encoding="utf-8"))
    data |= {"name": "mine", "aliases": [], "sources": {}, "published": []}
    Path("mine.yaml").write_text(yaml.safe_dump(data))
    said = cmsim("run", "all_reduce.yaml", "--set", "systems=[./mine.yaml]")
    assert said.code == 0, said.err
    assert "- files in which no number has a source: mine" in said.out
    assert "no number has a source" not in cmsim("run", "all_reduce.yaml").out
    shown = cmsim("show", "mine.yaml").out
    assert re.search(r"^system mine: (\d+) numbers, 0 of them assumed,\s+\1\s+with\s+no\s+source$", shown, re.M)
    assert "note: mine.yaml: no source for" in cmsim("check", "mine.yaml").err
    monkeypatch.setattr(catalogue, "_yaml", lambda kind: [("mine", data)])
    assert catalogue.systems()[0]["description"].endswith(" (NO SOURCES)")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
@pytest.mark.parametrize(
    "command",
    [
        "run all_reduce.yaml --json",
        "--help",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("list", "compare a a --json", "schema")),
    ],
)
def test_any_command_ends_quietly_with_its_reader(here, command):
    cmsim("run", "all_reduce.yaml", "-q", "--out", "a")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        f"{sys.executable} -m cmsim {command} | head -c 1",
        shell=True, cwd=here, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (len(done.stdout), re.sub(r"^1 run in [\d.e-]+ s\n", "", done.stderr)) == (1, "")


def test_a_home_that_is_none_is_no_error(here):
    """Read-only: a file in its place, below which root cannot write either."""
    home = here / "home"
    home.write_text("x")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "COLUMNS": "100"}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "CMSIM_CACHE"):
        environment.pop(name, None)
    for call in (["run", "all_reduce.yaml", "--out", "a"], ["compare", "a", "a"]):
        done = subprocess.run(
            [sys.executable, "-m", "cmsim", *call],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_two_runs_on_one_folder_at_once(here):
    """Both end well, and one of the two stands there, whole."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "cmsim", "run", "all_reduce.yaml", "-q", "--out", "a", "--set", f"seed={seed}"],
            cwd=here, env=environment, stderr=subprocess.PIPE,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    said = [one.communicate()[1] for one in runs]
    assert [one.returncode for one in runs] == [0, 0], said
    assert sorted(one.name for one in here.iterdir() if one.name.startswith(".")) == []
    from cmsim.results import Results

    assert len(Results.load("a").results) == 1 and Results.load("a").manifest["seed"] in (1, 2)
