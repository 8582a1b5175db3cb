"""The kernels of a backward pass, from those of the forward pass."""

from __future__ import annotations

from cmsim import compute
from cmsim.compute import Work
from cmsim.workload.generate.chain import Kernel
from cmsim.workload.generate.recipes import Recipe

#: arithmetic and bytes of the backward pass of a recurrence over those of its forward: states and products of queries
#: and keys are made again, then gradients of states, values, keys, queries, products and decays, a kernel each: 10 d_k
#: d_v and 5 c d_v for 4 and 1. Source: state-spaces/mamba, ops/triton/ssd_combined.py; the count is ours
_AGAIN = (3.0, 3.0)

#: how names of kernels end that make gradients of weights
_OF_WEIGHTS = " wgrad"


def of_weights(kernel: Kernel) -> bool:
    """Whether a kernel of the backward pass makes a gradient of weights, which nobody but the optimizer waits for."""
    return kernel.name.endswith(_OF_WEIGHTS)


def backward(kernels: list[Kernel], recipe: Recipe | None = None) -> list[Kernel]:
    """The backward pass of forward kernels, last first; with a recipe, gradients are cast where they enter products.

    A GEMM becomes two (gradients of input and of weight). A fused attention core recomputes its scores: five
    products where forward has two, so 2.5 times the work (Dao, arXiv:2307.08691, section 3.1). A memory-bound
    kernel reads what forward read and wrote, and writes a gradient: 1.5 times the bytes.
    """
    out = []
    for kernel in reversed(kernels):
        if kernel.host_s:
            out.append(kernel._replace(name=f"{kernel.name} backward"))
            continue
        if kernel.kernel in ("gemm", "grouped_gemm"):
            of_input, of_weight = compute.gradient_shapes(kernel.shape)
            if recipe is not None and kernel.precision == recipe.format and kernel.shape is not None:
                sizes = dict(kernel.shape.numbers)
                work = Work(3.0 * sizes["m"] * sizes["n"], recipe.cast_B * sizes["m"] * sizes["n"])
                out.append(
                    Kernel(f"{kernel.name} gradient quantise", "quantise", "", float(work.flops), float(work.bytes_B))
                )
            out.append(kernel._replace(name=f"{kernel.name} dgrad", shape=of_input))
            out.append(kernel._replace(name=kernel.name + _OF_WEIGHTS, shape=of_weight))
            continue
        if recipe is not None and kernel.kernel == "quantise":
            # a gradient passes a cast as it is
            continue
        fused = kernel.kernel in ("attention_prefill", "mla_prefill")
        arithmetic, traffic = (2.5, 2.0) if fused else _AGAIN if kernel.kernel == "recurrence" else (2.0, 1.5)
        out.append(
            kernel._replace(
                name=f"{kernel.name} backward",
                flops=arithmetic * kernel.flops,
                bytes_B=traffic * kernel.bytes_B,
                shape=None,
            )
        )
    return out
