"""Tables of attention with a cache of keys and values per head: prefill (context) and decode (generation)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.compute.attention import attention_decode
from cmsim.compute.work import Work
from cmsim.kernels.attention import (
    DECODE_DEFAULTS,
    DECODE_SHARES,
    DECODE_WIDTH,
    PREFILL_DEFAULTS,
    PREFILL_SHARES,
    PREFILL_WIDTH,
    Parts,
    decode_parts,
    prefill_parts,
)
from cmsim.kernels.kinds.kind import KernelKind, KernelRows, Move, Names, joined, scaled, spelled_so
from cmsim.kernels.machine import Machine

#: formats of tables, and whose constants they have: elements of one width move and multiply alike
FORMATS: dict[str, str] = {
    **dict.fromkeys(("bfloat16", "bf16", "float16", "fp16", "half"), "bfloat16"),
    **dict.fromkeys(("fp8", "fp8_e4m3", "float8", "int8"), "fp8"),
}
Rule = tuple[str, str, Callable[[KernelRows], NDArray[np.bool_]]]
PRECISION = {"bfloat16": "bf16", "fp8": "fp8"}
WIDTH_B = {"bfloat16": 2.0, "fp8": 1.0}
#: query heads on one cached head that decode kernels of serving engines take together; more, and each goes alone
TOGETHER = 32


def formats(names: Names) -> Names:
    """Formats as constants have them; as they stand where they are unknown."""
    spelled, code = names
    return tuple(FORMATS.get(name.lower(), name.lower()) for name in spelled), code


def known_format(column: str) -> Rule:
    """The rule of a column of formats."""
    return column, f"one of {', '.join(FORMATS)}", spelled_so(column, lambda name: name.lower() in FORMATS)


def _shared(rows: KernelRows) -> Names:
    """Whether query heads share what is read of the cache: one alone has nothing to share."""
    group = rows["num_heads"] / rows["num_key_value_heads"]
    return ("shared", "each"), ((group <= 1) | (group > TOGETHER)).astype(np.int64)


def _context_variants(rows: KernelRows) -> Names:
    of, cached = formats(rows.texts["attn_dtype"]), formats(rows.texts["kv_cache_dtype"])
    return joined(rows, [of, cached, rows.texts["kernel_source"]])


def _generation_variants(rows: KernelRows) -> Names:
    of, cached = formats(rows.texts["attn_dtype"]), formats(rows.texts["kv_cache_dtype"])
    return joined(rows, [of, _shared(rows), cached, rows.texts["kernel_source"]])


def precision(variant: str) -> str:
    """The peak that the arithmetic counts against."""
    return PRECISION.get(variant.partition("/")[0], variant.partition("/")[0])


def context_parts(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Parts:
    """What the time of each row is made of."""
    of, cached = variant.split("/")[:2]
    return prefill_parts(
        c,
        machine,
        sequences=rows["batch_size"],
        tokens=rows["isl"],
        heads=rows["num_heads"],
        kv_heads=rows["num_key_value_heads"],
        d_qk=rows["head_dim"],
        d_v=rows["head_dim"],
        prefix=rows["step"],
        window=rows["window_size"],
        precision=PRECISION[of],
        in_B=WIDTH_B[of],
        kv_B=WIDTH_B[cached],
    )


def generation_parts(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Parts:
    """What the time of each row is made of."""
    of, shared, cached = variant.split("/")[:3]
    return decode_parts(
        c,
        machine,
        sequences=rows["batch_size"],
        context=rows["isl"] + rows["step"],
        heads=rows["num_heads"],
        kv_heads=rows["num_key_value_heads"],
        d_qk=rows["head_dim"],
        d_v=rows["head_dim"],
        cached=2.0 * rows["head_dim"],
        window=rows["window_size"],
        precision=PRECISION[of],
        in_B=WIDTH_B[of],
        kv_B=WIDTH_B[cached],
        each=shared == "each",
        queries=rows["isl"],
    )


def _seen(rows: KernelRows) -> Floats:
    context, window = rows["isl"] + rows["step"], rows["window_size"]
    found: Floats = np.where(window > 0, np.minimum(window, context), context)
    return found


def _context_axes(rows: KernelRows) -> dict[str, Floats]:
    return {
        "tokens": rows["isl"],
        "sequences": rows["batch_size"],
        "heads": rows["num_heads"],
        "kv_heads": rows["num_key_value_heads"],
        "width": rows["head_dim"],
        # of the context what a query sees
        "part": _seen(rows) / (rows["isl"] + rows["step"]),
    }


def causal_pairs(new: Floats, before: Floats, window: Floats) -> Floats:
    """Queries of a sequence times the keys that each sees, its own included; ``window``: at most so many."""
    # queries that see all before them, then those that see a window
    growing = np.clip(window - before, 0.0, new)
    out: Floats = growing * (before + (growing + 1.0) / 2) + (new - growing) * window
    return out


def context_work(rows: KernelRows, variant: str) -> Work:
    """Of every query and key that it sees; keys and values that none sees are not read."""
    of, cached = variant.split("/")[:2]
    new, d, window = rows["isl"], rows["head_dim"], _seen(rows)
    pairs = causal_pairs(new, rows["step"], window)
    query_B = new * rows["num_heads"] * 2.0 * d * WIDTH_B[of]
    read = np.minimum(new + rows["step"], new + window - 1.0)
    cache_B = read * rows["num_key_value_heads"] * 2.0 * d * WIDTH_B[cached]
    return Work(2.0 * pairs * rows["num_heads"] * 2.0 * d, query_B + cache_B) * rows["batch_size"]


def generation_work(rows: KernelRows, variant: str) -> Work:
    """Of every new token and what it sees of the cache, which is read once for all of them."""
    of, _, cached = variant.split("/")[:3]

    def of_context(tokens: Floats) -> Work:
        return attention_decode(
            rows["isl"],
            tokens,
            heads=rows["num_heads"],
            kv_heads=rows["num_key_value_heads"],
            d_qk=1,
            d_v=1,
            element_bytes=WIDTH_B[of],
            kv_bytes=WIDTH_B[cached],
            sequences=rows["batch_size"] * rows["head_dim"],
        )

    seen = _seen(rows)
    # of new tokens in a row each window begins a token later
    read = np.minimum(seen + rows["isl"] - 1.0, rows["isl"] + rows["step"])
    return Work(of_context(seen).flops, of_context(read).bytes_B)


def _generation_axes(rows: KernelRows) -> dict[str, Floats]:
    each = _shared(rows)[1]
    return {
        "context": rows["isl"] + rows["step"],
        "seen": _seen(rows),
        "workers": rows["batch_size"] * np.where(each > 0, rows["num_heads"], rows["num_key_value_heads"]),
        "group": rows["num_heads"] / rows["num_key_value_heads"],
        "width": rows["head_dim"],
        "queries": rows["isl"],
    }


def before_only(rows: KernelRows, ratio: Floats) -> dict[str, Floats]:
    """Context by the tokens before the new ones."""
    return {"step": (rows["isl"] + rows["step"]) * ratio - rows["isl"]}


def new_only(rows: KernelRows, ratio: Floats) -> dict[str, Floats]:
    """New tokens in the same context."""
    new = rows["isl"] * ratio
    return {"isl": new, "step": rows["isl"] + rows["step"] - new}


_CONTEXT_MOVES: dict[str, Move] = {
    "tokens": scaled("isl"),
    "sequences": scaled("batch_size"),
    "heads": scaled("num_heads"),
    "kv_heads": scaled("num_key_value_heads"),
    "width": scaled("head_dim"),
    "part": lambda rows, ratio: {"window_size": _seen(rows) * ratio},
}
_GENERATION_MOVES: dict[str, Move] = {
    "queries": new_only,
    "context": before_only,
    "group": scaled("num_heads"),
    "workers": scaled("batch_size"),
    "width": scaled("head_dim"),
}


Page = Callable[[KernelRows, Machine, str, Mapping[str, float]], Floats]
PartsPage = Callable[[KernelRows, Machine, str, Mapping[str, float]], Parts]


def whole(parts: PartsPage) -> Page:
    """The page of which these are the parts."""
    return lambda rows, machine, variant, c: parts(rows, machine, variant, c)["physics_us"]


def core(parts: PartsPage) -> Page:
    """The core alone: what comes before it (projections rotated, cache written) are ops of their own in a run."""

    def page(rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]) -> Floats:
        found = parts(rows, machine, variant, c)
        out: Floats = found["physics_us"] - found["prepare_us"]
        return out

    return page


_NUMBERS = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "step", "window_size")


def _divides(rows: KernelRows) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = rows["num_heads"] % rows["num_key_value_heads"] == 0
    return good


_RULES: tuple[Rule, ...] = (
    ("num_key_value_heads", "a divisor of num_heads", _divides),
    known_format("attn_dtype"),
    known_format("kv_cache_dtype"),
)


def decodes(rows: KernelRows) -> bool:
    """Whether a table is of decode: its tokens stand behind others."""
    return bool(np.mean(rows["step"] > 0) > 0.5)


CONTEXT = KernelKind(
    name="attention_context",
    numbers=_NUMBERS,
    texts=("attn_dtype", "kv_cache_dtype"),
    zero=("step", "window_size"),
    optional={"kernel_source": ""},
    variants=_context_variants,
    precision=precision,
    parts=context_parts,
    time_us=whole(context_parts),
    op_us=core(context_parts),
    start=lambda _: PREFILL_DEFAULTS,
    width=PREFILL_WIDTH,
    per_core=("softmax_Gpps",),
    work=context_work,
    shares=PREFILL_SHARES,
    axes=_context_axes,
    moves=_CONTEXT_MOVES,
    terms=(
        (("tokens", "sequences", "heads"), 1.5),
        (("tokens", "width"), 1.0),
        (("heads", "kv_heads"), 1.5),
        (("part", "tokens", "width"), 2.0),
    ),
    known=_NUMBERS,
    is_one=lambda rows: not decodes(rows),
    rules=_RULES,
)
GENERATION = KernelKind(
    name="attention_generation",
    numbers=_NUMBERS,
    texts=("attn_dtype", "kv_cache_dtype"),
    zero=("step", "window_size"),
    optional={"kernel_source": ""},
    variants=_generation_variants,
    precision=precision,
    parts=generation_parts,
    time_us=whole(generation_parts),
    op_us=core(generation_parts),
    start=lambda variant: {**DECODE_DEFAULTS, "compute": 0.1} if "/each/" in variant else DECODE_DEFAULTS,
    width=DECODE_WIDTH,
    work=generation_work,
    shares=DECODE_SHARES,
    axes=_generation_axes,
    moves=_GENERATION_MOVES,
    terms=(
        (("seen", "workers"), 1.0),
        (("seen", "width"), 1.0),
        (("seen", "workers", "group"), 1.5),
        (("workers", "width"), 1.5),
        (("context", "seen", "width"), 1.5),
        (("context", "workers"), 1.5),
    ),
    known=_NUMBERS,
    is_one=decodes,
    rules=_RULES,
)
