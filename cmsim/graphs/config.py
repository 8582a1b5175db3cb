"""Graphs of one sample, made from a ``config.json``: encoders, and residual convolution nets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from cmsim.compute import conv_out_size
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.graphs.graph import Graph
from cmsim.graphs.net import Net
from cmsim.graphs.recommender import recommender
from cmsim.workload.families import FAMILIES, Keys, text_tower
from cmsim.workload.model import ModelSpec, parse_model

#: share of a text's words that a training step guesses. Source: Devlin et al., arXiv:1810.04805, section 3.1
_MASKED = 0.15


def encoder_graph(model: ModelSpec, sequence: int, *, trained: bool = False) -> Graph:
    """One pass of one sample through an encoder; ``sequence`` is of texts, an image has its own tokens [1].

    Projections of queries, keys and values are one product; the attention core is fused (scores stay on chip).
    trained: of a text with the heads of its pre-training, which guess masked words, and where there is a pooler whether
    a second sentence follows the first
    """
    if model.patch_inputs:
        sequence = model.max_positions
    elif sequence > model.max_positions:
        raise InputError(
            Problem(f"got {sequence}; {model.name} has {model.max_positions} positions", key="sequence_length")
        )
    net, hidden = Net(model.name), model.hidden
    if model.patch_inputs:
        pixels = net.given("pixels", (1, (sequence - 1) * model.patch_inputs))
        x = net.op(
            "Gemm",
            "patches",
            [_patched(net, pixels, sequence - 1, model), net.weight(model.patch_inputs, hidden), net.weight(hidden)],
            (1, sequence - 1, hidden),
        )
        x = net.op("Concat", "token in front", [net.weight(hidden), x], (1, sequence, hidden))
        x = net.op("Add", "positions", [x, net.weight(sequence, hidden)], (1, sequence, hidden))
    else:
        words = net.given("tokens", (1, sequence), floating=False)
        table = net.weight(model.vocab, hidden)
        x = net.op("Gather", "embedding", [table, words], (1, sequence, hidden))
        tables = net.weight(model.learned_positions, hidden)
        places = net.op("Gather", "positions", [tables, words], (1, sequence, hidden))
        x = net.op("Add", "embedding sum", [x, places], (1, sequence, hidden))
        x = net.norm("embedding norm", x, sequence, hidden)
    for layer in range(model.layers):
        x = _encoder_layer(net, model, x, sequence, f"layer {layer}")
    if model.patch_inputs:
        x = net.norm("final norm", x, sequence, hidden)
    outputs = []
    if trained and not model.patch_inputs:
        outputs = [_masked_words(net, model, x, table, max(round(_MASKED * sequence), 1))]
    first = net.op("Slice", "first token", [x], (1, 1, hidden))
    if model.pooler:
        first = net.op("Tanh", "pooler tanh", [net.linear("pooler", first, 1, hidden, hidden)], (1, 1, hidden))
        if outputs:
            first = net.linear("next sentence", first, 1, hidden, 2)
    if model.classes:
        first = net.linear("classifier", first, 1, hidden, model.classes)
    net.build.facts.update(family=model.family)
    net.build.notes += model.notes
    if model.stored:
        net.build.notes.append(
            f"the config's quantization_config ({model.stored.said}) is left out: formats are the scenario's"
        )
    given = 0  # the first tensor
    return net.build.graph(inputs=[given], outputs=[*outputs, first])


def _masked_words(net: Net, model: ModelSpec, x: int, table: int, masked: int) -> int:
    """The loss of the words that are masked, over the whole vocabulary: the table of words is the output matrix too."""
    hidden, wide = model.hidden, (1, masked, model.vocab)
    x = net.op("Slice", "masked words", [x], (1, masked, hidden))
    x = net.op("Gelu", "guess gelu", [net.linear("guess", x, masked, hidden, hidden)], (1, masked, hidden))
    x = net.norm("guess norm", x, masked, hidden)
    logits = net.op("MatMul", "guess words", [x, table], wide)
    logits = net.op("Add", "guess bias", [logits, net.weight(model.vocab)], wide)
    return net.op("SoftmaxCrossEntropyLoss", "loss", [logits], wide)


def _patched(net: Net, pixels: int, patches: int, model: ModelSpec) -> int:
    return net.op("Reshape", "cut", [pixels], (1, patches, model.patch_inputs))


def _encoder_layer(net: Net, model: ModelSpec, x: int, rows: int, name: str) -> int:
    hidden, wide = model.hidden, (1, rows, model.hidden)
    before = bool(model.patch_inputs)  # where the norms stand: before each half, or after its sum
    y = net.norm(f"{name} norm 1", x, rows, hidden) if before else x
    qkv = net.linear(f"{name} q, k, v", y, rows, hidden, 3 * hidden)
    parts = [net.op("Squeeze", f"{name} {part}", [qkv], wide) for part in "qkv"]
    y = net.op("Attention", f"{name} attention", parts, wide)
    y = net.linear(f"{name} attention out", y, rows, hidden, hidden)
    x = net.op("Add", f"{name} sum 1", [y, x], wide)
    if not before:
        x = net.norm(f"{name} norm 1", x, rows, hidden)
    y = net.norm(f"{name} norm 2", x, rows, hidden) if before else x
    y = net.linear(f"{name} ffn up", y, rows, hidden, model.ffn)
    y = net.op("Gelu", f"{name} gelu", [y], (1, rows, model.ffn))
    y = net.linear(f"{name} ffn down", y, rows, model.ffn, hidden)
    x = net.op("Add", f"{name} sum 2", [y, x], wide)
    return x if before else net.norm(f"{name} norm 2", x, rows, hidden)


def _resnet(keys: Keys, name: str, sizes: Mapping[str, int]) -> Graph | None:
    """Residual convolution net; the stride of a bottleneck stands at its 3 x 3 convolution, as configs say.

    Source: He et al., CVPR 2016, arXiv:1512.03385; keys as in the ResNet of Hugging Face transformers.
    """
    depths, widths = keys.wholes("depths"), keys.wholes("hidden_sizes")
    channels, stem = keys.whole("num_channels", 3), keys.whole("embedding_size")
    keys.must_be("downsample_in_bottleneck", False, "the stride stands at the 3 x 3 convolution")
    kind = keys.data.get("layer_type", "bottleneck")
    if kind not in ("basic", "bottleneck"):
        keys.complain("layer_type", f"got {kind!r}. Allowed: basic, bottleneck.")
    labels = keys.get("id2label")
    classes = keys.whole("num_labels", len(labels) if isinstance(labels, dict) else 0, least=0)
    image = sizes.get("image_size") or keys.data.get("image_size")
    if image is None:
        # published configs leave it to the preprocessor
        why = "in the config, or as dims: {image_size: 224}"
        keys.complain("image_size", f"the key 'image_size' is required for model_type '{keys.family}', {why}")
    elif "image_size" not in sizes:
        image = keys.whole("image_size")
    if len(depths) != len(widths):
        keys.mismatch("depths", f"{len(depths)} depths for {len(widths)} hidden_sizes")
    if keys.problems or not isinstance(image, int):
        return None
    net = Net(name)
    pixels = net.given("pixels", (1, channels, image, image))
    size = conv_out_size(image, 7, stride=2, padding=3)
    x = net.batch_norm("stem norm", net.conv("stem", pixels, channels, stem, 7, size), stem, size)
    size = conv_out_size(size, 3, stride=2, padding=1)
    x, held = net.op("MaxPool", "stem pool", [x], (1, stem, size, size), window=9.0), stem
    down_first = keys.flag("downsample_in_first_stage", False)
    for stage, (depth, wide) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            stride = 2 if block == 0 and (stage or down_first) else 1
            x, size = _block(net, x, held, wide, size, stride, kind == "bottleneck", f"stage {stage} block {block}")
            held = wide
    x = net.op("GlobalAveragePool", "pool", [x], (1, held, 1, 1))
    if classes:
        x = net.linear("classifier", net.op("Flatten", "flat", [x], (1, held)), 1, held, classes)
    net.build.facts.update(family=keys.family)
    return net.build.graph(inputs=[pixels], outputs=[x])


def _block(
    net: Net, x: int, held: int, wide: int, size: int, stride: int, bottleneck: bool, name: str
) -> tuple[int, int]:
    small = conv_out_size(size, 3, stride=stride, padding=1)
    short = x
    if held != wide or stride > 1:
        short = net.conv(f"{name} shortcut", x, held, wide, 1, small)
        short = net.batch_norm(f"{name} shortcut norm", short, wide, small, relu=False)
    if bottleneck:
        inner = wide // 4
        y = net.batch_norm(f"{name} norm 1", net.conv(f"{name} conv 1", x, held, inner, 1, size), inner, size)
        y = net.batch_norm(f"{name} norm 2", net.conv(f"{name} conv 2", y, inner, inner, 3, small), inner, small)
        y = net.conv(f"{name} conv 3", y, inner, wide, 1, small)
        y = net.batch_norm(f"{name} norm 3", y, wide, small, relu=False)
    else:
        y = net.batch_norm(f"{name} norm 1", net.conv(f"{name} conv 1", x, held, wide, 3, small), wide, small)
        y = net.batch_norm(
            f"{name} norm 2", net.conv(f"{name} conv 2", y, wide, wide, 3, small), wide, small, relu=False
        )
    y = net.op("Add", f"{name} sum", [y, short], (1, wide, small, small))
    return net.op("Relu", f"{name} relu", [y], (1, wide, small, small)), small


#: sizes that a family's config may leave open
_OPEN = {"resnet": ("image_size",)}
#: families that are graphs and no transformers
NETS: dict[str, Callable[[Keys, str, Mapping[str, int]], Graph | None]] = {"resnet": _resnet, "dlrm": recommender}


def parse_config(
    text: str, *, name: str, file: str, sizes: Mapping[str, int] | None = None, trained: bool = False
) -> Graph | ModelSpec:
    """A ``config.json``: a graph where it is of images or texts that are read whole, else the sizes of a decoder.

    sizes: ``sequence`` of a text encoder, ``image_size`` of a net whose config does not say it
    trained: of a text encoder with the heads of its pre-training
    """
    given = dict(sizes or {})
    family = family_of(text)
    if family in NETS:
        keys = Keys(json.loads(text), file, text)
        _refuse(given, _OPEN.get(family, ()), file)
        graph = NETS[family](keys, name, given)
        if graph is None or keys.problems:
            raise InputError(keys.problems)
        return graph
    if family is not None and family not in FAMILIES:
        known = sorted((*FAMILIES, *NETS))
        keys = Keys(json.loads(text), file, text)
        hint = did_you_mean(family, known, limit=len(known))
        keys.complain("model_type", f"got {family!r}, a family cmsim does not read. {hint}")
        raise InputError(keys.problems)
    model = parse_model(text, name=name, file=file)
    if not model.encoder:
        return model
    _refuse(given, () if model.patch_inputs else ("sequence",), file)
    if not model.patch_inputs and "sequence" not in given:
        raise InputError(Problem(f"tokens of a text are needed for {name}", key="sequence_length"))
    return encoder_graph(model, given.get("sequence", 0), trained=trained)


def family_of(text: str) -> str | None:
    """The ``model_type`` of a config, of several towers that of the text; None where it has none, or is no config."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    family = text_tower(data, "", text).data.get("model_type") if isinstance(data, dict) else None
    return None if family is None else str(family)


def _refuse(given: Mapping[str, int], allowed: Sequence[str], file: str) -> None:
    for name in given:
        if name not in allowed:
            raise InputError(
                Problem(f"no open dimension '{name}'. Open: {', '.join(allowed) or 'none'}.", file, key="dims")
            )
