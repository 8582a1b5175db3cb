"""Tables of expert blocks: the experts of one layer on one rank, one call a row."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.compute.gemm import grouped_gemm
from cmsim.compute.work import Work
from cmsim.kernels.kinds.kind import KernelKind, KernelRows, Names, joined, scaled, spelled_so
from cmsim.kernels.machine import Machine
from cmsim.kernels.moe import MOE_DEFAULTS, MOE_SHARES, MOE_WIDTH, moe_kernel_us
from cmsim.kernels.routing import Loads, expert_loads

#: by format of the table: precision of the arithmetic, bytes of an element of activations and of weights
FORMATS: dict[str, tuple[str, float, float]] = {
    "bfloat16": ("bf16", 2.0, 2.0),
    "float16": ("fp16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "nvfp4": ("fp4", 0.5625, 0.5625),
    "w4a16_mxfp4": ("bf16", 2.0, 0.53125),
    "w4a8_mxfp4_mxfp8": ("fp8", 1.03125, 0.53125),
    "int4_wo": ("bf16", 2.0, 0.5625),
}
_SAME = {"bf16": "bfloat16", "fp16": "float16", "fp4": "nvfp4"}
_POWER_LAW = re.compile(r"power_law_(\d+(?:\.\d+)?)$")


def _format(name: str) -> str:
    return _SAME.get(name.lower(), name.lower())


def _variants(rows: KernelRows) -> Names:
    names, code = rows.texts["moe_dtype"]
    return joined(rows, [(tuple(map(_format, names)), code), rows.texts["kernel_source"]])


def _of(variant: str) -> tuple[str, float, float]:
    return FORMATS[variant.partition("/")[0]]


def _is_routing(name: str) -> bool:
    return name in ("balanced", "uniform") or _POWER_LAW.match(name) is not None


def _alpha(rows: KernelRows) -> Floats:
    names, code = rows.texts["distribution"]
    known = [_POWER_LAW.match(name) for name in names]
    return np.array([float(one[1]) if one else 0.0 for one in known])[code]


def loads_of(rows: KernelRows) -> Loads:
    """Loads of the rank's experts, of every row."""
    alpha = _alpha(rows)
    own = np.stack([rows[name] for name in ("num_tokens", "topk", "num_experts", "moe_ep_size")] + [alpha], axis=1)
    # a fit asks for the same rows again and again
    return _kept(own.tobytes(), len(own))


@functools.lru_cache(maxsize=64)
def _kept(columns: bytes, count: int) -> Loads:
    own = np.frombuffer(columns).reshape(count, 5)
    return expert_loads(own[:, 0], own[:, 1], own[:, 2], own[:, 3], own[:, 4])


def _time_us(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Floats:
    precision, in_B, weight_B = _of(variant)
    return moe_kernel_us(
        c,
        machine,
        loads=loads_of(rows),
        tokens=rows["num_tokens"],
        hidden=rows["hidden_size"],
        inner=rows["inter_size"] / rows["moe_tp_size"],
        local_experts=rows["num_experts"] / rows["moe_ep_size"],
        gated="nongated" not in variant,
        precision=precision,
        in_B=in_B,
        weight_B=weight_B,
    )


def _work(rows: KernelRows, variant: str) -> Work:
    """Both products; what stands between them need not reach memory."""
    _, in_B, weight_B = _of(variant)
    loads, hidden, inner = loads_of(rows), rows["hidden_size"], rows["inter_size"] / rows["moe_tp_size"]
    wide = inner * (1.0 if "nongated" in variant else 2.0)
    first = grouped_gemm(loads.copies, wide, hidden, loads.active, in_bytes=in_B, weight_bytes=weight_B, out_bytes=0.0)
    second = grouped_gemm(loads.copies, hidden, inner, loads.active, in_bytes=0.0, weight_bytes=weight_B, out_bytes=2.0)
    return first + second


def _axes(rows: KernelRows) -> dict[str, Floats]:
    loads = loads_of(rows)
    return {
        "tokens": rows["num_tokens"],
        "copies": np.maximum(loads.copies, 0.25),
        "active": np.maximum(loads.active, 0.25),
        "inner": rows["inter_size"] / rows["moe_tp_size"],
        "hidden": rows["hidden_size"],
    }


KIND = KernelKind(
    name="moe",
    numbers=("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
    texts=("moe_dtype",),
    optional={"kernel_source": "", "distribution": "balanced"},
    variants=_variants,
    precision=lambda variant: _of(variant)[0],
    time_us=_time_us,
    start=lambda _: MOE_DEFAULTS,
    width=MOE_WIDTH,
    work=_work,
    shares=MOE_SHARES,
    axes=_axes,
    moves={
        "tokens": scaled("num_tokens"),
        "copies": scaled("num_tokens"),
        "inner": scaled("inter_size"),
        "hidden": scaled("hidden_size"),
    },
    terms=((("copies", "active", "inner"), 2.0), (("tokens", "hidden"), 1.5)),
    smooth=0.1,
    small=0.05,
    per_core=("core_GBps", "draw_GBps"),
    known=("num_tokens", "hidden_size", "inter_size", "moe_tp_size", "moe_dtype"),
    rules=(
        ("moe_dtype", f"one of {', '.join(FORMATS)}", spelled_so("moe_dtype", lambda name: _format(name) in FORMATS)),
        ("distribution", "balanced or power_law_<exponent>", spelled_so("distribution", _is_routing)),
        ("topk", "at most num_experts", lambda rows: rows["topk"] <= rows["num_experts"]),
        ("moe_ep_size", "at most num_experts", lambda rows: rows["moe_ep_size"] <= rows["num_experts"]),
    ),
)
