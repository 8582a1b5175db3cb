"""Messages of tensor parallelism beside products: what waits for what, in a chain of pieces.

With sequence parallelism a backward pass gathers the inputs of a layer's first products once more, for the gradients of
their weights: beside the gradient of the input, which does not need it. How the other messages lie is `tp_overlap`:

    none        each waits for the product before it, and the next one for it
    bulk        gradients of inputs are scattered beside the gradient of the weight: Megatron-LM's own order
    pipelined   and a product is cut in n parts that follow a gathering, or are followed by a scattering, part by part:
                c/n + max(c, p) (n - 1)/n + p/n, where message and product take c and p alone, so that of c a first or
                a last part is left where p >= c. It stands in the chain as a part of 1/n and one of (n - 1)/n.

With a recipe of narrow formats what is gathered for a product is cast before, and travels so; sums travel in 16 bits.

Source: Korthikanti et al., arXiv:2205.05198, section 4.2.2 (the second gathering); NVIDIA/Megatron-LM,
tensor_parallel/layers.py (bulk); NVIDIA/TransformerEngine, pytorch/module/base.py, and Ascend/MindSpeed, MC2
(pipelined).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.recipes import Recipe

_PRODUCTS = ("gemm", "grouped_gemm")


@dataclass(frozen=True)
class TensorOverlap:
    """How messages of a tensor group lie beside products.

    mode      none, bulk or pipelined
    chunks    parts of a product in a pipeline [1]
    recipe    that casts what is gathered for products in its format
    """

    mode: str
    chunks: int
    recipe: Recipe | None = None

    def arranged(self, chain: Sequence[Piece]) -> list[Piece]:
        """The chain with its messages in place. Only those of sequence parallelism are moved."""
        pieces = [replace(piece, comm=self._sized(piece.comm, chain[n + 1 :])) for n, piece in enumerate(chain)]
        pieces = [part for piece in pieces for part in self._with_inputs(piece)]
        return list(self._pipelined(pieces)) if self.mode == "pipelined" and self.chunks > 1 else pieces

    def _sized(self, comm: Comm | None, rest: Sequence[Piece]) -> Comm | None:
        if comm is None or comm.slot != "tp" or comm.collective != "all_gather":
            return comm
        return self._narrow(comm, _fed(rest))

    def _narrow(self, comm: Comm, product: Kernel | None) -> Comm:
        """A message that is gathered for a product, in its format."""
        if self.recipe is None or product is None or product.precision != self.recipe.format:
            return comm
        return comm._replace(size_B=comm.size_B * self.recipe.element_B / 2.0)

    def _with_inputs(self, piece: Piece) -> list[Piece]:
        """A backward piece that ends in a scattering, with the inputs of its last product gathered beside."""
        if not _is(piece, "reduce_scatter"):
            return [piece]
        at = max((n for n, kernel in enumerate(piece.kernels) if kernel.name.endswith(" dgrad")), default=None)
        if at is None:
            return [piece]
        of_input, rest = piece.kernels[at], piece.kernels[at + 1 :]
        assert piece.comm is not None
        inputs = piece.comm._replace(name="tp gather inputs", collective="all_gather")
        first = replace(piece, kernels=piece.kernels[:at], comm=self._narrow(inputs, of_input), beside=[of_input])
        if self.mode == "none":
            return [first, replace(piece, kernels=rest, after=())]
        return [first, replace(piece, kernels=[], beside=rest, after=())]

    def _pipelined(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Products behind a gathering, and before a scattering, in two parts of a pipeline's n."""
        first, rest = 1.0 / self.chunks, 1.0 - 1.0 / self.chunks
        waiting = list(reversed(pieces))
        while waiting:
            piece = waiting.pop()
            product = _first_product(waiting[-1]) if waiting and not piece.beside else None
            if product is not None and _is(piece, "all_gather"):
                after = waiting.pop()
                before, one, behind = after.kernels[:product], after.kernels[product], after.kernels[product + 1 :]
                yield replace(piece, comm=_part(piece.comm, first))
                yield replace(after, kernels=before, comm=_part(piece.comm, rest), beside=[cut(one, rest)])
                # what follows may end in a scattering of its own
                waiting.append(replace(after, kernels=[cut(one, first), *behind], after=()))
            elif not piece.beside and _is(piece, "reduce_scatter") and _ends_in_product(piece):
                *before, last = piece.kernels
                kernels = [*before, cut(last, first)]
                yield replace(piece, kernels=kernels, comm=_part(piece.comm, rest), beside=[cut(last, rest)])
                yield replace(piece, kernels=[], comm=_part(piece.comm, first), after=())
            else:
                yield piece


def _fed(rest: Sequence[Piece]) -> Kernel | None:
    """The product that a message is for: the first behind it, before the group meets again."""
    for piece in rest:
        if (at := _first_product(piece)) is not None:
            return piece.kernels[at]
        if piece.comm is not None and piece.comm.slot == "tp":
            return None
    return None


def _is(piece: Piece, collective: str) -> bool:
    return piece.comm is not None and piece.comm.slot == "tp" and piece.comm.collective == collective


def _first_product(piece: Piece) -> int | None:
    return next((n for n, kernel in enumerate(piece.kernels) if kernel.kernel in _PRODUCTS), None)


def _ends_in_product(piece: Piece) -> bool:
    return bool(piece.kernels) and piece.kernels[-1].kernel in _PRODUCTS


def _part(comm: Comm | None, share: float) -> Comm | None:
    return None if comm is None else comm._replace(size_B=comm.size_B * share)


def cut(kernel: Kernel, share: float) -> Kernel:
    """A share of a kernel's rows; that its other operand is read for each part is left out."""
    shape = kernel.shape
    if shape is not None:
        rows = tuple((name, v * share if name == "m" else v) for name, v in shape.numbers)
        shape = shape._replace(numbers=rows) if rows != shape.numbers else None
    return kernel._replace(flops=kernel.flops * share, bytes_B=kernel.bytes_B * share, shape=shape)
