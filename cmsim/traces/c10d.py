"""PyTorch's words for communication and types, as its profiler and its execution traces write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

#: bytes of an element and name of the precision in accelerators' files ("" for none), by lower-case name of the type
_TYPES: dict[str, tuple[int, str]] = {
    "float": (4, "fp32"),
    "double": (8, "fp64"),
    "half": (2, "fp16"),
    "bfloat16": (2, "bf16"),
    "float8_e4m3fn": (1, "fp8"),
    "float8_e5m2": (1, "fp8"),
    "float8_e4m3fnuz": (1, "fp8"),
    "float8_e5m2fnuz": (1, "fp8"),
    "float8_e8m0fnu": (1, ""),
    "float4_e2m1fn_x2": (1, "fp4"),
    "long": (8, ""),
    "long int": (8, ""),
    "int": (4, ""),
    "short": (2, ""),
    "short int": (2, ""),
    "char": (1, "int8"),
    "signed char": (1, "int8"),
    "byte": (1, ""),
    "unsigned char": (1, ""),
    "bool": (1, ""),
    "unsigned short": (2, ""),
    "unsigned int": (4, ""),
    "unsigned long": (8, ""),
    "complexfloat": (8, ""),
    "complexdouble": (16, ""),
}

#: collectives by what is left of their names without ornaments (see `collective`)
_COLLECTIVES = {
    "allreduce": "all_reduce",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "gather": "gather",
    "scatter": "scatter",
    "barrier": "barrier",
    "send": "send",
    "recv": "recv",
}
_ORNAMENTS = re.compile(r"_oop|_sparse|_into_tensor|_tensor|_base|_coalesced|_single|_")
_MESSAGE = re.compile(r"nccl:(send|recv) (\d+)\s*(?:->|<-)\s*(\d+)")


def element(name: str) -> tuple[int, str]:
    """Bytes of an element and its precision ("" where no matrix engine computes in it); (0, "") for no type known.

    >>> element("c10::BFloat16"), element("Long"), element("TensorList")
    ((2, 'bf16'), (8, ''), (0, ''))
    """
    return _TYPES.get(name.lower().removeprefix("c10::"), (0, ""))


def collective(name: str) -> str:
    """The collective (``cmsim.collectives``), or "send", "recv"; "" where the name says none (wait, init, coalesced).

    >>> collective("nccl:_all_gather_base"), collective("all_to_allv"), collective("reduce_scatter_tensor_coalesced")
    ('all_gather', 'all_to_all', 'reduce_scatter')
    >>> collective("nccl:send 0->1"), collective("AllReduce"), collective("wait")
    ('send', 'all_reduce', '')
    """
    bare = _ORNAMENTS.sub("", name.lower().removeprefix("nccl:").split(" ")[0])
    return _COLLECTIVES.get(bare) or _COLLECTIVES.get(bare.removesuffix("v"), "")


def peer(name: str) -> int:
    """The other end, as a place in the group, of an annotation such as ``nccl:send 0->1``; -1 for others.

    >>> peer("nccl:send 0->3"), peer("nccl:recv 1<-0"), peer("nccl:broadcast")
    (3, 0, -1)
    """
    found = _MESSAGE.match(name)
    return int(found[3]) if found else -1


def size_B(collective: str, in_B: float, out_B: float, ranks: int) -> float:
    """Size as nccl-tests counts it, from what one rank puts in and gets out; NaN where neither says it. [B]

    ranks  of the group; 0 where unknown

    >>> size_B("all_gather", 10.0, float("nan"), 4), size_B("reduce_scatter", 40.0, 10.0, 4)
    (40.0, 40.0)
    """
    if collective == "barrier":
        return 0.0
    if collective in ("all_gather", "gather"):
        whole, share = out_B, in_B
    elif collective in ("reduce_scatter", "scatter"):
        whole, share = in_B, out_B
    else:
        return out_B if math.isnan(in_B) else in_B
    # Of gather and scatter only the root holds the whole; the others say 0.
    parts = share * ranks if ranks else math.nan
    return parts if math.isnan(whole) or parts > whole else whole


def matrix_product(
    op: str, dims: Sequence[object], types: Sequence[str], concrete: Sequence[str] = ()
) -> tuple[float, float, str] | None:
    """FLOPs, bytes of operands and result, and precision of an operator from its inputs.

    dims, types, concrete  shape, type and (of numbers and lists of them) value of each input, as the profiler says them

    None for operators that are no product, or whose inputs do not say it. Of a convolution's gradient the FLOPs are
    those of one of the two products (by weight, by input). The result counts in the type of the first factor.

    >>> matrix_product("aten::addmm", [[256], [16, 13], [13, 256]], ["float", "float", "float"])
    (106496.0, 31552.0, 'fp32')
    """
    made = _product(op.removeprefix("aten::"), [_sizes(one) for one in dims], concrete)
    if made is None:
        return None
    first, flops, out = made
    width, precision = element(types[first]) if first < len(types) else (0, "")
    if not width or not flops:
        return None
    read = sum(math.prod(_sizes(one)) * element(kind)[0] for one, kind in zip(dims, types, strict=False) if _sizes(one))
    return float(flops), float(read + out * width), precision


def _product(op: str, dims: Sequence[Sequence[int]], concrete: Sequence[str]) -> tuple[int, int, int] | None:
    """Which input is the first factor, FLOPs, elements of the result."""
    at = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_scaled_mm": 0, "_int_mm": 0, "linear": 0}.get(op)
    if at is not None and len(dims) >= at + 2:
        left, right = dims[at], dims[at + 1]
        if len(left) < 2 or len(right) < 2 or (len(right) > 2 and left[:-2] != right[:-2]):
            return None
        depth, columns = (right[1], right[0]) if op == "linear" else (right[-2], right[-1])
        out = math.prod(left[:-1]) * columns
        return (at, 2 * out * depth, out) if left[-1] == depth else None
    if op == "convolution_backward" and len(dims) >= 3 and len(dims[0]) == len(dims[2]) >= 3:
        return 0, 2 * math.prod(dims[0]) * math.prod(dims[2][1:]), math.prod(dims[1])
    if op in ("convolution", "_convolution") and len(concrete) >= 7 and len(dims) >= 2:
        image, weight, out = dims[0], dims[1], 0
        stride, padding, dilation = (_numbers(concrete[i], len(image) - 2) for i in (3, 4, 5))
        if len(image) == len(weight) >= 3 and stride and padding and dilation and concrete[6] == "False":
            sides = [
                (side + 2 * p - d * (width - 1) - 1) // s + 1
                for side, width, s, p, d in zip(image[2:], weight[2:], stride, padding, dilation, strict=True)
            ]
            out = image[0] * weight[0] * math.prod(max(side, 0) for side in sides)
        return (0, 2 * out * math.prod(weight[1:]), out) if out else None
    return None


def _numbers(text: str, count: int) -> list[int]:
    """``[1, 2]`` as text; one number stands for all. Empty where it is something else."""
    found = [int(one) for one in re.findall(r"\d{1,9}", text)] if re.fullmatch(r"\[[\d, ]*\]", text) else []
    found = found * count if len(found) == 1 else found
    return found if len(found) == count else []


def _sizes(dims: object) -> list[int]:
    """A shape; empty for what is none (numbers, lists of tensors)."""
    if not isinstance(dims, list) or len(dims) > 8:
        return []
    return (
        [one for one in dims if type(one) is int and 0 <= one < 2**40] if all(type(one) is int for one in dims) else []
    )
