"""Tables of matrix multiplications: C (m, n) = A (m, k) B (k, n), one call a row; ``groups`` of them where given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.compute.gemm import gemm
from cmsim.compute.work import Work
from cmsim.kernels.families import beside
from cmsim.kernels.gemm import GEMM_DEFAULTS, GEMM_SHARES, GEMM_WIDTH, gemm_kernel_us
from cmsim.kernels.kinds.kind import KernelKind, KernelRows, Names, joined, scaled, spelled_so
from cmsim.kernels.machine import Machine

#: by format of the table: precision of the arithmetic, bytes of an element of A, B and C
FORMATS: dict[str, tuple[str, float, float, float]] = {
    "bfloat16": ("bf16", 2.0, 2.0, 2.0),
    "float16": ("fp16", 2.0, 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0, 2.0),
    "fp8_block": ("fp8", 1.0, 1.0, 2.0),
    "int8": ("int8", 1.0, 1.0, 2.0),
    "nvfp4": ("fp4", 0.5625, 0.5625, 2.0),
}
_SAME = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp4": "nvfp4"}


def _format(name: str) -> str:
    return _SAME.get(name.lower(), name.lower())


def _variants(rows: KernelRows) -> Names:
    names, code = rows.texts["dtype"]
    return joined(rows, [(tuple(map(_format, names)), code), rows.texts["kernel"]])


def _of(variant: str) -> tuple[str, float, float, float]:
    return FORMATS[variant.partition("/")[0]]


def _start(variant: str) -> tuple[Mapping[str, float], ...]:
    return tuple({**GEMM_DEFAULTS, **one} for one in beside("gemm", variant))


def _time_us(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Floats:
    precision, in_B, weight_B, out_B = _of(variant)
    return gemm_kernel_us(
        c,
        machine,
        m=rows["m"],
        n=rows["n"],
        k=rows["k"],
        precision=precision,
        in_B=in_B,
        weight_B=weight_B,
        out_B=out_B,
        groups=rows["groups"],
    )


def _work(rows: KernelRows, variant: str) -> Work:
    _, in_B, weight_B, out_B = _of(variant)
    one = gemm(rows["m"], rows["n"], rows["k"], in_bytes=in_B, weight_bytes=weight_B, out_bytes=out_B)
    return one * rows["groups"]


#: constants of what a timed call does beside its product: rounding A, host work, copies of ragged rows
_BESIDE = ("quantise_rate", "host_us", "ragged_us")


def _op_us(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Floats:
    alone = {key: value for key, value in c.items() if key not in _BESIDE}
    if "host_us" in c:
        # what is fixed in such rows is the host's and the rounding's, too: a product by itself starts like any other
        alone["fixed_us"] = GEMM_DEFAULTS["fixed_us"]
    return _time_us(rows, machine, variant, alone)


def _waves(rows: KernelRows, machine: Machine) -> dict[str, Floats]:
    """Waves of the commonest tile, not rounded: what is left of their rounding recurs with these."""
    return {"waves": rows["groups"] * np.ceil(rows["m"] / 128) * np.ceil(rows["n"] / 128) / machine.cores}


KIND = KernelKind(
    name="gemm",
    numbers=("m", "n", "k"),
    texts=("dtype",),
    optional={"kernel": ""},
    defaults={"groups": 1.0},
    variants=_variants,
    precision=lambda variant: _of(variant)[0],
    time_us=_time_us,
    op_us=_op_us,
    start=_start,
    width=GEMM_WIDTH,
    work=_work,
    shares=GEMM_SHARES,
    axes=lambda rows: {name: rows[name] for name in ("m", "n", "k", "groups")},
    moves={**{name: scaled(name) for name in ("m", "n", "k", "groups")}, "waves": scaled("m")},
    machine_axes=_waves,
    terms=((("m", "n", "k"), 1.5), (("waves", "k"), (0.25, 2.5))),
    smooth=0.05,
    small=0.02,
    per_core=("core_GBps", "draw_GBps", "quantise_rate"),
    # what is fixed in rows of several launches is the host's, too
    host=("host_us", "ragged_us", "fixed_us"),
    known=("m", "n", "k", "dtype"),
    rules=(("dtype", f"one of {', '.join(FORMATS)}", spelled_so("dtype", lambda name: _format(name) in FORMATS)),),
)
