"""Tables of matrix multiplications: C (m, n) = A (m, k) B (k, n), one call a row."""

from __future__ import annotations

from collections.abc import Mapping

from cmsim.calibration.kernel_kind import Floats, Kind, Names, Rows, joined, spelled_so
from cmsim.compute.kernels import Machine
from cmsim.compute.kernels.gemm import GEMM_DEFAULTS, gemm_kernel_us

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


def _variants(rows: Rows) -> Names:
    names, code = rows.texts["dtype"]
    return joined(rows, [(tuple(map(_format, names)), code), rows.texts["kernel"]])


def _of(variant: str) -> tuple[str, float, float, float]:
    return FORMATS[variant.partition("/")[0]]


def _time_us(rows: Rows, machine: Machine, variant: str, c: Mapping[str, float]) -> Floats:
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
    )


KIND = Kind(
    name="gemm",
    numbers=("m", "n", "k"),
    texts=("dtype",),
    optional={"kernel": ""},
    variants=_variants,
    precision=lambda variant: _of(variant)[0],
    time_us=_time_us,
    start=lambda _: GEMM_DEFAULTS,
    axes=lambda rows: {name: rows[name] for name in ("m", "n", "k")},
    terms=((("m", "n", "k"), 1.5),),
    known=("m", "n", "k", "dtype"),
    rules=(
        (
            "dtype",
            f"one of {', '.join(FORMATS)}",
            spelled_so("dtype", lambda name: _format(name) in FORMATS),
        ),
    ),
)
