"""FLOPs, bytes and precision of recorded kernels from the shapes that the profiler wrote beside them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cmsim.traces.ascend.view import DTYPE_B

_MATMUL = re.compile(r"(weight)?(quant)?(batch)?mat_?mul(?!.*(reduce|gather|scatter))", re.IGNORECASE)
_GROUPED = re.compile(r"grouped_?mat_?mul", re.IGNORECASE)
_CONV = re.compile(r"conv2d(backprop(input|filter))?(v\d+|d)?", re.IGNORECASE)
#: longest field taken for a shape, so that a damaged file cannot cost time
_LONGEST = 4096
_PADDED = 32
#: multiplicand of the matrix engine: its precision
_PRECISION = {
    "BF16": "bf16",
    "BFLOAT16": "bf16",
    "FLOAT16": "fp16",
    "FLOAT": "fp32",
    "FLOAT32": "fp32",
    "INT8": "int8",
    "FLOAT8_E4M3FN": "fp8",
    "FLOAT8_E5M2": "fp8",
    "HIFLOAT8": "fp8",
    "FLOAT4_E2M1": "fp4",
}


@dataclass(frozen=True)
class RowWork:
    """flops: 0 where unknown [FLOP]; bytes_B: of all inputs and outputs, 0 where unknown [B]; precision: "" unknown."""

    flops: float = 0.0
    bytes_B: float = 0.0
    precision: str = ""


def shapes(text: str) -> list[tuple[int, ...]] | None:
    """Dimensions of each tensor; an empty piece is a scalar. None where the text is no list of shapes.

    >>> shapes('"151936,1024;;1,4096"'), shapes("N/A")
    ([(151936, 1024), (), (1, 4096)], None)
    """
    text = text.strip().strip('"')
    if len(text) > _LONGEST:
        return None
    out = []
    for piece in text.split(";"):
        try:
            sizes = tuple(int(size) for size in piece.split(",")) if piece.strip() else ()
        except ValueError:
            return None
        if any(not 0 <= size < 2**48 for size in sizes):
            return None
        out.append(sizes)
    return out


def work(type_: str, row: dict[str, str]) -> RowWork:
    """Work of a kernel from its columns: shapes, data types and formats of inputs and outputs, HF32 Eligible.

    FLOPs are those of matrix products and 2-D convolutions, forwards and backwards; of tensors in tiled formats they
    count the padding, which the engine computes too. Bytes are each tensor once.
    """
    inputs, outputs = shapes(row["Input Shapes"]), shapes(row["Output Shapes"])
    if inputs is None or outputs is None:
        return RowWork()
    types_in, types_out = (_list(row[name]) for name in ("Input Data Types", "Output Data Types"))
    if len(types_in) != len(inputs) or len(types_out) != len(outputs):
        return RowWork()
    size_B = 0.0
    for sizes, name in zip((*inputs, *outputs), (*types_in, *types_out), strict=True):
        one_B = DTYPE_B.get(name)
        if one_B is None and sizes:
            size_B = 0.0
            break
        size_B += (one_B or 0.0) * math.prod(sizes)
    formats_in, formats_out = _list(row["Input Formats"]), _list(row["Output Formats"])
    flops, precision = 0.0, ""
    if len(formats_in) == len(inputs) and len(formats_out) == len(outputs):
        flops, engine = _flops(type_, inputs, outputs, formats_in, formats_out)
        if flops and types_in:
            precision = _PRECISION.get(types_in[engine], "")
            if precision == "fp32" and row["HF32 Eligible"].upper() == "YES":
                precision = "tf32"
    return RowWork(flops, size_B, precision)


def _list(text: str) -> list[str]:
    return [piece.strip().upper().removeprefix("DT_") for piece in text.strip().strip('"').split(";")]


def _flops(
    type_: str,
    inputs: list[tuple[int, ...]],
    outputs: list[tuple[int, ...]],
    formats_in: list[str],
    formats_out: list[str],
) -> tuple[float, int]:
    """FLOPs, and which input's type is the engine's."""
    found = _CONV.fullmatch(type_)
    if found and len(inputs) >= 2:
        if found[2] is None:
            return _convolution(outputs[0], formats_out[0], inputs[1]), 0
        # Backwards one input is a vector of sizes: the gradient comes last, the other tensor is what it meets.
        gradient, other = inputs[-1], outputs[0] if found[2].lower() == "filter" else inputs[-2]
        return _convolution(gradient, formats_in[-1], other), len(inputs) - 1
    if _GROUPED.match(type_) and len(inputs) >= 2:
        return _grouped(inputs[0], inputs[1], outputs[0]), 0
    if _MATMUL.match(type_) and len(inputs) >= 2:
        tiled = any("FRACTAL" in name for name in (*formats_in[:2], formats_out[0]))
        return _product(inputs[0], inputs[1], outputs[0], formats_out[0], tiled), 0
    return 0.0, 0


def _convolution(image: tuple[int, ...], layout: str, weights: tuple[int, ...]) -> float:
    """2 x output pixels x elements of the filter: groups and any layout of the filter come out right."""
    height = {"NC1HWC0": 2, "NCHW": 2, "NHWC": 1, "ND": 2, "FORMAT_ND": 2}.get(layout)
    if height is None or len(image) < 4 or not weights:
        return 0.0
    return 2.0 * image[0] * image[height] * image[height + 1] * math.prod(weights)


def _product(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], layout: str, tiled: bool) -> float:
    """2 M N K from the output and the sizes of both sides, whichever of them is transposed."""
    if len(out) < 2 or not left or not right:
        return 0.0
    if "FRACTAL_NZ" in layout and len(out) >= 4:
        m, n = out[-3] * out[-2], out[-4] * out[-1]
    else:
        m, n = out[-2], out[-1]
    if not m or not n:
        return 0.0
    batch = math.prod(out) // (m * n)
    for of_left in (batch, 1):
        for of_right in (batch, 1):
            k, rest = divmod(math.prod(left), of_left * m)
            k_right, rest_right = divmod(math.prod(right), of_right * n)
            if k and ((k == k_right and not rest and not rest_right) or (tiled and abs(k - k_right) < _PADDED)):
                return 2.0 * batch * m * n * min(k, k_right)
    return 0.0


def _grouped(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> float:
    """2 T N K: each row of the left meets the weights of its own group."""
    if len(left) != 2 or len(right) != 3 or len(out) != 2 or left[0] != out[0]:
        return 0.0
    return 2.0 * out[0] * out[1] * left[1] if right[1] * right[2] == left[1] * out[1] else 0.0
