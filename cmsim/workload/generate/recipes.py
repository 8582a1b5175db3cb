"""How a training step multiplies in narrow formats: one recipe for the three products of every linear layer.

All three (the product, the gradient of its input, that of its weight) are in the recipe's format; attention, router and
head stay in 16 bits. What enters a product is cast from 16 bits: inputs in forward, gradients of results in backward,
weights once per step. Both layouts are made at once, for a gradient of a weight reads along the other dimension; beside
frozen weights, which have none, inputs and gradients are cast in one layout alone (``once_B``).

    bytes of a cast of one element: what is read and written, scales with it
    delayed   2 + 1 + 1            the scale is of earlier steps, the maximum is found on the way
    current   2 + (2 + 1 + 1)      a pass for the maximum of the tensor first
    block     2 + 2 (1 + 4/128)    one FP32 scale for 128 elements of a row
    mxfp8     2 + 2 (1 + 1/32)     one 8-bit scale for 32 elements, along either dimension
    nvfp4     2 + (2 + b) + (2 + b), b = 1/2 + 1/16   the maximum; rows; columns after a Hadamard transform, which only
                                   gradients of weights need
    int8      (2 + 1) + (2 + 1)    one scale for a row, whose maximum is found while it is held; columns apart
    mxint8    2 + 2 (1 + 1/32)     as mxfp8
    mxfp6     2 + 2 (3/4 + 1/32)   as mxfp8
    mxfp4     (2 + b) + (2 + b), b = 1/2 + 1/32   as nvfp4, but no maximum of the tensor: scales are powers of two

Counted apart from the kernels before and after, which may be fused with them. All-reduces of maxima over ranks are of a
few numbers, and left out.

Source: NVIDIA/TransformerEngine, common/recipe and common/transpose (recipes and layouts); Micikevicius et al.,
arXiv:2209.05433 (delayed); DeepSeek-AI, arXiv:2412.19437, section 3.3 (block); NVIDIA, arXiv:2506.08027 (mxfp8) and
arXiv:2509.25149 (nvfp4); pytorch/ao, prototype/quantized_training, int8_mixed_precision (int8); Open Compute Project,
Microscaling Formats (MX) 1.0 (blocks of 32, one 8-bit scale each); Rouhani et al., arXiv:2310.10537, section 5
(training in mxfp6); Tseng et al., arXiv:2502.20586 (mxfp4). The counts of bytes are ours.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from cmsim import compute


@dataclass(frozen=True)
class Recipe:
    """What a recipe is for kernels.

    format      that products multiply in, as stacks name what they reach in it
    width       the plain format of its elements
    measured    format of the products in tables of kernels
    element_B   an element as a product reads it, scales with it [B]
    cast_B      read and written to cast one element of 16 bits, both layouts [B]
    once_B      the same, one layout [B]
    dispatched  tokens travel to experts in the recipe's format, and in 16 bits otherwise
    """

    format: str
    width: str
    measured: str
    element_B: float
    cast_B: float
    once_B: float
    dispatched: bool = False

    @property
    def frozen(self) -> Recipe:
        """The recipe of products whose weights have no gradient."""
        return replace(self, cast_B=self.once_B)


_BLOCK_B, _MX_B, _NV_B = 1 + 4 / 128, 1 + 1 / 32, 0.5 + 1 / 16
_MX6_B, _MX4_B = 0.75 + 1 / 32, 0.5 + 1 / 32

#: by the name that scenarios give
RECIPES = {
    "current": Recipe("fp8", "fp8", "fp8", 1.0, 2 + 2 + 2.0, 2 + 2 + 1.0),
    "delayed": Recipe("fp8", "fp8", "fp8", 1.0, 2 + 2.0, 2 + 1.0),
    "block": Recipe("fp8_block", "fp8", "fp8_block", _BLOCK_B, 2 + 2 * _BLOCK_B, 2 + _BLOCK_B, dispatched=True),
    "mxfp8": Recipe("mxfp8", "fp8", "fp8_block", _MX_B, 2 + 2 * _MX_B, 2 + _MX_B),
    "nvfp4": Recipe("fp4", "fp4", "fp4", _NV_B, 2 + 2 * (2 + _NV_B), 2 + 2 + _NV_B),
    "int8": Recipe("int8", "int8", "int8", 1.0, 2 * (2 + 1.0), 2 + 1.0),
    "mxint8": Recipe("mxint8", "int8", "int8", _MX_B, 2 + 2 * _MX_B, 2 + _MX_B),
    # one instruction with mxfp8, whose tables stand for it
    "mxfp6": Recipe("mxfp6", "fp6", "fp8_block", _MX6_B, 2 + 2 * _MX6_B, 2 + _MX6_B),
    "mxfp4": Recipe("mxfp4", "fp4", "fp4", _MX4_B, 2 * (2 + _MX4_B), 2 + _MX4_B),
}


def recipes_in(peaks: Container[str]) -> list[str]:
    """Recipes whose products an accelerator computes, of the formats that it has a peak of.

    >>> recipes_in(["bf16", "fp8"]), recipes_in(["bf16"])
    (['current', 'delayed', 'block'], [])
    """
    return [
        name
        for name, recipe in RECIPES.items()
        if recipe.format in peaks or all(of in peaks for of in compute.VARIANTS.get(recipe.format, ("",)))
    ]
