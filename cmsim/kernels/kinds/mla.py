"""Tables of latent attention: prefill with expanded heads (context) and absorbed decode (generation)."""

from __future__ import annotations

from collections.abc import Mapping

from cmsim.arrays import Floats
from cmsim.compute.attention import mla_decode
from cmsim.compute.work import Work
from cmsim.kernels.attention import DECODE_SHARES, DECODE_WIDTH, PREFILL_SHARES, PREFILL_WIDTH, Parts
from cmsim.kernels.families import sizes_of
from cmsim.kernels.kinds.attention import (
    PRECISION,
    WIDTH_B,
    before_only,
    causal_pairs,
    core,
    decodes,
    formats,
    known_format,
    new_only,
    precision,
    whole,
)
from cmsim.kernels.kinds.kind import KernelKind, KernelRows, Names, joined, scaled
from cmsim.kernels.machine import Machine
from cmsim.kernels.mla import (
    MLA_DECODE_STARTS,
    MLA_PREFILL_DEFAULTS,
    Latent,
    mla_decode_parts,
    mla_prefill_parts,
)


def _latent() -> Latent:
    """Of all measured rows; tables do not name them."""
    return Latent(*sizes_of("mla_context").values())


def _variants(rows: KernelRows) -> Names:
    of, cached = formats(rows.texts["mla_dtype"]), formats(rows.texts["kv_cache_dtype"])
    return joined(rows, [of, cached, rows.texts["kernel_source"]])


def mla_context_parts(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Parts:
    """What the time of each row is made of. The cache's format costs only its writing, which is in the constants."""
    of = variant.split("/")[0]
    return mla_prefill_parts(
        c,
        machine,
        sequences=rows["batch_size"],
        tokens=rows["isl"],
        heads=rows["num_heads"],
        prefix=rows["step"],
        latent=_latent(),
        precision=PRECISION[of],
        in_B=WIDTH_B[of],
    )


def mla_generation_parts(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Parts:
    """What the time of each row is made of. Products are in the cache's format where the device has it."""
    of, cached = variant.split("/")[:2]
    return mla_decode_parts(
        c,
        machine,
        sequences=rows["batch_size"],
        context=rows["isl"] + rows["step"],
        heads=rows["num_heads"],
        latent=_latent(),
        precision=generation_precision(variant, machine),
        in_B=WIDTH_B[of],
        kv_B=WIDTH_B[cached],
        queries=rows["isl"],
    )


def generation_precision(variant: str, machine: Machine) -> str:
    """Of the products: that of the cache where the device has it."""
    of, cached = variant.split("/")[:2]
    return PRECISION[cached] if PRECISION[cached] in machine.peak_FLOPps else PRECISION[of]


def context_work(rows: KernelRows, variant: str) -> Work:
    """Of the expanded core."""
    new, context, heads = rows["isl"], rows["isl"] + rows["step"], rows["num_heads"]
    pairs, width = causal_pairs(new, rows["step"], context), sum(_latent()[1:])
    bytes_B = (new + context) * heads * width * WIDTH_B[variant.split("/")[0]]
    return Work(2.0 * pairs * heads * width, bytes_B) * rows["batch_size"]


def generation_work(rows: KernelRows, variant: str) -> Work:
    """Of an absorbed step."""
    of, cached = variant.split("/")[:2]
    return mla_decode(
        rows["isl"],
        rows["isl"] + rows["step"],
        heads=rows["num_heads"],
        kv_lora_rank=int(_latent().rank),
        rope_dim=int(_latent().rope),
        element_bytes=WIDTH_B[of],
        kv_bytes=WIDTH_B[cached],
        sequences=rows["batch_size"],
    )


def _axes(rows: KernelRows) -> dict[str, Floats]:
    return {"context": rows["isl"] + rows["step"], "sequences": rows["batch_size"], "heads": rows["num_heads"]}


def _generation_axes(rows: KernelRows) -> dict[str, Floats]:
    return {**_axes(rows), "queries": rows["isl"]}


_MOVES = {"sequences": scaled("batch_size"), "heads": scaled("num_heads")}


_NUMBERS = ("num_heads", "batch_size", "isl", "step")
_RULES = (known_format("mla_dtype"), known_format("kv_cache_dtype"))

CONTEXT = KernelKind(
    name="mla_context",
    numbers=_NUMBERS,
    texts=("mla_dtype", "kv_cache_dtype"),
    zero=("step",),
    optional={"kernel_source": ""},
    variants=_variants,
    precision=precision,
    parts=mla_context_parts,
    time_us=whole(mla_context_parts),
    op_us=core(mla_context_parts),
    start=lambda _: MLA_PREFILL_DEFAULTS,
    width=PREFILL_WIDTH,
    per_core=("softmax_Gpps",),
    work=context_work,
    shares=PREFILL_SHARES,
    axes=_axes,
    moves={"context": lambda rows, ratio: {name: rows[name] * ratio for name in ("isl", "step")}, **_MOVES},
    terms=((("context", "sequences", "heads"), 1.5),),
    known=(*_NUMBERS, "mla_dtype"),
    is_one=lambda rows: not decodes(rows),
    rules=_RULES,
)
GENERATION = KernelKind(
    name="mla_generation",
    numbers=_NUMBERS,
    texts=("mla_dtype", "kv_cache_dtype"),
    zero=("step",),
    optional={"kernel_source": ""},
    variants=_variants,
    precision=precision,
    parts=mla_generation_parts,
    time_us=whole(mla_generation_parts),
    op_us=core(mla_generation_parts),
    start=lambda _: MLA_DECODE_STARTS,
    width=DECODE_WIDTH,
    computes_in=generation_precision,
    work=generation_work,
    shares=DECODE_SHARES,
    axes=_generation_axes,
    moves={"queries": new_only, "context": before_only, **_MOVES},
    terms=((("context", "sequences", "heads"), 1.0),),
    known=(*_NUMBERS, "mla_dtype"),
    is_one=decodes,
    rules=_RULES,
)
