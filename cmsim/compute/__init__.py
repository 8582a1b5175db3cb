"""Kernels as numbers: what each asks of the machine (`Work`) and how long that takes (`price`)."""

from cmsim.compute.attention import (
    attention_decode,
    attention_prefill,
    kv_bytes_per_token,
    mla_decode,
    mla_expand,
    mla_kv_bytes_per_token,
    mla_prefill,
)
from cmsim.compute.elementwise import activation, embedding, norm, optimizer, quantise, rope, sampling
from cmsim.compute.gemm import conv2d, conv_out_size, gemm, grouped_gemm
from cmsim.compute.power import ATTAINABLE_MEMORY, FULL_WEIGHT_B, busy_shares, energy_bound_s, slowed
from cmsim.compute.recurrence import recurrence_chunked, recurrence_scanned, recurrence_step, short_convolution
from cmsim.compute.roofline import (
    BOUNDS,
    COMPUTE_BOUND,
    KERNELS,
    MEMORY_BOUND,
    OVERHEAD_BOUND,
    Efficiency,
    KernelClass,
    KernelTimes,
    Rates,
    price,
)
from cmsim.compute.shape import (
    Shape,
    attention_shape,
    gemm_shape,
    gradient_shapes,
    grouped_shape,
    latent_shape,
)
from cmsim.compute.variants import VARIANTS, plain, with_variants
from cmsim.compute.work import Column, Work

__all__ = [
    "ATTAINABLE_MEMORY",
    "BOUNDS",
    "COMPUTE_BOUND",
    "FULL_WEIGHT_B",
    "KERNELS",
    "MEMORY_BOUND",
    "OVERHEAD_BOUND",
    "VARIANTS",
    "Column",
    "Efficiency",
    "KernelClass",
    "KernelTimes",
    "Rates",
    "Shape",
    "Work",
    "activation",
    "attention_decode",
    "attention_prefill",
    "attention_shape",
    "busy_shares",
    "conv2d",
    "conv_out_size",
    "embedding",
    "energy_bound_s",
    "gemm",
    "gemm_shape",
    "gradient_shapes",
    "grouped_gemm",
    "grouped_shape",
    "kv_bytes_per_token",
    "latent_shape",
    "mla_decode",
    "mla_expand",
    "mla_kv_bytes_per_token",
    "mla_prefill",
    "norm",
    "optimizer",
    "plain",
    "price",
    "quantise",
    "recurrence_chunked",
    "recurrence_scanned",
    "recurrence_step",
    "rope",
    "sampling",
    "short_convolution",
    "slowed",
    "with_variants",
]
