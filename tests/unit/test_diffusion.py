"""Images and video out of noise: sizes of models, FLOPs of steps, ranks that share an image."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import load_system
from cmsim.kinds.diffusion import DiffusionSpec
from cmsim.workload.denoiser import load_denoiser
from cmsim.workload.generate import diffusion
from cmsim.workload.ops import Programs

PICTURE = {"model": "flux.1-dev", "batch_per_accelerator": 1, "steps": 4}
CLIP = {"model": "wan2.1-t2v-14b", "batch_per_accelerator": 1, "steps": 2, "width": 1280, "height": 720, "frames": 81}


def made(count: int = 1, **keys: Any) -> Programs:
    spec = DiffusionSpec(kind="diffusion", **{**PICTURE, **keys})
    return diffusion.programs(spec, load_system("hgx_h100", accelerators=count))


def run(system: str = "hgx_h100", count: int = 1, **keys: Any) -> cmsim.Result:
    work = {"kind": "diffusion", **PICTURE, **keys}
    return cmsim.run({"systems": [{"system": system, "accelerators": count}], "workload": work})[0]


def flops(programs: Programs, name: str = "") -> float:
    names = np.array(programs.ops.names)[programs.ops.name_id]
    return float(programs.ops.flops[(names == name) if name else programs.ops.precision >= 0].sum())


@pytest.mark.parametrize(
    ("name", "parameters"),
    # model cards and papers; refiners, projections and biases are left out
    [
        ("flux.1-dev", 11.9e9),
        ("stable-diffusion-3-medium", 2.03e9),
        ("wan2.1-t2v-14b", 14.3e9),
        ("hunyuanvideo", 12.8e9),
    ],
)
def test_parameters_are_those_of_the_model_cards(name: str, parameters: float):
    assert load_denoiser(name).parameters == pytest.approx(parameters, rel=0.03)


def test_tokens_and_flops_of_a_picture():
    model = load_denoiser("flux.1-dev")
    assert model.tokens(1024, 1024) == 4096
    products, cores = model.flops(4096, 512)
    # huggingface/diffusers counts 59,523 GFLOP of products in a pass (datasets/diffusers/benchmarks)
    assert products == pytest.approx(59.523e12, rel=0.01)
    assert cores == 57 * 4 * 4608**2 * 3072
    programs = made()
    modulations = flops(programs, "modulations")
    assert flops(programs) - modulations == pytest.approx(4 * (products + cores))
    assert programs.least.flops["bf16"] == pytest.approx(4 * (products + cores))


def test_tokens_and_flops_of_a_clip():
    model = load_denoiser("wan2.1-t2v-14b")
    # 21 latent frames of 45 by 80 patches
    assert model.tokens(1280, 720, 81) == 21 * 45 * 80 == 75600
    programs = made(**CLIP)
    assert flops(programs) - flops(programs, "modulations") == pytest.approx(2 * 2 * sum(model.flops(75600, 512)))
    assert load_denoiser("hunyuanvideo").tokens(1280, 720, 129) == 118800


def test_guidance_runs_a_batch_of_two():
    plain, guided = (made(guidance=on) for on in (False, True))
    assert flops(guided) == pytest.approx(2 * flops(plain))
    assert flops(made()) == flops(plain)  # built in
    three = {"model": "stable-diffusion-3-medium"}
    assert flops(made(**three)) == flops(made(**three, guidance=True)) == 2 * flops(made(**three, guidance=False))


def test_metrics():
    short, long = run(), run(steps=8, batch_per_accelerator=2)
    assert long.metrics["image_time_s"] == pytest.approx(4 * short.metrics["image_time_s"], rel=0.05)
    assert long.metrics["denoising_step_time_s"] * 8 == pytest.approx(long.metrics["image_time_s"])
    assert short.metrics["images_per_s"] * short.metrics["image_time_s"] == pytest.approx(1)
    assert short.metrics["energy_per_image_J"] * short.metrics["images_per_J"] == pytest.approx(1)
    assert short.bound["time_s"] < short.metrics["image_time_s"] and short.limiter == "compute"
    assert "T5-XXL" in " ".join(short.warnings)


def test_ranks_share_an_image():
    one, four = made(), made(4, batch_per_accelerator=1 / 4, parallel={"cp": 4})
    assert flops(four, "attention") == pytest.approx(flops(one, "attention") / 4)
    assert flops(four, "image ffn up") == pytest.approx(flops(one, "image ffn up") / 4)
    names = np.array(four.ops.names)[four.ops.name_id]
    # a quarter of 4,608 tokens, 3,072 wide, 2 B each; queries, keys and values
    sizes = set(four.ops.bytes_B[names == "exchange queries, keys, values"])
    assert sizes == {3 * 1152 * 3072 * 2.0}
    assert four.footprint_B["weights"] == one.footprint_B["weights"]
    assert four.footprint_B["activations"][0] == pytest.approx(one.footprint_B["activations"][0] / 4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 1000}, "width: got 1000, which is no multiple of 16 pixels. Nearest: 992, 1008."),
        ({"frames": 5}, "frames: got 5. Allowed: 1."),
        ({**CLIP, "frames": 80}, "frames: got 80. Allowed: 1 and multiples of 4 more."),
        ({"parallel": {"tp": 2}}, "parallel.tp: got 2; images are made data parallel, or by cp"),
        ({"parallel": {"cp": 5}}, "parallel.cp: got 5, which does not divide 24 heads"),
    ],
)
def test_what_cannot_be(keys: dict[str, Any], message: str):
    with pytest.raises(InfeasibleError, match=message.replace(".", r"\.")):
        made(8, **keys)


def test_files_that_are_none(tmp_path):
    for name, data, message in (
        ("llama.json", {"model_type": "llama"}, "no diffusion transformer that cmsim reads"),
        ("half.json", {"_class_name": "FluxTransformer2DModel", "num_layers": 2}, "'num_attention_heads' is required"),
        (
            "video.json",
            {"_class_name": "WanTransformer3DModel", "patch_size": [2, 2, 2]},
            "patches of one latent frame",
        ),
    ):
        (tmp_path / name).write_text(json.dumps(data))
        with pytest.raises(InputError, match=message):
            load_denoiser(tmp_path / name)


def test_the_best_way_to_share_is_found():
    one = run(count=2, batch_per_accelerator=0.5, parallel={"cp": {"best": [1, 2], "of": "image_time_s"}})
    assert one.chosen["parallel.cp"] == 2
