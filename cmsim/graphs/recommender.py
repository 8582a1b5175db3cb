"""Recommendation models from a config: a dense net, and tables of which a sample looks rows up.

The net is a graph whose second input are the looked-up rows, one a table, summed where a sample has several. Keys as
in the reference code of MLPerf Training (recommendation_v2/torchrec_dlrm): ``num_embeddings_per_feature``,
``embedding_dim``, ``multi_hot_sizes`` (default: one each), ``dense_in_features``, ``dense_arch_layer_sizes``,
``over_arch_layer_sizes``, ``interaction_type`` dot, or dcn with ``dcn_num_layers`` and ``dcn_low_rank_dim``.

Source: Naumov et al., arXiv:1906.00091 (dot: products of every two features); Wang et al., arXiv:2008.13535, section
3 (dcn: x + x0 (U V x + b), of low rank).
"""

from __future__ import annotations

from collections.abc import Mapping

from cmsim.graphs.graph import Graph, Tables
from cmsim.graphs.net import Net
from cmsim.workload.families import Keys


def recommender(keys: Keys, name: str, sizes: Mapping[str, int]) -> Graph | None:
    """One sample through the dense net of a DLRM."""
    del sizes
    rows, width = keys.wholes("num_embeddings_per_feature"), keys.whole("embedding_dim")
    lookups = keys.wholes("multi_hot_sizes") if keys.data.get("multi_hot_sizes") is not None else [1] * len(rows)
    given = keys.whole("dense_in_features")
    bottom, over = keys.wholes("dense_arch_layer_sizes"), keys.wholes("over_arch_layer_sizes")
    kind = keys.data.get("interaction_type", "dot")
    if kind not in ("dot", "dcn"):
        keys.complain("interaction_type", f"got {kind!r}. Allowed: dcn, dot.")
    if len(lookups) != len(rows):
        keys.mismatch("multi_hot_sizes", f"{len(lookups)} sizes for {len(rows)} tables")
    if bottom and bottom[-1] != width:
        keys.mismatch("dense_arch_layer_sizes", f"ends in {bottom[-1]}; a feature is {width} wide")
    crossed = (keys.whole("dcn_num_layers"), keys.whole("dcn_low_rank_dim")) if kind == "dcn" else (0, 0)
    if keys.problems:
        return None
    net, features = Net(name), len(rows) + 1
    dense = net.given("dense features", (1, given))
    pooled = net.given("looked-up rows", (1, features - 1, width))
    bottom_out = _layers(net, "bottom", dense, given, bottom, last=True)
    x = net.op("Concat", "features", [bottom_out, pooled], (1, features, width))
    wide = features * width
    if kind == "dcn":
        x = _crossed(net, net.op("Flatten", "flat", [x], (1, wide)), wide, *crossed)
    else:
        pairs = features * (features - 1) // 2
        dots = net.op("MatMul", "dots", [x, x], (1, features, features))
        lower = net.op("Slice", "pairs", [dots], (1, pairs))
        wide = pairs + width
        x = net.op("Concat", "pairs and dense", [lower, bottom_out], (1, wide))
    x = _layers(net, "over", x, wide, over, last=False)
    net.op("Sigmoid", "click", [x], (1, over[-1]))
    net.build.facts.update(family=keys.family)
    tables = Tables(tuple(rows), tuple(lookups), width)
    return net.build.graph(inputs=[dense, pooled], outputs=[x], tables=tables)


def _layers(net: Net, name: str, x: int, held: int, sizes: list[int], *, last: bool) -> int:
    """Products with biases, each behind an activation function but the last where it has none."""
    for number, wide in enumerate(sizes):
        x = net.op("Gemm", f"{name} {number}", [x, net.weight(held, wide), net.weight(wide)], (1, wide))
        if last or number < len(sizes) - 1:
            x = net.op("Relu", f"{name} {number} relu", [x], (1, wide))
        held = wide
    return x


def _crossed(net: Net, first: int, wide: int, layers: int, rank: int) -> int:
    """Cross layers of low rank."""
    x = first
    for number in range(layers):
        y = net.op("Gemm", f"cross {number} in", [x, net.weight(wide, rank)], (1, rank))
        y = net.op("Gemm", f"cross {number} out", [y, net.weight(rank, wide), net.weight(wide)], (1, wide))
        y = net.op("Mul", f"cross {number} product", [y, first], (1, wide))
        x = net.op("Add", f"cross {number} sum", [y, x], (1, wide))
    return x
