"""Recommendation models: what their tables and nets hold, and what a step of them sends and reads, by closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cmsim import api
from cmsim.errors import InfeasibleError, InputError
from cmsim.graphs.graph import Tables
from cmsim.graphs.load import load_graph, parameters_of
from cmsim.graphs.work import graph_info
from cmsim.scenario import load_scenario
from cmsim.workload.generate import graph as generate
from cmsim.workload.generate.tables import shares

NAME, BATCH = "dlrm-dcnv2", 65536
#: products of the net: bottom, three cross layers of rank 512 over 27 features of 128, over
WEIGHTS = 13 * 512 + 512 * 256 + 256 * 128 + 6 * 3456 * 512 + 3456 * 1024 + 1024**2 + 1024 * 512 + 512 * 256 + 256
DOT = {
    "model_type": "dlrm",
    "num_embeddings_per_feature": [1000, 10, 500],
    "embedding_dim": 16,
    "dense_in_features": 4,
    "dense_arch_layer_sizes": [32, 16],
    "over_arch_layer_sizes": [64, 1],
}


def programs(model=NAME, ranks=8, batch=BATCH, **changes):
    system = {"system": "hgx_h100", "domains": -(-ranks // 8)}
    workload = {"kind": "training", "model": model, "global_batch": batch, "micro_batch": batch // ranks}
    workload |= {"recompute": "none", "zero_stage": 0, "ranks": ranks, **changes}
    (run,) = load_scenario({"systems": [system], "workload": workload}).runs
    return generate.training(run.spec, api.system(run))


def bytes_of(made, name):
    names = np.array(made.ops.names)[made.ops.name_id]
    return made.ops.bytes_B[names == name].tolist()


def test_published_sizes():
    """MLPerf Training, recommendation_v2/torchrec_dlrm: 204,184,588 rows of 128 columns; of the net weights and biases
    of seven layers and three cross layers."""
    assert parameters_of(NAME) == 204_184_588 * 128 + WEIGHTS + 512 + 256 + 128 + 3 * 3456 + 1024 + 1024 + 512 + 256 + 1
    info = graph_info(load_graph(NAME))
    assert info["matrix_flops"] == 2 * WEIGHTS
    assert not info["unknown_ops"]
    assert info["trainable_parameters"] == info["parameters"] == parameters_of(NAME)


def test_a_step_is_its_closed_forms():
    """Every weight three times two FLOPs but the first layer's two; rows and sums of 26 tables of 128 columns."""
    made = programs()
    assert made.facts.model_flops_per_sample == 6 * WEIGHTS - 2 * 13 * 512
    products = made.ops.flops[np.array([*made.ops.precisions, ""])[made.ops.precision] == "bf16"].sum()
    assert products * 8 == pytest.approx(BATCH * made.facts.model_flops_per_sample)
    one = shares(load_graph(NAME).tables, 8)
    assert one.read >= 214 * 128 / 8 and one.sent >= 26 * 128 / 8
    assert bytes_of(made, "exchange indices") == [BATCH * 214 * 8 / 8]
    assert bytes_of(made, "exchange rows") == bytes_of(made, "exchange gradients of rows") == [BATCH * one.sent * 2]
    assert bytes_of(made, "look-up") == [BATCH * (4 * one.read + 2 * one.sums)]
    assert bytes_of(made, "update of rows") == [BATCH * (8 * one.read + 8 * one.looked_up + 2 * one.sums)]
    assert made.footprint_B["tables"] == [4 * (one.elements + one.rows)]


@pytest.mark.parametrize("ranks", [1, 8, 64, 128])
def test_all_parts_of_tables_stand_somewhere_and_none_is_twice(ranks):
    """No rank looks up more than a fifth above the mean, or one part of four columns."""
    tables = load_graph(NAME).tables
    one = shares(tables, ranks)
    assert 1 <= one.read * ranks / (214 * 128) <= max(1.2, 100 * 4 * ranks / (214 * 128))
    assert one.elements * ranks >= tables.parameters
    if ranks == 1:
        assert (one.read, one.sums, one.looked_up) == (214 * 128, 26 * 128, 214)
        assert (one.elements, one.rows) == (tables.parameters, sum(tables.rows))


def test_the_net_goes_on_while_rows_are_sent():
    """Only the first kernel that reads looked-up rows waits for them; gradients leave before the bottom is passed."""
    made = programs()
    names = np.array(made.ops.names)[made.ops.name_id]
    sent, features, bottom = (
        int(np.flatnonzero(names == name)[0]) for name in ("exchange rows", "features", "bottom 0")
    )
    needs = {
        row: made.ops.dep_idx[made.ops.dep_ptr[row] : made.ops.dep_ptr[row + 1]].tolist() for row in (features, bottom)
    }
    assert sent in needs[features] and sent not in needs[bottom]
    assert np.flatnonzero(names == "exchange gradients of rows")[0] < np.flatnonzero(names == "bottom 0 wgrad")[0]


def test_several_micro_batches_look_up_for_each():
    made, one = programs(batch=4 * 8 * 64, micro_batch=64), programs(batch=8 * 64, micro_batch=64)
    assert bytes_of(made, "look-up") == 4 * bytes_of(one, "look-up")
    assert bytes_of(made, "update of rows") == 4 * bytes_of(one, "update of rows")
    assert len(bytes_of(made, "reduce gradients")) == len(bytes_of(one, "reduce gradients"))


def small(tmp_path, **changes):
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**DOT, **changes}))
    return str(path)


def test_products_of_every_two_features(tmp_path):
    """Four features: six pairs, beside the dense one."""
    made = programs(small(tmp_path), ranks=1, batch=8)
    weights = 4 * 32 + 32 * 16 + (6 + 16) * 64 + 64
    assert made.facts.model_flops_per_sample == 6 * weights - 2 * 4 * 32 + 6 * 4 * 4 * 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interaction_type": "cat"}, "interaction_type: got 'cat'. Allowed: dcn, dot."),
        ({"multi_hot_sizes": [1]}, "multi_hot_sizes: 1 sizes for 3 tables"),
        ({"dense_arch_layer_sizes": [8]}, "dense_arch_layer_sizes: ends in 8; a feature is 16 wide"),
        ({"interaction_type": "dcn"}, "the key 'dcn_num_layers' is required"),
    ],
)
def test_configs_that_are_wrong_are_told(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        load_graph(small(tmp_path, **changes))
    assert message in str(error.value)


def test_what_cannot_be_is_told(tmp_path):
    assert shares(Tables((10, 10), (1, 1), 8), 4).read == 4
    with pytest.raises(InfeasibleError, match=r"parallel.dp: got 8 ranks; tables go to at most 4"):
        shares(Tables((10, 10), (1, 1), 8), 8)
    with pytest.raises(InfeasibleError, match="recompute: got full"):
        programs(recompute="full")
    scenario = {"systems": ["hgx_h100"], "workload": {"kind": "encoder", "model": NAME, "batch_per_accelerator": 8}}
    with pytest.raises(InfeasibleError, match="looks rows up in tables: its kind is training"):
        assert api.run(scenario)[0].metrics
