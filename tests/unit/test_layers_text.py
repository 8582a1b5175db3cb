"""Layer-wise text workloads: counts established by others, the order of each policy, and files that are damaged."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from cmsim.compute.roofline import KERNELS
from cmsim.errors import InputError
from cmsim.reading import DATA
from cmsim.reading.bytes_in import head
from cmsim.traces.layers import schedule as layers_schedule
from cmsim.traces.layers import text as layers_text
from cmsim.workload.ops import COLLECTIVE, COMPUTE

SAMPLES = DATA / "workloads" / "traces"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
MOE = "simai/workload_analytical_9216gpu_moe.txt"
FILES = (
    "astra_v1/DLRM_HybridParallel.txt",
    "astra_v1/MLP_HybridParallel_Data_Model.txt",
    "astra_v1/MLP_ModelParallel.txt",
    "astra_v1/Resnet50_DataParallel.txt",
    "astra_v1/Transformer_HybridParallel.txt",
    "astra_v1/microAllReduce.txt",
    "simai/G13B-M1-C01_GPT13B_megatron_tp8_pp1_mbs1_A100.txt",
    "simai/L7B-D1-C02_Llama7B_deepspeed_zero3_A100.txt",
    "simai/L7B-M1-C04_Llama7B_megatron_tp2_pp1_mbs1_A100.txt",
    "simai/all_reduce.txt",
    "simai/all_to_all.txt",
    "simai/microAllReduce.txt",
    MOE,
)
TWO = "a -1 10 {f} 100 20 {i} 200 30 {w} 300 1\nb -1 11 {f} 101 21 {i} 201 31 {w} 301 2\n"


def sample(name):
    return SAMPLES / (name + ".gz" if name == MOE else name)


def opened(tmp_path, text):
    path = tmp_path / "w.txt"
    path.write_text(text, encoding="utf-8")
    return layers_text.open_(path)


def two(tmp_path, header, f="NONE", i="NONE", w="NONE"):
    return opened(tmp_path, f"{header}\n2\n" + TWO.format(f=f, i=i, w=w))


def listed(trace):
    """Ops as (name, names of what they wait for)."""
    one = trace.ranks[0]
    names = [one.names[code] for code in one.name]
    return [(names[r], [names[d] for d in one.dep_idx[one.dep_ptr[r] : one.dep_ptr[r + 1]]]) for r in range(len(one))]


def order(trace, stream="compute"):
    one = trace.ranks[0]
    return [one.names[one.name[r]] for r in range(len(one)) if one.streams[one.stream[r]] == stream]


def compute_ns(trace, stream="compute"):
    one = trace.ranks[0]
    here = (one.kind == COMPUTE) & (one.stream == one.streams.index(stream))
    return int(np.rint(one.duration_us[here] * 1e3).sum())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not in the checkout")
@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_another_parser_found(name):
    assert layers_text.open_(SHARED / name).counts() == json.loads((SHARED / "TRUTH.json").read_text())[name]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not in the checkout")
@pytest.mark.parametrize("name", FILES)
def test_samples_are_those_files(name):
    data = sample(name).read_bytes()
    assert (gzip.decompress(data) if name == MOE else data) == (SHARED / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_every_sample_is_known_and_makes_a_trace(name):
    path = sample(name)
    assert layers_text.sniff(head(path), path)
    file = layers_text.open_(path)
    trace = file.trace(ranks=None if "all_gpus" in file.header else 16)
    one = trace.ranks[0]
    assert trace.format == file.format == file.counts()["format"]
    assert trace.world_size == file.header.get("all_gpus", 16)
    assert set(one.kernels) <= set(KERNELS)
    assert (one.dep_idx < np.repeat(np.arange(len(one)), np.diff(one.dep_ptr))).all()
    assert (one.bytes_B[one.kind == COLLECTIVE] > 0).all()


def test_the_pass_of_a_stage_of_9216_ranks():
    """Compute time is that of the file, and groups are laid out as tensor, expert, data, pipeline."""
    file = layers_text.open_(sample(MOE))
    trace = file.trace()
    assert compute_ns(trace) == 2235901806 + 1914495229 + 392398442
    assert compute_ns(trace, "update") == file.counts()["update_sum"] == 178900
    groups = {group.name: group for group in trace.communicators}
    assert groups["tp"].members == (0, 1)
    assert groups["ep"].members == tuple(range(0, 32, 2))
    assert groups["dp_ep"].members == tuple(range(0, 768, 32))
    assert groups["dp"].members == tuple(range(0, 768, 2))
    assert all(group.size == len(group.members) for group in groups.values())
    one = trace.ranks[0]
    met = one.kind == COLLECTIVE
    moved = {}
    for group, collective, size_B in zip(one.group[met], one.collective[met], one.bytes_B[met], strict=True):
        key = trace.communicators[group].name, one.collectives[collective]
        moved[key] = moved.get(key, 0) + int(size_B)
    # sizes are whole arrays already: what the file says, to the byte
    assert moved[("ep", "all_to_all")] == 2 * 38654705664
    assert moved[("tp", "all_gather")] == 49828331520 + 48620371968
    assert moved[("dp_ep", "all_gather")] == 19327352832
    assert moved[("dp", "reduce_scatter")] == 5615517696
    assert sum(moved.values()) == file.counts()["total_comm_bytes"]
    said = "\n".join(trace.notes)
    assert "(pp - 1) / (vpp ga) = 5.7%" in said and "50331648 bytes" in said
    assert "3689 of 5367 compute times are 1 ns" in said and "216 collectives of 0 bytes" in said


def test_data_parallel_overlaps_the_sums_of_gradients(tmp_path):
    trace = two(tmp_path, "DATA", w="ALLREDUCE").trace(ranks=4)
    assert listed(trace) == [
        ("a forward", []),
        ("b forward", ["a forward"]),
        ("b weight gradient", ["b forward"]),
        ("b weight gradient all_reduce", ["b weight gradient"]),
        ("b update", ["b weight gradient all_reduce"]),
        ("b input gradient", ["b weight gradient"]),
        ("a weight gradient", ["b input gradient"]),
        ("a weight gradient all_reduce", ["a weight gradient"]),
        ("a update", ["a weight gradient all_reduce"]),
    ]
    assert [(group.name, group.members) for group in trace.communicators] == [("dp", (0, 1, 2, 3))]
    assert compute_ns(trace, "update") == 3
    assert "20 ns left out: input gradient of the first layer, which nothing needs" in trace.notes


def test_model_parallel_hides_the_input_gradient_behind_the_weight_gradient(tmp_path):
    trace = two(tmp_path, "MODEL", f="ALLGATHER", i="ALLREDUCE", w="ALLREDUCE").trace(ranks=4)
    assert listed(trace) == [
        ("a forward", []),
        ("a forward all_gather", ["a forward"]),
        ("b forward", ["a forward all_gather"]),
        ("b forward all_gather", ["b forward"]),
        ("b input gradient", ["b forward all_gather"]),
        ("b input gradient all_reduce", ["b input gradient"]),
        ("b weight gradient", ["b input gradient"]),
        ("b update", ["b weight gradient"]),
        ("a input gradient", ["b input gradient all_reduce", "b weight gradient"]),
        ("a weight gradient", ["a input gradient"]),
        ("a update", ["a weight gradient"]),
    ]
    one = trace.ranks[0]
    gathered = one.bytes_B[one.collective == one.collectives.index("all_gather")]
    assert gathered.tolist() == [400, 404], "the file gives what one rank brings"
    assert "2 all-gathers: the file's bytes are one rank's part, the whole is that times the group" in trace.notes
    assert "2 collectives of the weight gradient are left out: the policy has none there" in trace.notes


def test_transformers_wait_for_the_input_gradient_within_their_group(tmp_path):
    trace = two(tmp_path, "HYBRID_TRANSFORMER model_parallel_NPU_group: 4", i="ALLREDUCE", w="ALLREDUCE").trace(ranks=8)
    assert [(group.name, group.members) for group in trace.communicators] == [("tp", (0, 1, 2, 3)), ("dp", (0, 4))]
    got = dict(listed(trace))
    assert got["b weight gradient"] == ["b input gradient all_reduce"]
    assert got["a input gradient"] == ["b weight gradient"]
    assert got["a weight gradient"] == ["a input gradient all_reduce"]
    assert compute_ns(trace) == 10 + 11 + 20 + 21 + 30 + 31


@pytest.mark.parametrize(
    ("policy", "tp", "dp"),
    [("HYBRID_DATA_MODEL", (0, 1, 2), (0, 3, 6, 9)), ("HYBRID_MODEL_DATA", (0, 3, 6, 9), (0, 1, 2))],
)
def test_two_dimensions_of_ranks(tmp_path, policy, tp, dp):
    trace = two(tmp_path, policy, f="ALLREDUCE", w="ALLREDUCE").trace(ranks=12)
    assert {group.name: group.members for group in trace.communicators} == {"tp": tp, "dp": dp}
    assert "the file does not say how ranks divide into model and data: taken as 3 times 4" in trace.notes
    with pytest.raises(InputError, match="13 ranks do not make two dimensions"):
        two(tmp_path, policy, f="ALLREDUCE").trace(ranks=13)


def test_dlrm_exchanges_embeddings_beside_the_bottom_layers(tmp_path):
    layer = "{} -1 10 {} 64 20 {} 64 30 {} 64 0"
    text = "\n".join(
        ["HYBRID_DLRM 1", "3", layer.format("emb", "ALLTOALL", "ALLTOALL", "NONE")]
        + [layer.format(name, "NONE", "NONE", "ALLREDUCE") for name in ("bottom", "top")]
    )
    file = opened(tmp_path, text)
    assert file.header == {"positional": ["1"]}
    got = dict(listed(file.trace(ranks=4)))
    assert got["bottom forward"] == ["emb forward"]
    assert got["emb forward all_to_all"] == ["emb forward"]
    assert got["top forward"] == ["emb forward all_to_all", "bottom forward"]
    assert got["emb input gradient all_to_all"] == ["top input gradient"]
    assert got["bottom weight gradient"] == ["top input gradient"]
    assert "emb input gradient" not in got
    named = opened(tmp_path, text.replace("DLRM 1", "DLRM DLRM_LAST_BOTTOM_LAYER: 1"))
    assert listed(named.trace(ranks=4)) == listed(file.trace(ranks=4))
    with pytest.raises(InputError, match=r"last bottom layer is 3; layers are 0 to 2"):
        opened(tmp_path, text.replace("DLRM 1", "DLRM 3")).trace(ranks=4)


def test_recomputation_runs_from_the_checkpoint_up_to_the_layer_that_asks(tmp_path):
    layer = "{0} -1 10 ALLREDUCE 64 20 NONE 0 30 NONE 0 0\n"
    policy = "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2"
    text = f"{policy} checkpoints: 2 0 2 checkpoint_initiates: 2 1 3\n4\n" + "".join(layer.format(n) for n in "abcd")
    file = opened(tmp_path, text)
    assert file.format == layers_text.ASTRA
    assert file.header["checkpoints"] == [0, 2] and file.header["checkpoint_initiates"] == [1, 3]
    trace = file.trace(ranks=2)
    backward = order(trace)[4:]
    assert backward == [
        "c recomputation",
        "d input gradient", "d weight gradient", "c input gradient", "c weight gradient",
        "a recomputation",
        "b input gradient", "b weight gradient", "a input gradient", "a weight gradient",
    ]  # fmt: skip
    assert dict(listed(trace))["d input gradient"] == ["c recomputation all_reduce"]
    with pytest.raises(InputError, match="no checkpoint at or before layer 1"):
        opened(tmp_path, text.replace("2 0 2", "1 2")).trace(ranks=2)
    with pytest.raises(InputError, match="there is no layer 4; layers are 0 to 3"):
        opened(tmp_path, text.replace("2 0 2", "2 0 4"))


def test_customized_layers_have_policies_of_their_own(tmp_path):
    layer = "{} -1 10 ALLREDUCE 64 20 ALLREDUCE 64 30 ALLREDUCE 64 0 {}\n"
    own = [("a", "MODEL"), ("b", "DATA"), ("c", "HYBRID_TRANSFORMER"), ("d", "MINE")]
    text = "HYBRID_CUSTOMIZED model_parallel_NPU_group: 2\n4\n" + "".join(layer.format(*pair) for pair in own)
    file = opened(tmp_path, text)
    assert [layer.policy for layer in file.layers] == ["MODEL", "DATA", "HYBRID_TRANSFORMER", "MINE"]
    trace = file.trace(ranks=4)
    one = trace.ranks[0]
    met = np.flatnonzero(one.kind == COLLECTIVE)
    groups = {one.names[one.name[r]]: trace.communicators[one.group[r]] for r in met}
    assert groups["a forward all_reduce"].members == (0, 1, 2, 3)
    assert groups["c forward all_reduce"].members == (0, 1) and groups["c forward all_reduce"].name == "tp 2"
    assert groups["c weight gradient all_reduce"].members == (0, 2)
    assert "b forward all_reduce" not in groups and groups["b weight gradient all_reduce"].members == (0, 1, 2, 3)
    assert "1 layers of the unknown policy MINE communicate over all ranks" in trace.notes


def test_inference_has_no_backward_pass(tmp_path):
    trace = two(tmp_path, "DISTRIBUTED_INFERENCE", f="ALLREDUCE").trace(ranks=2)
    assert order(trace) == ["a forward", "b forward"]
    assert "102 ns left out: compute time of the backward pass, which inference has not" in trace.notes


def test_micro_workloads_run_one_collective_at_a_time(tmp_path):
    trace = layers_text.open_(SAMPLES / "simai" / "all_reduce.txt").trace(ranks=8)
    one = trace.ranks[0]
    met = one.kind == COLLECTIVE
    assert one.bytes_B[met].tolist() == [4096.0 * 2**i for i in range(19)]
    for row in np.flatnonzero(met):
        waits = set(one.dep_idx[one.dep_ptr[row] : one.dep_ptr[row + 1]].tolist())
        assert waits and max(waits) < row
    after = np.repeat(np.arange(len(one)), np.diff(one.dep_ptr))
    assert all(any(one.dep_idx[after == row + 2] == row) for row in np.flatnonzero(met)[:-1])


def test_an_all_reduce_and_all_to_all_is_two_collectives(tmp_path):
    trace = two(tmp_path, "MODEL", f="ALLREDUCEALLTOALL").trace(ranks=2)
    got = dict(listed(trace))
    assert got["a forward all_to_all"] == ["a forward all_reduce"] and got["b forward"] == ["a forward all_to_all"]


def test_words_nobody_knows_do_nothing_and_are_counted(tmp_path):
    trace = two(tmp_path, "MODEL", f="BROADCAST").trace(ranks=2)
    assert "2 collectives of the unknown kind BROADCAST do nothing, as in the simulators" in trace.notes
    assert (trace.ranks[0].kind == COMPUTE).all()


def test_a_policy_nobody_knows_runs_like_a_transformer(tmp_path):
    file = two(tmp_path, "HYBRID_SOMETHING", f="ALLREDUCE")
    assert layers_text.sniff(b"HYBRID_SOMETHING\n2\n" + TWO.format(f="NONE", i="NONE", w="NONE").encode(), file.path)
    trace = file.trace(ranks=4)
    assert trace.notes[0] == "policy HYBRID_SOMETHING is not known: run as HYBRID_TRANSFORMER runs, over all ranks"
    assert trace.communicators[0].members == (0, 1, 2, 3)


def test_groups_named_after_a_collective(tmp_path):
    header = "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 ep: 2 pp: 2 vpp: 1 ga: 4 all_gpus: 16"
    file = two(tmp_path, header + " pp_comm: 7", f="ALLTOALL_EP", i="ALLGATHER", w="REDUCESCATTER_DP_EP")
    assert file.format == layers_text.SIMAI and file.header["pp_comm"] == 7
    trace = file.trace()
    groups = {group.name: group.members for group in trace.communicators}
    assert groups == {"ep": (0, 2), "tp": (0, 1), "dp_ep": (0, 4)}
    one = trace.ranks[0]
    assert one.bytes_B[one.collective == one.collectives.index("all_gather")].tolist() == [201, 200]
    more = file.trace(ranks=32)
    assert more.world_size == 32 and "the file is for 16 ranks; 32 are asked for" in more.notes[0]
    assert {group.name: group.members for group in more.communicators}["dp_ep"] == (0, 4, 8, 12)
    with pytest.raises(InputError, match="ep 2 does not divide the 3 ranks of a data-parallel group"):
        file.trace(ranks=12)
    with pytest.raises(InputError, match="17 ranks: model_parallel_NPU_group 2 times pp 2 does not divide them"):
        two(tmp_path, header, w="ALLREDUCE").trace(ranks=17)


def test_the_number_of_ranks_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="does not say how many ranks the job has"):
        two(tmp_path, "DATA", w="ALLREDUCE").trace()
    with pytest.raises(InputError, match="ranks: expected 1 to 1048576, got 0"):
        two(tmp_path, "DATA", w="ALLREDUCE").trace(ranks=0)
    with pytest.raises(InputError, match="model_parallel_NPU_group is missing"):
        two(tmp_path, "HYBRID_TRANSFORMER", w="ALLREDUCE").trace(ranks=4)
    alone = two(tmp_path, "DATA", w="ALLREDUCE").trace(ranks=1)
    assert "2 collectives of groups of one rank are left out" in alone.notes and not alone.communicators


def test_tokens_count_and_line_breaks_do_not(tmp_path):
    text = "HYBRID_TRANSFORMER model_parallel_NPU_group: 2\n2\n" + TWO.format(f="NONE", i="ALLREDUCE", w="NONE")
    want = opened(tmp_path, text).counts()
    assert opened(tmp_path, text.replace("\n", "\r\n").rstrip()).counts() == want
    assert opened(tmp_path, "\ufeff\n" + text.replace(" ", "\t \t")).counts() == want
    assert opened(tmp_path, " ".join(text.split())).counts() == want
    assert opened(tmp_path, text.replace(" 100 20", "\n100\n20")).counts() == want
    assert opened(tmp_path, text.replace("group: 2", "group 2")).counts() == want


def test_a_layer_whose_name_is_a_number(tmp_path):
    file = opened(tmp_path, "DATA\n1\n7 -1 1 NONE 0 2 NONE 0 3 NONE 0 4\n")
    assert file.layers[0].name == "7" and file.header == {}


def test_more_or_fewer_layers_than_announced(tmp_path):
    body = TWO.format(f="NONE", i="NONE", w="NONE")
    more = opened(tmp_path, "DATA\n9\n" + body)
    assert (more.counts()["layers_declared"], more.counts()["layers_present"]) == (9, 2)
    assert more.trace(ranks=2).notes[0] == "line 2 announces 9 layers, 2 follow: those are taken"
    fewer = opened(tmp_path, "DATA\n1\n" + body)
    assert fewer.counts()["tokens_after_layers"] == 12
    assert fewer.trace(ranks=2).notes[0] == "12 tokens after the last of 1 layers are left out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data\n1\n", r":1: expected a policy in capitals, got 'data'"),
        ("DATA\n", r":1: expected the number of layers after the policy"),
        ("DATA\n999999999999\n", r":2: 999999999999 layers are announced and none follows"),
        ("DATA\n0\n", r":2: 0 layers are announced"),
        (
            "DATA\n2\na -1 1 NONE 0 1 NONE 0 1 NONE 0 1\nb -1 1 NONE",
            r":4: layer 2 of 2 \('b'\): fwd bytes: .*nothing more",
        ),
        ("DATA\n1\na -1 1", r":3: layer 1 of 1 \('a'\) is cut short"),
        (
            "DATA\n1\na -1 1.5 NONE 0 1 NONE 0 1 NONE 0 1",
            r":3: layer 1 of 1 \('a'\): fwd compute time in ns: expected a whole number from 0, got '1.5'",
        ),
        ("DATA\n1\na -1 -3 NONE 0 1 NONE 0 1 NONE 0 1", r":3: layer 1 of 1 \('a'\): fwd compute time.*got '-3'"),
        (
            "DATA\n1\na -1 1 NONE 0 1 none 0 1 NONE 0 1",
            r":3: layer 1 of 1 \('a'\): input_grad: expected a collective in capitals, got 'none'",
        ),
        (
            "DATA\n1\na -1 1 NONE 0 1 NONE 0 1 NONE " + "9" * 30 + " 1",
            r":3: layer 1 of 1 \('a'\): weight_grad bytes: expected",
        ),
        ("DATA\n1\na x 1 NONE 0 1 NONE 0 1 NONE 0 1", r":3: layer 1 of 1 \('a'\): expected a reserved number, got 'x'"),
        ("MODEL a: 1 a: 2\n1\nx", r":1: a stands twice"),
        ("MODEL checkpoints: 4 1\n1\nx", r":1: checkpoints: layer 2 of 4: expected a whole number, got nothing more"),
        ("MODEL checkpoints: z\n1\nx", r":1: checkpoints: the number of layers.*got 'z'"),
        ("MODEL pp:\n1\nx", r":1: pp: expected a value, got nothing more"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=r"w\.txt" + message):
        opened(tmp_path, text)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("all_gpus: 99999999999", "all_gpus: expected 1 to 1048576, got 99999999999"),
        ("all_gpus: many", "all_gpus: expected a whole number, got 'many'"),
        ("all_gpus: 8 ga: x", "ga: expected a whole number, got 'x'"),
        ("all_gpus: 8 pp: 0", "pp: expected 1 to 1048576, got 0"),
        ("all_gpus: 8 ep: 3", "ep 3 does not divide the 4 ranks of a data-parallel group"),
    ],
)
def test_headers_that_do_not_fit(tmp_path, header, message):
    policy = f"HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 {header}"
    with pytest.raises(InputError, match=message):
        two(tmp_path, policy, f="ALLTOALL_EP").trace()


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "w.txt"
    path.write_bytes(b"DATA\n1\n\xff\xfe")
    with pytest.raises(InputError, match="byte 7: is not text"):
        layers_text.open_(path)


@pytest.mark.parametrize(
    "start", [b"", b"num_ranks 4\n", b"{}", b"\x7f\x10", b"a,b\n1,2\n", b"DATABASE\nx y\n", b"DATA"]
)
def test_other_files_are_not_taken(start):
    assert not layers_text.sniff(start, Path("x"))


def test_every_kernel_class_is_one():
    assert {kernel for kernel, _ in layers_schedule._KERNELS} <= set(KERNELS)
    got = [
        layers_schedule.kernel_of(name)
        for name in ("embedding_layer", "layernorm", "final_column", "Q1", "attention_row")
    ]
    assert got == ["embedding", "norm", "gemm", "gemm", "attention_prefill"]


def test_nothing_but_input_errors_from_damaged_files(tmp_path):
    """Cut, changed, doubled and swapped tokens: a result or an InputError."""
    generator = random.Random(20261101)
    texts = [sample(name).read_text() for name in FILES if name != MOE]
    texts.append("\n".join(gzip.decompress(sample(MOE).read_bytes()).decode().split("\n")[:12]))
    odd = [
        "-1",
        "0",
        "",
        "9" * 40,
        "NONE",
        "ALLREDUCE_EP",
        "ALLTOALL_DP_EP",
        "x:",
        "\ud7ff",
        "checkpoints:",
        "1e9",
        "2",
    ]
    wrong = 0
    for _ in range(400):
        tokens = generator.choice(texts).replace("\n", " \n ").split(" ")
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(tokens))
            what = generator.randrange(4)
            if what == 0:
                del tokens[at:]
            elif what == 1:
                tokens[at] = generator.choice(odd)
            elif what == 2:
                tokens.insert(at, generator.choice(odd))
            else:
                other = generator.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            tokens = tokens or ["x"]
        try:
            file = opened(tmp_path, " ".join(tokens) + "\n")
            file.counts()
            file.trace(ranks=generator.choice([1, 8, 12]))
        except InputError as error:
            wrong += 1
            assert "w.txt" in str(error)
    assert 50 < wrong < 400
