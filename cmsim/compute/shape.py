"""The sizes of a kernel: what pages of measured kernels price it by, beside its arithmetic and bytes."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """One call of a kind of kernel (``cmsim.kernels.kinds``), in the columns of its tables.

    kind     as ``cmsim predict`` takes it
    numbers  column and value; columns of the kind's defaults may be absent
    formats  text column and value
    """

    kind: str
    numbers: tuple[tuple[str, float], ...]
    formats: tuple[tuple[str, str], ...]


def gemm_shape(m: float, n: float, k: float, precision: str, *, groups: float = 1.0) -> Shape:
    """C (m, n) = A (m, k) B (k, n), ``groups`` times with weights of their own.

    >>> gemm_shape(1, 2, 3, "bf16").numbers
    (('m', 1), ('n', 2), ('k', 3), ('groups', 1.0))
    """
    return Shape("gemm", (("m", m), ("n", n), ("k", k), ("groups", groups)), (("dtype", precision),))


def grouped_shape(m: float, n: float, k: float, groups: float, precision: str, weights: str) -> Shape:
    """One product (m, k) (k, n) for each of ``groups`` experts, the rows of all together m; multiplied in
    ``precision``, weights kept in ``weights``. No page of measured kernels takes it."""
    return Shape(
        "grouped_gemm",
        (("m", m), ("n", n), ("k", k), ("groups", groups)),
        (("dtype", precision), ("weights", weights)),
    )


def gradient_shapes(shape: Shape | None) -> tuple[Shape | None, Shape | None]:
    """Of a product's gradients: dA (m, k) = dC (m, n) B', and dB (k, n) = A' (k, m) dC.

    >>> [dict(one.numbers)["k"] for one in gradient_shapes(gemm_shape(1, 2, 3, "bf16"))]
    [2, 1]
    """
    if shape is None:
        return None, None
    (_, m), (_, n), (_, k), *more = shape.numbers
    of_input = (("m", m), ("n", k), ("k", n), *more)
    of_weight = (("m", k), ("n", n), ("k", m), *more)
    return shape._replace(numbers=of_input), shape._replace(numbers=of_weight)


def attention_shape(
    kind: str,
    *,
    sequences: float,
    new: float,
    before: float,
    heads: float,
    kv_heads: float,
    head_dim: float,
    precision: str,
    cached: str,
    window: float = 0.0,
) -> Shape:
    """Attention over a cache of keys and values per head: ``kind`` is attention_context or attention_generation.

    new, before: tokens of a sequence that ask, and that stand in the cache before them    cached: format of the cache
    window: tokens that one sees at most, 0 for all
    """
    return Shape(
        kind,
        (
            ("batch_size", sequences),
            ("isl", new),
            ("step", before),
            ("num_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", head_dim),
            ("window_size", window),
        ),
        (("attn_dtype", precision), ("kv_cache_dtype", cached)),
    )


def latent_shape(
    kind: str,
    *,
    sequences: float,
    new: float,
    before: float,
    heads: float,
    latent: tuple[float, float, float, float],
    precision: str,
    cached: str,
) -> Shape:
    """Latent attention: ``kind`` is mla_context or mla_generation.

    latent: elements of a latent, of the rotated part of a key, of the rest of an expanded key, of an expanded value
    """
    names = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    return Shape(
        kind,
        (
            ("num_heads", heads),
            ("batch_size", sequences),
            ("isl", new),
            ("step", before),
            *zip(names, latent, strict=True),
        ),
        (("mla_dtype", precision), ("kv_cache_dtype", cached)),
    )
