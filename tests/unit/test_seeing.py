"""Multimodal models: parameters as published, FLOPs and messages of their images by closed forms, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import api
from cmsim.errors import InfeasibleError
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.model import load_model

QWEN, LLAMA = "qwen2.5-vl-7b", "llama-4-scout-vision"


def training(model=QWEN, **changes):
    workload = {"kind": "training", "model": model, "sequence_length": 4096, "global_batch": 16, "recompute": "none"}
    workload |= {"images_per_sample": 4, "image_size": 448 if model == QWEN else 0, "balance": {"model": "balanced"}}
    (one,) = load_scenario({"systems": ["hgx_h100"], "workload": {**workload, **changes}}).runs
    return generate.programs(one.spec, api.system(one))


def named(made, start, program=0):
    rows = np.arange(made.program_ptr[program], made.program_ptr[program + 1])
    names = np.array(made.ops.names)[made.ops.name_id[rows]]
    return rows[np.char.startswith(names, start)]


@pytest.mark.parametrize(
    ("model", "sees", "whole"),
    [
        # Qwen/Qwen2.5-VL-7B-Instruct and meta-llama/Llama-4-Scout-17B-16E-Instruct: their cards print 8.29 and 109 B
        (QWEN, 676_550_144, 8_292_166_656),
        (LLAMA, 871_932_416, 108_641_793_536),
    ],
)
def test_published_parameters(model, sees, whole):
    spec = load_model(model)
    assert spec.tower.parameters == sees
    assert spec.total_parameters + sees == whole


def test_flops_of_an_image_are_the_closed_form():
    """448 pixels a side: 1,024 patches of 1,280 numbers, 256 tokens; windows of 8 x 8 patches in 28 layers of 32."""
    tower = load_model(QWEN).tower
    n, h, f = 1024, 1280, 3420
    layers = 32 * n * 2 * (4 * h**2 + 3 * h * f)
    cores = 4 * n * h * (4 * n + 28 * 64)
    ends = 2 * n * 3 * 2 * 14**2 * h + 2 * 256 * (5120**2 + 5120 * 3584)
    assert tower.forward_flops(448) == layers + cores + ends
    assert (tower.patches(448), tower.tokens(448)) == (n, 256)
    llama = load_model(LLAMA).tower
    assert (llama.patches(336), llama.tokens(336)) == (576, 144)


@pytest.mark.parametrize("changes", [{}, {"parallel": {"tp": 4}}, {"parallel": {"pp": 2, "tp": 2}}])
def test_a_step_sees_every_image_once(changes):
    """On the ranks of the first stage, forward and twice in backward (attention 2.5 times), whoever shares them."""
    made, text = training(**changes), training(images_per_sample=0, image_size=0, **changes)
    tower, images = load_model(QWEN).tower, 16 * 4
    first = int((made.program == made.program[0]).sum())
    products = named(made, "vision")
    cores = 28 * 64 + 4 * 1024
    core = 4.0 * 1024 * 1280 * cores * images
    matrix = made.ops.precision[products] >= 0
    done = made.ops.flops[products][matrix].sum() * first
    assert done == pytest.approx(3 * images * tower.forward_flops(448) + 0.5 * core, rel=1e-9)
    more = made.facts.model_flops_per_token - text.facts.model_flops_per_token
    assert more * 4096 * 16 == pytest.approx(3 * images * tower.forward_flops(448))
    if changes:
        assert not len(named(text, "vision"))
    last = int(made.program[-1])
    assert last == 0 or not len(named(made, "vision", last))


def test_gradients_of_a_tower_are_summed_over_all_ranks_that_see():
    """The data-parallel group reduces them with the layer beside; tensor ranks, which saw other images, add them up;
    their tokens are gathered, and gradients of them scattered."""
    made = training(parallel={"tp": 2})
    seen = load_model(QWEN).tower.parameters
    at = lambda name: made.ops.bytes_B[named(made, name)].tolist()  # noqa: E731
    assert at("add up gradients of images") == [4 * seen]
    # 16 sequences over 4 ranks: 4 micro-batches of 4 images, two on each of 2 ranks
    assert at("gather image tokens") == [4 * 256 * 3584 * 2] * 8
    plain = training(parallel={"tp": 2}, images_per_sample=0, image_size=0)
    reduced = lambda one: one.ops.bytes_B[named(one, "reduce gradients")].sum()  # noqa: E731
    assert reduced(made) - reduced(plain) == pytest.approx(4 * seen)
    held = {line: of[0] for line, of in made.footprint_B.items()}
    assert held["weights"] - plain.footprint_B["weights"][0] == pytest.approx(2 * seen)
    rows, wide = 2 * 1024, 8 * 1280 + 3 * 3420
    assert held["activations of the vision tower"] == 2 * rows * 32 * wide
    assert not any("vision" in one for one in made.notes) and any("vision" in one for one in plain.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size: the key is required: the tower has no size of its own"),
        (
            {"image_size": 450},
            "image_size: got 450, which is no multiple of 28 pixels (patches of 14, 2 a token a side). ",
        ),
        ({"images_per_sample": 17}, "images_per_sample: got 17 of 256 tokens; a sequence holds at most 16"),
        ({"images_per_sample": 0}, "image_size: goes with `images_per_sample`, which is 0"),
        ({"lora": {"rank": 8}}, "images_per_sample: got images; beside adapters a tower is not modelled"),
        ({"model": LLAMA, "image_size": 448}, "image_size: got 448; the tower has learned positions of 336 pixels"),
        ({"model": "llama-3.1-8b", "image_size": 0}, "images_per_sample: got 4; llama-3.1-8b has no vision tower"),
        (
            {"model": "resnet50", "image_size": 0, "sequence_length": 0},
            "images_per_sample: got 4; only decoders take it",
        ),
    ],
)
def test_images_that_cannot_be_seen_are_told(changes, message):
    with pytest.raises(InfeasibleError) as error:
        training(**changes)
    assert message in str(error.value)
