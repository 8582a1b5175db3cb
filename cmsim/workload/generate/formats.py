"""What a scenario's number formats mean for kernels."""

from __future__ import annotations

from dataclasses import dataclass

from cmsim import compute
from cmsim.compute import Shape
from cmsim.kinds.parts import PrecisionSpec
from cmsim.kinds.training import TrainingPrecisionSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.families import Stored
from cmsim.workload.generate.recipes import RECIPES, Recipe

#: precisions that a matrix engine multiplies as such; weights in a narrower format than activations are widened
_WIDTH = BYTES_PER_ELEMENT
#: of products whose weights have a scale for each block
_IN_BLOCKS = {"fp8": "fp8_block"}


@dataclass(frozen=True)
class Formats:
    """Bytes of one element, and the precision GEMMs multiply in."""

    gemm: str
    attention: str
    weights: str
    weight_B: float
    activation_B: float
    kv_B: float
    stream_B: float = 2.0
    recipe: Recipe | None = None
    #: of a weight as ranks gather it, where it is cast after that
    gathered_B: float = 2.0

    @property
    def quantised(self) -> bool:
        """Whether activations are narrower than the residual stream, so that they are scaled on the way in."""
        return self.activation_B < self.stream_B

    @property
    def cached(self) -> str:
        """The cache's format, as tables of kernels name it."""
        return "fp8" if self.kv_B < 2 else "bf16"

    def shape(self, m: float, n: float, k: float) -> Shape | None:
        """Sizes of a product, where both operands have one format: tables have no others."""
        if self.weight_B != self.activation_B:
            return None
        return compute.gemm_shape(m, n, k, self.recipe.measured if self.recipe else self.gemm)

    @property
    def dispatched_B(self) -> float:
        """Bytes of an element of a token on its way to an expert, scales left out."""
        if self.recipe is None:
            return self.activation_B
        return _WIDTH[self.recipe.width] if self.recipe.dispatched else self.stream_B


def in_16_bits(precision: TrainingPrecisionSpec, layer: int, layers: int) -> bool:
    """Whether a layer of a model keeps its products in 16 bits beside a recipe."""
    start, end = precision.layers_at_start_in_bf16, precision.layers_at_end_in_bf16
    return precision.recipe is not None and (layer < start or layers - end <= layer < layers)


def wide(precision: TrainingPrecisionSpec) -> Formats:
    """Formats of such layers. Raises nothing: what is computed in 16 bits every accelerator has."""
    return formats(precision.model_copy(update={"recipe": None, "weights": "bf16", "activations": "bf16"}))


def of_experts(precision: PrecisionSpec, stored: Stored | None = None) -> Formats:
    """What a scenario's precision means for kernels of experts, which may have formats of their own."""
    own = {
        "weights": getattr(precision, "experts", None),
        "activations": getattr(precision, "expert_activations", None),
    }
    return formats(precision.model_copy(update={key: name for key, name in own.items() if name is not None}), stored)


def formats(precision: PrecisionSpec, stored: Stored | None = None) -> Formats:
    """What a scenario's precision means for kernels. GEMMs run in the wider of weights and activations; those in 8 bits
    block by block where that is how the model's weights are stored."""
    weights, activations = precision.weights, precision.activations
    recipe = RECIPES.get(getattr(precision, "recipe", None) or "")
    if recipe is not None:
        return Formats(
            gemm=recipe.format,
            attention=precision.attention,
            weights=recipe.width,
            weight_B=recipe.element_B,
            activation_B=recipe.element_B,
            kv_B=_WIDTH[precision.kv_cache],
            recipe=recipe,
            gathered_B=_WIDTH[weights],
        )
    gemm = activations if _WIDTH[activations] >= _WIDTH[weights] else weights
    return Formats(
        gemm=_IN_BLOCKS.get(gemm, gemm) if stored is not None and stored.blocks else gemm,
        attention=precision.attention,
        weights=weights,
        weight_B=_WIDTH[weights],
        activation_B=_WIDTH[activations],
        kv_B=_WIDTH[precision.kv_cache],
        gathered_B=_WIDTH[weights],
    )
