"""Cluster traces: counts established by another parser, what each format means, and files that are damaged."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from cmsim.errors import InputError
from cmsim.jobs import IMPORTERS, Jobs, Nodes, load_jobs, load_nodes, open_jobs
from cmsim.reading.formats import sniffed

Damage = Callable[[bytes, random.Random], bytes]
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "traces"  # the full collection, where it stands beside the checkout

PODS_FULL = "cluster/alibaba_gpu2023_openb_pod_list_default.csv.gz"
NODES_FULL = "cluster/alibaba_gpu2023_openb_node_list_gpu_node.csv.gz"
DLRM_FULL = "cluster/alibaba_gpu2025_disaggregated_DLRM.csv.gz"
FULL = (PODS_FULL, NODES_FULL, DLRM_FULL)
absent = pytest.mark.skipif(not SHARED.is_dir(), reason="the full trace collection is not beside the checkout")

PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
pod-1,6000,12288,1,460,,LS,Running,427061,12902960,427071
pod-2,88000,327680,8,1000,A|B,Burstable,Succeeded,527061,,527061
pod-3,11908,47104,0,0,,BE,Pending,627061,627093,
"""
PODS_SAMPLED = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\npod-1,6000,12288,1,460\npod-2,88000,327680,8,1000\n"
NODES = "sn,cpu_milli,memory_mib,gpu,model\nnode-1,64000,262144,2,B\nnode-2,32000,1024,0,\nnode-3,96000,2048,8,A\n"
DLRM = """instance_sn,role,app_name,cpu_request,cpu_limit,gpu_request,gpu_limit,rdma_request,rdma_limit,memory_request,\
memory_limit,disk_request,disk_limit,max_instance_per_node,creation_time,scheduled_time,deletion_time
instance_1,CN,app_1,64,64,0,0,1,1,320.0,320.0,255.0,300.0,-1,1435629.0,1435639.0,1435760.0
instance_0,HN,app_0,12,12,1,1,25,25,120.0,120.0,640.0,800.0,8,,,1435700.5
instance_2,HN,app_1,12,12,1,1,25,25,120.0,120.0,640.0,800.0,8,1435619.0,1435619.0,
"""
PAI = """4f05,tensorflow,1.0,Terminated,1739162.0,1739200.0,600.0,29.296875,50.0,MISC
4f06,worker,4.0,Failed,1739100.0,1739150.0,600.0,29.296875,200.0,T4
4f06,ps,2.0,Running,1739100.0,,600.0,29.296875,,
"""
HELIOS = """job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue
1425511,u1,v1,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0
1425512,u2,v1,16,16,2,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:37,2020-06-09 18:45:36,239,10
1425513,u2,v1,0,16,1,CANCELLED,2020-06-09 18:41:28,,,0,0
"""
SEREN = """job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
5778432,u5907,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,2023-03-01 00:18:54+08:00,\
2023-03-01 00:20:51+08:00,117,32,936.0
5778469,u5907,2,8,128,Eval,COMPLETED,2023-02-28 16:23:58+00:00,2023-03-01 00:24:11+08:00,\
2023-03-01 01:09:04+08:00,2693,13,21544.0
"""
KALOS = """job_id,user,node_num,gpu_num,cpu_num,mem_per_pod_GB,shared_mem_per_pod,type,state,submit_time,start_time,\
end_time,fail_time,stop_time,duration,queue,gpu_time
dl1,u1,8,64,960,1000,100.0,Other,FAILED,2023-05-17 11:00:58+00:00,2023-05-17 11:01:08+00:00,\
2023-05-17 11:01:16+00:00,2023-05-17 11:01:16+00:00,,18,10.0,1152.0
"""
GPUS = '["gpu0", "gpu1", "gpu2", "gpu3"]'
PHILLY = f"""[
  {{"status": "Pass", "vc": "ee9e8c", "jobid": "application_1", "attempts": [
    {{"start_time": "2017-10-07 01:12:09", "end_time": "2017-10-07 01:13:23",
      "detail": [{{"ip": "m1", "gpus": ["gpu0"]}}]}},
    {{"start_time": "2017-10-07 01:13:30", "end_time": "2017-10-07 01:13:40",
      "detail": [{{"ip": "m1", "gpus": {GPUS}}}, {{"ip": "m2", "gpus": ["gpu0"]}}]}}],
    "submitted_time": "2017-10-07 01:11:39", "user": "ce2f4c"}},
  {{"status": "Killed", "vc": "x", "jobid": "application_2", "attempts": [], "submitted_time": "2017-10-07 01:11:29",
    "user": "y"}},
  {{"status": "Failed", "vc": "x", "jobid": "application_3", "attempts": [{{"start_time": "2017-10-07 02:11:29",
    "end_time": null, "detail": [{{"ip": "m2", "gpus": ["gpu0"]}}]}}], "submitted_time": "None", "user": "y"}}
]
"""
SPOT_NODES = "node_name,gpu_model,gpu_capacity_num,cpu_num\nn1,A10,8,128\nn2,H800,4,192\n"
SPOT = """job_name,organization,gpu_model,cpu_request,gpu_request,worker_num,submit_time,duration,job_type
j1,o,A10,8,2,3,5,100,HP
j2,o,H800,8,0.5,1,7,50,Spot
"""
TINY = {
    "pods": ("alibaba-openb", PODS),
    "pods-sampled": ("alibaba-openb", PODS_SAMPLED),
    "nodes": ("alibaba-openb", NODES),
    "spot-nodes": ("alibaba-spot", SPOT_NODES),
    "spot": ("alibaba-spot", SPOT),
    "dlrm": ("alibaba-dlrm", DLRM),
    "pai": ("alibaba-pai-2020", PAI),
    "helios": ("helios", HELIOS),
    "seren": ("acme", SEREN),
    "kalos": ("acme", KALOS),
    "philly": ("philly", PHILLY),
}


