"""Windows of attention: fewer tokens read, kept and multiplied in the layers that have them, in prefill and decode."""

from __future__ import annotations

import dataclasses

import pytest

from cmsim import compute
from cmsim.kinds.parts import PrecisionSpec
from cmsim.workload.generate import layers
from cmsim.workload.generate.formats import formats
from cmsim.workload.model import ModelSpec, load_model

FORM = formats(PrecisionSpec())


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return load_model("gpt-oss-20b")


def _core(kernels: list[layers.Kernel]) -> layers.Kernel:
    return next(one for one in kernels if one.name == "attention")


def test_layers_with_windows_are_spread_and_as_many_as_the_file_has(model: ModelSpec):
    narrow = [model.narrow(layer) for layer in range(model.layers)]
    assert sum(narrow) == model.window_layers
    assert narrow[:4] == [True, False, True, False]
    assert not any(dataclasses.replace(model, window=0).narrow(layer) for layer in range(model.layers))


def test_a_decode_reads_the_window(model: ModelSpec):
    wide, narrow = (_core(layers.core_decode(model, 4.0, 1.0, 4096, 1, FORM, narrow=one)) for one in (False, True))
    short = _core(layers.core_decode(model, 4.0, 1.0, model.window, 1, FORM))
    assert narrow.flops == short.flops < wide.flops / 30
    assert narrow.bytes_B == short.bytes_B
    assert dict(narrow.shape.numbers)["window_size"] == model.window
    assert dict(wide.shape.numbers)["window_size"] == 0
    # a context that no window cuts is the same kernel
    assert _core(layers.core_decode(model, 4.0, 1.0, 100, 1, FORM, narrow=True)) == _core(
        layers.core_decode(model, 4.0, 1.0, 100, 1, FORM)
    )


def test_a_prompt_sees_its_window():
    sizes = {"heads": 1, "kv_heads": 1, "d_qk": 1, "d_v": 1, "element_bytes": 2.0}
    whole = compute.attention_prefill(8, 8, **sizes)
    assert compute.attention_prefill(8, 8, **sizes, window=8) == whole
    # two that grow to 2 tokens, then six of 2 each
    assert compute.attention_prefill(8, 8, **sizes, window=2).flops == 2.0 * (2.0 + 6 * 2) * 2
    # behind four of the cache all of eight see the whole window, and no more than ten keys are read
    later = compute.attention_prefill(8, 12, **sizes, window=2)
    assert later.flops == 2.0 * 16 * 2
    assert later.bytes_B == (8 + 10) * 2.0 * 2


def test_chunks_do_not_slide():
    model = load_model("llama-4-scout")
    assert model.chunked
    one = _core(layers.core_prefill(model, 1.0, model.window, model.window, 1, FORM, narrow=True))
    four = _core(layers.core_prefill(model, 1.0, 4 * model.window, 4 * model.window, 1, FORM, narrow=True))
    assert four.flops == 4 * one.flops
    assert model.within(2.5 * model.window) == model.window / 2
    assert model.within(2.75 * model.window) == 0.75 * model.window


def test_a_cache_keeps_the_window(model: ModelSpec):
    assert model.cached_tokens(100) == 100
    assert model.cached_tokens(4096) == (4096 + model.window) / 2
