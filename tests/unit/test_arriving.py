"""Files as people have them: long heads, odd names, several steps, stages, databases; right values made by hand."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import cmsim
from cmsim import jobs, requests, traces
from cmsim.describe import describe
from cmsim.errors import InputError
from cmsim.reading import bytes_in
from cmsim.reading.bytes_in import HEADS_B, head
from cmsim.reading.formats import not_used, sniffed
from cmsim.traces import kineto, lower, open_trace
from cmsim.traces.columnar import open_ as open_columnar
from cmsim.traces.columnar import write_trace
from cmsim.traces.info import trace_info
from cmsim.traces.kineto import file as kineto_file
from cmsim.traces.numbered import numbered
from cmsim.workload.ops import COMPUTE

CASES = Path(__file__).parents[1] / "cases"


def replayed(tmp_path: Path, path: Path, system: str = "hgx_h100", more: str = "") -> cmsim.Result:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"systems: [{system}]\nworkloads: {{t: {{kind: trace, path: {path}{more}}}}}\n")
    (result,) = cmsim.run(scenario)
    return result


# -- the format, by more of the file than its first bytes --------------------------------------------------

FORMATS = {
    "aicb_256_ranks.csv": "aicb",
    "aicb_512_ranks.csv": "aicb",
    "aicb_two_stages.csv": "aicb",
    "chakra_long_head.json": "chakra",
    "chakra_short_head.json": "chakra",
    "kineto_list_metadata_first.json": "kineto",
    "pytorch_et_long_head.json": "pytorch_et",
    "pytorch_et_short_head.json": "pytorch_et",
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_whatever_stands_before(name):
    assert sniffed(CASES / "sniff" / name, traces.IMPORTERS) == FORMATS[name]
    assert len(open_trace(CASES / "sniff" / name).trace().ranks)


def test_every_file_of_the_folder_is_tested():
    assert {path.name for path in (CASES / "sniff").iterdir()} == set(FORMATS)


@pytest.mark.parametrize("size_B", [2**13, 2**17, 2**21])
@pytest.mark.parametrize("zipped", [False, True])
def test_heads_of_any_length_zipped_or_not(tmp_path, size_B, zipped):
    noise = np.random.default_rng(0).bytes(size_B // 2).hex()
    text = json.dumps({"about": noise, "workload_graph": [{"Id": 1, "Name": "k", "NodeType": 4, "Runtime": 5}]})
    path = tmp_path / "trace.json"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert sniffed(path, traces.IMPORTERS) == "chakra"


def test_a_known_file_is_asked_with_its_first_4_KiB_only(tmp_path):
    asked = []

    def sniff(start: bytes, path: Path) -> bool:
        asked.append(len(start))
        return False

    path = tmp_path / "x"
    path.write_bytes(b"x" * 10**5)
    known = {"odd": traces.Importer(sniff, traces.open_trace), "any": traces.Importer(lambda *_: True, open_trace)}
    assert sniffed(path, known) == "any" and asked == [HEADS_B[0]]
    assert sniffed(path, {"odd": known["odd"]}) is None and asked[1:] == [*HEADS_B[:2], 10**5]


def test_of_a_folder_of_a_thousand_unknown_files_little_is_read(tmp_path, monkeypatch):
    for i in range(1000):
        (tmp_path / f"{i}.json").write_bytes(b'{"a": [' + b"1, " * 30000 + b"1]}")
    read = []

    def counted(path: Path, size: int = HEADS_B[0]) -> bytes:
        read.append(size)
        return head(path, size)

    monkeypatch.setattr(bytes_in, "head", counted)
    assert sniffed(tmp_path, traces.IMPORTERS) is None
    # of two formats that ask all files of a folder: each size of a head, of as many files as 64 MiB hold
    assert len(read) == 2 * (1000 + 1000 + 64 + 8) and sum(read) < 2 * 4 * 2**26


def test_json_is_a_model_only_where_it_says_so(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(InputError, match="JSON object with model_type or architectures"):
        describe(path)


# -- folders: every file is used or named ------------------------------------------------------------------


def test_both_ranks_of_a_folder_whose_files_have_long_heads(tmp_path):
    folder = CASES / "kineto_long_head"
    assert list(open_trace(folder).trace().ranks) == [0, 1]
    assert replayed(tmp_path, folder).metrics["makespan_s"] == pytest.approx(5.25e-3, rel=0.002)


def test_what_a_folder_also_holds_is_named(tmp_path):
    for rank in range(2):
        (tmp_path / f"rank{rank}.json").write_bytes((CASES / "kineto_long_head" / f"rank{rank}.json").read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    notes = open_trace(tmp_path).trace().notes
    assert notes[0] == "not used: logs/, notes.txt, other.json (no profile of PyTorch and no execution trace)"
    assert not_used([Path(f"{i:02}") for i in range(23)], "why")[0].endswith("18, 19 and 3 more (why)")


def test_a_folder_of_execution_traces_names_the_others(tmp_path):
    (tmp_path / "et.json").write_bytes((CASES / "sniff" / "pytorch_et_long_head.json").read_bytes())
    (tmp_path / "x.bin").write_bytes(b"\0")
    assert open_trace(tmp_path).trace().notes[0] == "not used: x.bin (no execution trace of PyTorch)"


# -- ranks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((CASES / "kineto_ranks").iterdir()), ids=lambda path: path.name)
def test_a_file_alone_is_rank_0_whatever_its_name(path):
    assert list(open_trace(path).trace().ranks) == [0]


def test_recordings_that_are_no_job_are_not_made_one(tmp_path):
    with pytest.raises(InputError, match="nothing says which rank"):
        open_trace(CASES / "kineto_ranks")
    for i in range(2):  # numbered from 0, and without communicators
        (tmp_path / f"run_{i}.json").write_bytes((CASES / "kineto_ranks" / "trace_4.json").read_bytes())
    with pytest.raises(InputError, match="they name no communicators: each is a recording of its own"):
        open_trace(tmp_path)


def test_names_count_where_files_name_communicators(tmp_path):
    whole = json.loads((CASES / "kineto" / "two_steps.json").read_text())
    whole.pop("distributedInfo", None)
    for name in ("n1_7.worker1.json", "n1_9.worker0.json"):
        (tmp_path / name).write_text(json.dumps(whole))
    files = kineto_file.open_(tmp_path).files
    assert {rank: one.path.name for rank, one in files.items()} == {0: "n1_9.worker0.json", 1: "n1_7.worker1.json"}
    (tmp_path / "n1_7.worker1.json").rename(tmp_path / "n1_7.worker2.json")
    with pytest.raises(InputError, match="not numbered 0 to n-1"):
        kineto.open_(tmp_path)


def test_numbers_of_one_place():
    assert numbered(["a7_0_x.json", "a7_1_x.json"]) == [0, 1]
    assert numbered(["0_10.json", "1_20.json"]) == [0, 1]
    assert numbered(["trace_1.json", "trace_2.json"]) is None


def test_the_job_is_as_large_as_its_communicators_say(tmp_path):
    result = replayed(tmp_path, CASES / "sniff" / "kineto_list_metadata_first.json")
    assert result.metrics["makespan_s"] == pytest.approx(351e-6, rel=0.01)
    assert any(
        "the job is taken to have 2 ranks" in note
        for note in open_trace(CASES / "sniff" / "kineto_list_metadata_first.json").trace().notes
    )


# -- several steps in one recording ------------------------------------------------------------------------


def test_figures_of_a_step_divide_by_the_steps(tmp_path):
    path = CASES / "kineto" / "two_steps.json"
    info = trace_info(open_trace(path).trace())
    assert (info["recorded_us"], info["steps"], info["step_us"]) == (800, 2, 400)
    result = replayed(tmp_path, path)
    assert result.recorded["step"]["recorded_s"] == pytest.approx(400e-6)
    assert result.recorded["step"]["simulated_s"] == pytest.approx(result.metrics["makespan_s"] / 2)
    # two ranks, two steps each
    assert result.metrics["rank_steps_per_s"] == pytest.approx(4 / result.metrics["makespan_s"])


def test_a_step_marked_on_two_threads_is_one(tmp_path):
    whole = json.loads((CASES / "kineto_ranks" / "trace.json").read_text())
    (mark,) = [one for one in whole["traceEvents"] if one["name"].startswith("ProfilerStep#")]
    whole["traceEvents"].append({**mark, "tid": 7})
    path = tmp_path / "x.json"
    path.write_text(json.dumps(whole))
    assert open_trace(path).trace().facts["steps"] == 1


def test_iterations_of_a_log_are_steps(tmp_path):
    path = tmp_path / "log.csv"
    row = "CommType.all_reduce,CommGroup.dp_group,8,1048576,backward,None,None,,None,None,None,1\n"
    end = "CommType.epoch_end,None,None,0,,None,None,,10,None,None,1\n"
    head = "comm_type,comm_group,comm_group_size,msg_size,stage,dst,src,additional,_elapsed_time,algbw,busbw,count\n"
    path.write_text(head + (row + end) * 3)
    info = trace_info(open_trace(path).trace())
    assert (info["steps"], info["recorded_us"], info["step_us"]) == (3, 30e3, 10e3)


# -- AICB --------------------------------------------------------------------------------------------------


def test_stages_have_rows_and_groups_of_their_own(tmp_path):
    opened = open_trace(CASES / "sniff" / "aicb_two_stages.csv")
    assert opened.counts()["pipeline_stages"] == 2 and opened.counts()["rows"] == 4
    trace = opened.trace()
    assert list(trace.ranks) == [0, 8] and trace.world_size == 16
    assert [one.members for one in trace.communicators] == [tuple(range(8)), tuple(range(8, 16))]
    made = lower(trace)
    assert made.ranks == 16 and made.groups[:, 0].tolist() == [0] * 8 + [1] * 8
    write_trace(trace, tmp_path / "t.parquet")
    again = open_columnar(tmp_path / "t.parquet").trace()
    assert again.copies == (0,) * 8 + (8,) * 8 and (lower(again).groups == made.groups).all()
    with pytest.raises(InputError, match="32 ranks are asked for; the log is of the 16 of 2 stages"):
        opened.trace(ranks=32)


def test_stages_that_differ_run_what_is_theirs(tmp_path):
    text = (CASES / "sniff" / "aicb_two_stages.csv").read_text()
    first, second = text.split("[ pp_stage1")
    path = tmp_path / "log.csv"
    path.write_text(first + "[ pp_stage1" + second.replace("1048576", "2097152"))
    made = lower(open_trace(path).trace())
    assert len(set(made.program[:8].tolist())) == 1 and len(set(made.program.tolist())) == 2
    path.write_text(first + "[ pp_stage1" + second.replace("rank15", "rank16"))
    with pytest.raises(InputError, match="ranks 8 to 16 of a pipeline stage: 1 are missing"):
        open_trace(path)
    path.write_text(first + second.partition("\n")[2])
    with pytest.raises(InputError, match="a header of another pipeline stage"):
        open_trace(path)


@pytest.mark.parametrize("ranks", [256, 512])
def test_a_stage_of_many_ranks(ranks):
    trace = open_trace(CASES / "sniff" / f"aicb_{ranks}_ranks.csv").trace()
    assert trace.world_size == ranks
    # what data parallelism leaves of a stage stands next to each other
    assert trace.communicators[0].members == tuple(range(0, ranks, ranks // 8))
    assert any("in dp_groups of 8" in note for note in trace.notes)


# -- the Ascend profiler's databases -----------------------------------------------------------------------

DB = CASES / "ascend" / "a_db_only"
OUT = DB / "host_1234_20250314101112345_ascend_pt" / "ASCEND_PROFILER_OUTPUT"


@pytest.mark.parametrize("path", [DB, DB / "host_1234_20250314101112345_ascend_pt", OUT, OUT / "analysis.db"])
def test_a_database_is_read(path):
    trace = open_trace(path).trace()
    one = trace.ranks[0]
    assert [one.names[i] for i in one.name] == ["MatMulV2", "hcom_allReduce__123_0_1"]
    assert one.start_us.tolist() == [0, 100] and one.duration_us.tolist() == [100, 50]
    assert one.collectives == ("all_reduce",) and one.bytes_B[1] == 1024
    assert (path == OUT / "analysis.db") or trace.notes[0].startswith("not used: analysis.db")


def database(path: Path, *statements: str) -> Path:
    db = sqlite3.connect(path)
    for one in statements:
        db.execute(one)
    db.commit()
    db.close()
    return path


def test_steps_ranks_and_types_of_a_database(tmp_path):
    database(
        tmp_path / "ascend_pytorch_profiler_3.db",
        "CREATE TABLE STRING_IDS(id INTEGER, value TEXT)",
        "INSERT INTO STRING_IDS VALUES (1, 'hcom_allGather__586_0_1'), (2, 'g'), (3, 'MEMCPY_ASYNC'), (4, 'AI_CORE')",
        "CREATE TABLE TASK(startNs INTEGER, endNs INTEGER, globalTaskId INTEGER, taskType INTEGER, streamId INTEGER)",
        "INSERT INTO TASK VALUES (0, 1000, 1, 4, 2), (1000, 1500, 2, 3, 2), (2000, 2500, 3, 4, 9)",
        "CREATE TABLE COMPUTE_TASK_INFO(name INTEGER, globalTaskId INTEGER, taskType INTEGER, opType INTEGER)",
        "INSERT INTO COMPUTE_TASK_INFO VALUES (4, 1, 4, 4)",
        "CREATE TABLE COMMUNICATION_TASK_INFO(globalTaskId INTEGER)",
        "INSERT INTO COMMUNICATION_TASK_INFO VALUES (3)",
        "CREATE TABLE COMMUNICATION_OP(opName INTEGER, startNs INTEGER, endNs INTEGER, groupName INTEGER,"
        " dataType INTEGER, count INTEGER)",
        "INSERT INTO COMMUNICATION_OP VALUES (1, 2000, 4000, 2, 7, 100)",
        "CREATE TABLE ENUM_HCCL_DATA_TYPE(id INTEGER, name TEXT)",
        "INSERT INTO ENUM_HCCL_DATA_TYPE VALUES (7, 'BFP16')",
        "CREATE TABLE STEP_TIME(id INTEGER, startNs INTEGER, endNs INTEGER)",
        "INSERT INTO STEP_TIME VALUES (1, 0, 2000), (2, 2000, 4000)",
    )
    (tmp_path / "profiler_metadata.json").write_text(json.dumps({"distributed_args": {"world_size": 8, "rank": 3}}))
    opened = open_trace(tmp_path)
    trace = opened.trace()
    assert list(trace.ranks) == [3] and trace.world_size == 8 and trace.facts["steps"] == 2
    one = trace.ranks[3]
    (gathers,) = np.flatnonzero(one.collective >= 0)
    assert one.bytes_B[gathers] == 100 * 2 * 8  # of all ranks
    assert (one.kind == COMPUTE).sum() == 2  # the task of the gather is part of it


def test_databases_of_others_and_broken_ones_are_refused(tmp_path):
    other = database(tmp_path / "x.db", "CREATE TABLE CUPTI(a INTEGER)")
    with pytest.raises(InputError, match="no known format of traces"):
        open_trace(other)
    with pytest.raises(InputError, match="without the tables TASK and COMMUNICATION_OP of the Ascend profiler"):
        open_trace(other, format="ascend")
    broken = tmp_path / "ascend_pytorch_profiler_0.db"
    broken.write_bytes((OUT / broken.name).read_bytes()[:5000])
    with pytest.raises(InputError, match=r"ascend_pytorch_profiler_0.db: is no readable SQLite database"):
        open_trace(broken, format="ascend")
    wrong = database(tmp_path / "w.db", "CREATE TABLE TASK(startNs, endNs)", "INSERT INTO TASK VALUES (5, 1)")
    with pytest.raises(InputError, match="table TASK: a row from 5 to 1 ns"):
        open_trace(wrong)
    text = database(tmp_path / "t.db", "CREATE TABLE TASK(startNs, endNs)", "INSERT INTO TASK VALUES ('x', 1)")
    with pytest.raises(InputError, match="table TASK, row 1: startNs: got 'x'"):
        open_trace(text)


# -- requests and clusters ---------------------------------------------------------------------------------


def test_conversations_are_counted_by_a_stated_rule(tmp_path):
    found = requests.load_requests(CASES / "requests" / "sharegpt.json")
    assert found.input_tokens.tolist() == [1] and found.output_tokens.tolist() == [2]  # "hi", "hello"
    assert "lengths are not in the file: a token is taken for 4 bytes of text (UTF-8)" in found.notes
    talk = [("human", "x" * 40), ("gpt", "y" * 8), ("human", "z" * 4), ("gpt", "w" * 400), ("gpt", "")]
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([{"conversations": [{"from": who, "value": text} for who, text in talk]}]))
    found = requests.load_requests(path)
    assert found.input_tokens.tolist() == [10, 13] and found.output_tokens.tolist() == [2, 100]
    assert found.session.tolist() == [0, 0]
    assert "1 replies that are empty or answer nothing are left out" in found.notes
    lines = [{"conversations": [{"role": "user", "tokens": 7}, {"role": "assistant", "tokens": 9}]}] * 2
    path.write_text("\n".join(map(json.dumps, lines)))
    found = requests.load_requests(path)
    assert found.input_tokens.tolist() == [7, 7] and not any("taken for" in note for note in found.notes)
    path.write_text(json.dumps([{"conversations": [{"from": "human", "value": 3}]}]))
    with pytest.raises(InputError, match=r"conversation 0: a turn that cannot be read \(got 3; allowed: text"):
        requests.load_requests(path)


def test_lengths_are_taken_where_ids_are_others():
    found = requests.load_requests(CASES / "requests" / "lss.jsonl")
    assert found.input_tokens.tolist() == [128] and found.block_tokens == 0
    assert any("lengths are taken, ids are not" in note for note in found.notes)


def test_nodes_and_jobs_of_a_spot_cluster(tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_text("node_name,gpu_model,gpu_capacity_num,cpu_num\nn1,A10,8,128\nn2,H800,4,192\n")
    nodes = jobs.load_nodes(path)
    assert nodes.gpus.tolist() == [8, 4] and nodes.cpus.tolist() == [128, 192] and nodes.gpu_types == ("A10", "H800")
    path.write_text(
        "job_name,organization,gpu_model,cpu_request,gpu_request,worker_num,submit_time,duration,job_type\n"
        "j1,o,A10,8,2,3,5,100,HP\nj2,o,H800,8,0.5,1,7,50,Spot\n"
    )
    found = jobs.load_jobs(path)
    assert found.gpus.tolist() == [6, 0.5] and found.duration_s.tolist() == [100, 50]
    assert found.submit_s.tolist() == [0, 2] and found.gpu_types == ("A10", "H800")


# -- odd but legal, or refused with the place ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["c2_minus_nan", "c3_nan", "d_windows_backslash", "h_comms_id_bigger_than_64bit", "k_rocm", "m_ranks_cut"]
)
def test_profiles_that_are_not_quite_JSON_or_of_other_makers_are_read(name):
    trace = open_trace(CASES / "kineto" / f"{name}.json").trace()
    info = trace_info(trace)
    assert info["ops"] == {"compute": 1, "host": 3, "collective": 1} and info["recorded_us"] == 400
    assert info["collectives"]["all_reduce"]["bytes_B"] == 2**21
    lenient = any("JSON only by looser rules" in note for note in trace.notes)
    assert lenient == (name[0] in "cd")


def test_text_that_is_no_JSON_is_refused_with_the_byte():
    with pytest.raises(InputError, match="byte 423: not valid JSON"):
        open_trace(CASES / "kineto" / "e_unescaped_quotes.json")


def test_what_jsonizer_prints_is_a_chakra_trace(tmp_path):
    folder = CASES / "chakra" / "jsonizer"
    info = trace_info(open_trace(folder).trace())
    assert info["ranks"] == 2 and info["ops"] == {"compute": 2, "collective": 2}
    assert info["collectives"]["all_reduce"]["bytes_B"] == 2 * 2**20
    assert info["critical_path_us"] == pytest.approx(100)
    for one in folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    (tmp_path / "readme.txt").write_text("x")
    assert open_trace(tmp_path).trace().notes[0] == "not used: readme.txt (no trace of Chakra, no communicators)"
    cut = tmp_path / "chakra.0.json"
    cut.write_text(cut.read_text()[:-20])
    with pytest.raises(InputError, match=r"chakra.0.json: byte \d+: not valid JSON"):
        open_trace(tmp_path)


def test_any_source_by_its_word():
    opened = open_trace(CASES / "goal" / "own_any.goal")
    assert opened.counts()["wildcard_recv"] == 1 and lower(opened.trace()).ranks == 2