def write(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(tmp_path: Path, text: str) -> Jobs:
    return load_jobs(write(tmp_path, text))


def same(found: np.ndarray, expected: list[float | None]) -> bool:
    return np.array_equal(found, np.array(expected, float), equal_nan=True)


def sound(found: Jobs | Nodes) -> None:
    """What must hold of every file that is read."""
    assert len(found) > 0 and len(found.gpu_type) == len(found)
    assert ((found.gpu_type >= -1) & (found.gpu_type < len(found.gpu_types))).all()
    if isinstance(found, Nodes):
        assert (found.gpus >= 0).all() and not (found.memory_B < 0).any() and not (found.cpus < 0).any()
        return
    times = (found.submit_s, found.start_s, found.end_s, found.duration_s, found.gpus, found.gpus_per_node)
    assert all(len(column) == len(found) for column in times)
    assert ((found.status >= -1) & (found.status < len(found.statuses))).all()
    assert not (found.gpus < 0).any() and not (found.duration_s < 0).any() and not np.isinf(found.duration_s).any()
    known = np.flatnonzero(~np.isnan(found.submit_s))
    assert len(known) == 0 or (found.submit_s[known[0]] == 0 and known[-1] == len(found) - 1)
    assert (np.diff(found.submit_s[known]) >= 0).all()


# counts that were established by another parser


@absent
@pytest.mark.parametrize("name", FULL)
def test_collection_matches_its_counts(name: str) -> None:
    truth = json.loads((SHARED / "TRUTH.json").read_text())[name]
    found = open_jobs(SHARED / name)
    sound(found)
    assert {key: found.counts()[key] for key in truth} == truth
    assert sniffed(SHARED / name, IMPORTERS) == truth["format"]


@absent
def test_every_file_of_the_collection_is_tested() -> None:
    truth = json.loads((SHARED / "TRUTH.json").read_text())
    names = {name for name in truth if name.startswith("cluster/")}
    assert names == set(FULL)


@absent
def test_pods_of_the_collection_row_by_row() -> None:
    text = gzip.decompress((SHARED / PODS_FULL).read_bytes()).decode()
    rows = list(csv.DictReader(text.splitlines()))
    found = load_jobs(SHARED / PODS_FULL)
    assert found.submit_s.tolist() == [float(row["creation_time"]) for row in rows]
    assert found.gpus.tolist() == [int(row["num_gpu"]) * int(row["gpu_milli"]) / 1000 for row in rows]
    assert [found.statuses[code] for code in found.status] == [row["pod_phase"] for row in rows]
    ran = [float(row["deletion_time"]) - float(row["scheduled_time"] or "nan") for row in rows]
    assert same(found.duration_s, ran)
    assert found.notes == ("no start recorded of 897 of 8152 jobs",)


@absent
def test_nodes_of_the_collection() -> None:
    found = load_nodes(SHARED / NODES_FULL)
    assert (int(found.gpus.sum()), len(found.gpu_types)) == (6212, 7) and not found.notes


@absent
def test_instances_of_the_collection() -> None:
    found = load_jobs(SHARED / DLRM_FULL)
    counts = found.counts()
    assert counts["roles"] == {"CN": 16485, "HN": 7386} and counts["gpus"] == 7386 and counts["apps"] == 156
    assert int(np.isnan(found.submit_s).sum()) == 7280 and np.isnan(found.submit_s[:7280]).all()
    assert int((~np.isnan(found.duration_s)).sum()) == 12390


# what is made of a file


@pytest.mark.parametrize("case", TINY)
def test_formats_are_known_by_what_they_hold(tmp_path: Path, case: str) -> None:
    name, text = TINY[case]
    assert set(IMPORTERS) == {name for name, _ in TINY.values()}
    path = write(tmp_path, gzip.compress(text.encode()), "other.txt")
    starts = [other for other, importer in IMPORTERS.items() if importer.sniff(text.encode()[:4096], path)]
    assert starts == [name]
    found = open_jobs(path)
    assert found.format == name == found.counts()["format"] and found.source == str(path)
    sound(found)


def test_pods(tmp_path: Path) -> None:
    found = load(tmp_path, PODS)
    assert same(found.submit_s, [0, 100000, 200000])
    assert same(found.start_s, [10, 100000, None]) and same(found.end_s, [12475899, None, 200032])
    assert same(found.duration_s, [12475889, None, None])
    assert same(found.gpus, [0.46, 8, 0]) and same(found.gpus_per_node, [0.46, 8, 0])
    assert found.gpu_types == ("A|B",) and found.gpu_type.tolist() == [-1, 0, -1]
    assert found.statuses == ("Running", "Succeeded", "Pending") and found.status.tolist() == [0, 1, 2]
    assert found.notes == ("no start recorded of 1 of 3 jobs", "no end recorded of 1 of 3 jobs")
    assert found.counts()["qos"] == {"BE": 1, "Burstable": 1, "LS": 1} and found.counts()["gpus"] == 8.46


def test_sampled_pods_have_no_times(tmp_path: Path) -> None:
    found = load(tmp_path, PODS_SAMPLED)
    assert same(found.submit_s, [None, None]) and same(found.gpus, [0.46, 8])
    assert found.status.tolist() == found.gpu_type.tolist() == [-1, -1] and found.statuses == ()
    assert found.notes[0] == "no submission recorded of 2 of 2 jobs" and len(found.notes) == 3


def test_nodes(tmp_path: Path) -> None:
    found = load_nodes(write(tmp_path, NODES))
    assert found.gpus.tolist() == [2, 0, 8] and found.cpus.tolist() == [64, 32, 96]
    assert found.memory_B.tolist() == [262144 * 2**20, 2**30, 2**31]
    assert found.gpu_types == ("B", "A") and found.gpu_type.tolist() == [0, -1, 1]
    assert found.counts()["models"] == {"": 1, "A": 1, "B": 1}
    with pytest.raises(InputError, match="holds nodes of a cluster"):
        load_jobs(tmp_path / "trace")
    with pytest.raises(InputError, match="holds jobs"):
        load_nodes(write(tmp_path, PODS))


def test_dlrm(tmp_path: Path) -> None:
    found = load(tmp_path, DLRM)
    assert same(found.submit_s, [None, 0, 10]) and same(found.start_s, [None, 0, 20])
    assert same(found.end_s, [81.5, None, 141]) and same(found.duration_s, [None, None, 121])
    assert same(found.gpus, [1, 1, 0])
    assert found.notes[3] == "1 of 3 jobs were submitted before the one above them: sorted by submission"


def test_pai(tmp_path: Path) -> None:
    found = load(tmp_path, PAI)
    assert same(found.submit_s, [0, 0, 62]) and same(found.duration_s, [50, None, 38])
    assert same(found.gpus, [8, 0, 0.5]) and same(found.gpus_per_node, [2, 0, 0.5])
    assert [found.gpu_types[code] if code >= 0 else "" for code in found.gpu_type] == ["T4", "", "MISC"]
    assert "no 'plan_gpu' of 1 of 3 tasks: taken as 0" in found.notes
    assert found.notes[0].startswith("submission is taken as the start")
    header = "job_name,task_name,inst_num,status,start_time,end_time,plan_cpu,plan_mem,plan_gpu,gpu_type\n"
    assert load(tmp_path, header + PAI).counts() == found.counts()


@pytest.mark.parametrize(
    "text",
    [
        "j,i,u,Terminated,4550879.0,4551416.0\n",  # the job table
        "j,t,n,w,i,Terminated,2081336.0,2083889.0,m\n",  # instances
        "m,a,b,Terminated,x,2.0,3.0,4.0,5.0,T4\n",  # ten fields of another kind
        "j,t,1.0,Done,1.0,2.0,3.0,4.0,5.0,T4\n",
    ],
)
def test_other_tables_without_header_are_not_taken_for_tasks(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="no known format of jobs"):
        open_jobs(write(tmp_path, text))


def test_helios(tmp_path: Path) -> None:
    found = load(tmp_path, HELIOS)
    assert same(found.submit_s, [0, 26, 27]) and same(found.duration_s, [36848, 239, None])
    assert same(found.gpus, [1, 16, 0]) and same(found.gpus_per_node, [1, 8, 0])
    assert found.notes[0].startswith("times are local")
    assert found.statuses == ("COMPLETED", "FAILED", "CANCELLED")
    zero = load(tmp_path, HELIOS.replace("1,1,1,COMPLETED", "1,1,0,COMPLETED"))
    assert same(zero.gpus_per_node, [None, 8, 0])
    backwards = load(tmp_path, HELIOS.replace("18:41:37", "18:51:37"))
    assert same(backwards.duration_s, [36848, None, None])
    assert "1 of 3 jobs end before they start: their duration is taken as not recorded" in backwards.notes


def test_acme_zones(tmp_path: Path) -> None:
    found = load(tmp_path, SEREN)
    assert same(found.submit_s, [0, 336]) and same(found.start_s, [32, 349]) and same(found.duration_s, [117, 2693])
    assert same(found.gpus_per_node, [8, 4]) and not found.notes
    assert found.counts()["types"] == {"Eval": 1, "Other": 1} and found.counts()["gpus"] == 16
    other = load(tmp_path, KALOS)
    assert same(other.duration_s, [8])
    assert other.notes == ("'duration' of 1 of 1 jobs is not end less start: not used",)


def test_philly(tmp_path: Path) -> None:
    found = load(tmp_path, PHILLY)
    assert found.statuses == ("Pass", "Killed", "Failed") and found.status.tolist() == [2, 1, 0]
    assert same(found.submit_s, [None, 0, 10]) and same(found.start_s, [3600, None, 40])
    assert same(found.end_s, [None, None, 131]) and same(found.duration_s, [None, None, 84])
    assert same(found.gpus, [1, None, 5]) and same(found.gpus_per_node, [1, None, 4])
    assert found.counts() == {
        "format": "philly",
        "rows": 3,
        "attempts": 3,
        "gpus": 6.0,
        "statuses": {"Failed": 1, "Killed": 1, "Pass": 1},
    }
    again = load(
        tmp_path,
        PHILLY.replace("m2", "m1")
        .replace(f'[{{"ip": "m1", "gpus": {GPUS}}}, ', "[")
        .replace("07 01:13:30", "07 01:11:30"),
    )
    assert same(again.gpus, [1, None, 1]) and same(again.start_s, [3600, None, 1])
    unsaid = PHILLY.replace(
        f'"detail": [{{"ip": "m1", "gpus": {GPUS}}}, {{"ip": "m2", "gpus": ["gpu0"]}}]', '"detail": []'
    )
    assert same(load(tmp_path, unsaid).gpus, [1, None, 1])  # of the attempt before
    assert "1 of 3 attempts have no start or no end: not in the durations" in found.notes
    assert "no GPUs recorded of 1 of 3 jobs" in found.notes


def test_columns_stand_in_any_order(tmp_path: Path) -> None:
    rows = [line.split(",") for line in PODS.splitlines()]
    turned = "\n".join(",".join([*reversed(row), "more" if row is rows[0] else "1"]) for row in rows)
    found, plain = load(tmp_path, turned), load(tmp_path, PODS)
    assert found.notes == ("columns not used: more", *plain.notes)
    for name in ("submit_s", "start_s", "end_s", "duration_s", "gpus", "gpu_type", "status"):
        assert np.array_equal(getattr(found, name), getattr(plain, name), equal_nan=True), name


# files that are wrong

WRONG = {
    "no number": (PODS.replace("pod-2,88000,327680,8", "pod-2,88000,327680,x"), "trace:3: column 'num_gpu': got 'x'"),
    "a share above one": (PODS.replace("460", "1460"), "trace:2: column 'gpu_milli': got '1460'; allowed: a whole"),
    "a time that is none": (PODS.replace("627061", "soon"), "trace:4: column 'creation_time': got 'soon'; allowed"),
    "infinite": (PODS.replace("627061", "inf"), "trace:4: column 'creation_time': got 'inf'; allowed: a number from"),
    "cut short": (PODS[:-30], "trace:4: got 4 fields, allowed: 11 (name, cpu_milli"),
    "only a header": (PODS.split("\n")[0] + "\n", "trace: has no rows"),
    "nodes": (NODES.replace("262144,2,", "262144,-2,"), "trace:2: column 'gpu': got '-2'"),
    "instances": (DLRM.replace("HN,app_0,12,12,1", "HN,app_0,12,12,one"), "trace:3: column 'gpu_request': got 'one'"),
    "tasks": (PAI.replace(",200.0,", ",two,"), "trace:2: column 'plan_gpu': got 'two'"),
    "five fields": (PAI + "a,b,c,d,e\n", "trace:4: got 5 fields, allowed: 10"),
    "no date": (HELIOS.replace("2020-06-09 18:41:27", "2020-06-31 18:41:27"), "trace:3: column 'submit_time'"),
    "no zone": (SEREN.replace("18:54+08:00", "18:54+8"), "trace:2: column 'start_time'"),
    "half a GPU": (HELIOS.replace("v1,16", "v1,1.5"), "trace:3: column 'gpu_num': got '1.5'; allowed: a whole number"),
    "cut JSON": (PHILLY[:700], "is no JSON, or cut short"),
    "no end of the list": (PHILLY.rstrip()[:-1], "allowed: ',' or ']' behind it; the file may be cut short"),
    "after the list": (PHILLY + "x", "allowed: nothing behind the list of jobs"),
    "no job": (
        '[1, {"attempts": [], "submitted_time": null}]',
        "job at character 1: got a int; allowed: an object",
    ),
    "no attempts": (
        PHILLY.replace('"attempts": []', '"attempts": 5'),
        "'attempts': got 5; allowed: a list of objects",
    ),
    "no GPUs": (PHILLY.replace(GPUS, "4"), "job at character 4: 'detail': got [{'ip': 'm1'"),
    "no time": (PHILLY.replace("07 01:11:29", "32 01:11:29"), ": got '2017-10-32 01:11:29'; allowed: YYYY-MM-DD"),
    "a number for a time": (PHILLY.replace("null", "17"), ": 'end_time': got 17; allowed: text or null"),
    "too deep": ('[{"attempts": ' + "[" * 100_000, "a number too long, or lists too deep"),
    "a long number": ('[{"attempts": ' + "1" * 10_000 + "}]", "a number too long"),
    "nothing in it": ('[ ] \n "attempts"', "allowed: nothing behind the list"),
    "no jobs": ("[\n]" + " " * 9, "no known format of jobs"),
    "empty": ("", "trace: is empty"),
    "another format": ("a,b\n1,2\n", "trace: no known format of jobs (alibaba-openb, alibaba-spot"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:4bb\nsize 5\n", "is a pointer of Git LFS"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_by_line(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        open_jobs(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value).replace(str(path), "trace")


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no", "no such file")):
        with pytest.raises(InputError, match=message):
            open_jobs(path)
    with pytest.raises(InputError, match=r"no format of jobs is named 'phily'\. Did you mean 'philly'"):
        open_jobs(write(tmp_path, PODS), format="phily")
    with pytest.raises(InputError, match="no column 'gpu_num'"):
        open_jobs(write(tmp_path, PODS), format="helios")
    with pytest.raises(InputError, match="has no jobs"):
        open_jobs(write(tmp_path, "[]"), format="philly")


@pytest.mark.parametrize("case", TINY)
def test_damaged_files_are_read_or_refused(tmp_path: Path, case: str, damaged: Damage) -> None:
    name, text = TINY[case]
    rng = random.Random(f"jobs {case}")
    path = tmp_path / "trace"
    outcomes = {"read": 0, "refused": 0}
    for round_ in range(4 * settings.default.max_examples):
        path.write_bytes(damaged(text.encode(), rng))
        try:
            found = open_jobs(path, format=name if round_ % 2 else None)
        except InputError as error:
            outcomes["refused"] += 1
            assert str(path) in str(error)
        else:
            outcomes["read"] += 1
            sound(found)
            json.dumps(found.counts())
    assert min(outcomes.values()) >= 4, outcomes
