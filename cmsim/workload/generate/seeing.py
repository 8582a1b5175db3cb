"""The vision tower of a multimodal model in a training step, on the ranks that hold the model's first layers.

Every rank of them holds the tower whole and sees its share of a micro-batch's images: context ranks each their part,
tensor ranks a share of that, whose tokens they then gather. Gradients are summed over all of them, and updated like
others. Tokens of images stand among those of the text, which `sequence_length` counts.

Left out: images of unlike sizes, which wait for the largest, and resizing and cutting on the host.
"""

from __future__ import annotations

from cmsim import compute
from cmsim.errors import InfeasibleError, Problem
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate import layers
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.vision import VisionTower
from cmsim.workload.whole import busiest

#: how names of its kernels begin
_NAME = "vision"


def check(spec: TrainingSpec, model: ModelSpec) -> None:
    """Raises InfeasibleError for images that the model does not see, or that its text has no room for."""
    if not spec.images_per_sample:
        if spec.image_size:
            raise InfeasibleError(Problem("goes with `images_per_sample`, which is 0", key="image_size"))
        return
    tower, side = model.tower, image_size(spec, model)
    if tower is None:
        said = f"got {spec.images_per_sample}; {model.name} has no vision tower that is read. Allowed: 0."
        raise InfeasibleError(Problem(said, key="images_per_sample"))
    if spec.lora is not None:
        raise InfeasibleError(Problem("got images; beside adapters a tower is not modelled", key="images_per_sample"))
    if not side:
        raise InfeasibleError(Problem("the key is required: the tower has no size of its own", key="image_size"))
    step = tower.patch * tower.merge
    if side % step:
        near = max(side // step, 1) * step
        why = f"patches of {tower.patch}, {tower.merge} a token a side"
        said = f"got {side}, which is no multiple of {step} pixels ({why})."
        raise InfeasibleError(Problem(f"{said} Nearest: {near}, {near + step}.", key="image_size"))
    if tower.image and side != tower.image:
        said = f"got {side}; the tower has learned positions of {tower.image} pixels a side. Allowed: {tower.image}."
        raise InfeasibleError(Problem(said, key="image_size"))
    if spec.images_per_sample * tower.tokens(side) > spec.sequence_length:
        most = spec.sequence_length // tower.tokens(side)
        said = f"got {spec.images_per_sample} of {tower.tokens(side)} tokens; a sequence holds at most {most}"
        raise InfeasibleError(Problem(said, key="images_per_sample"))


def image_size(spec: TrainingSpec, model: ModelSpec) -> int:
    """Pixels of a side. [1]"""
    return spec.image_size or (model.tower.image if model.tower is not None else 0)


def parameters(spec: TrainingSpec, model: ModelSpec) -> int:
    """Of the tower, where the step has images. [1]"""
    return model.tower.parameters if model.tower is not None and spec.images_per_sample else 0


def flops_per_token(spec: TrainingSpec, model: ModelSpec) -> float:
    """Forward FLOPs of a sample's images, over the sample's tokens. [FLOP]"""
    if model.tower is None or not spec.images_per_sample:
        return 0.0
    return spec.images_per_sample * model.tower.forward_flops(image_size(spec, model)) / spec.sequence_length


def images_on(spec: TrainingSpec, layout: Layout) -> float:
    """Images of a micro-batch that the busiest rank sees. [1]"""
    return busiest(busiest(spec.micro_batch * spec.images_per_sample, layout.cp), layout.tp)


def kept_B(spec: TrainingSpec, model: ModelSpec, layout: Layout) -> float:
    """What a micro-batch leaves for its backward pass, as of a dense layer; inputs of layers alone where all of a layer
    is computed again. [B]"""
    tower = model.tower
    if tower is None or not spec.images_per_sample:
        return 0.0
    rows = images_on(spec, layout) * (tower.patches(image_size(spec, model)) + tower.extra)
    fold = 2 if tower.gated else 1
    # the stream and what norms make of it, twice; queries, keys, values, results; before and after the activation
    wide = 4 * tower.hidden + 4 * tower.hidden + (fold + 1) * tower.ffn
    each = tower.hidden if spec.recompute == "full" else wide
    return 2.0 * rows * tower.layers * each


def pieces(spec: TrainingSpec, model: ModelSpec, layout: Layout, form: layers.Formats) -> list[Piece]:
    """The images of a micro-batch, up to tokens of the text."""
    tower = model.tower
    if tower is None or not spec.images_per_sample:
        return []
    side, images = image_size(spec, model), images_on(spec, layout)
    out = [Piece([_product(f"{_NAME} patches", images * tower.patches(side), tower.hidden, tower.patch_inputs)])]
    for count, seen in tower.seen(side):
        # alike layers are one piece again and again
        out += [Piece(_layer(tower, images, side, seen, form))] * count
    tokens = images * tower.tokens(side)
    kernels = []
    for number, (rows, columns) in enumerate(tower.projector):
        kernels.append(_product(f"{_NAME} projector {number}", tokens, columns, rows))
    gathered = None
    if layout.tp > 1:
        size_B = layout.tp * tokens * model.hidden * form.stream_B
        gathered = Comm("gather image tokens", "all_gather", size_B, "tp")
    return [*out, Piece(kernels, gathered)]


def _layer(tower: VisionTower, images: float, side: int, seen: int, form: layers.Formats) -> list[Kernel]:
    """One layer over the patches of all images; its products stay in 16 bits."""
    each = tower.patches(side) + tower.extra
    rows, hidden, fold = images * each, tower.hidden, 2 if tower.gated else 1
    norm = compute.norm(rows, hidden, element_bytes=form.stream_B, residual=True)
    core = compute.attention_prefill(
        rows,
        seen,
        heads=tower.heads,
        kv_heads=tower.heads * rows / seen,
        d_qk=hidden // tower.heads,
        d_v=hidden // tower.heads,
        element_bytes=form.stream_B,
        causal=False,
    )
    act = compute.activation(rows, tower.ffn, element_bytes=form.stream_B, gated=tower.gated)
    return [
        _kernel("norm 1", "norm", "", norm),
        _product(f"{_NAME} q, k, v", rows, 3 * hidden, hidden),
        _kernel("attention", "attention_prefill", "bf16", core),
        _product(f"{_NAME} attention out", rows, hidden, hidden),
        _kernel("norm 2", "norm", "", norm),
        _product(f"{_NAME} ffn up", rows, fold * tower.ffn, hidden),
        _kernel("ffn activation", "activation", "", act),
        _product(f"{_NAME} ffn down", rows, hidden, tower.ffn),
    ]


def _product(name: str, m: float, n: float, k: float) -> Kernel:
    work = compute.gemm(m, n, k, in_bytes=2.0, out_bytes=2.0)
    return Kernel(name, "gemm", "bf16", float(work.flops), float(work.bytes_B), compute.gemm_shape(m, n, k, "bf16"))


def _kernel(name: str, kernel: str, precision: str, work: compute.Work) -> Kernel:
    return Kernel(f"{_NAME} {name}", kernel, precision, float(work.flops), float(work.bytes_B))
