"""The kernels and messages of one transformer layer on one rank; those of its backward pass are `gradients`.

Everything is counted for the busiest rank of a group: heads and columns split over ``tp``, each of them whole, tokens
that arrive at its experts times the imbalance of routing.
"""

from __future__ import annotations

from cmsim import compute
from cmsim.compute import Shape, Work
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.generate.chain import Kernel
from cmsim.workload.generate.formats import Formats as Formats
from cmsim.workload.generate.formats import formats as formats
from cmsim.workload.generate.formats import of_experts as of_experts
from cmsim.workload.model import ModelSpec
from cmsim.workload.recurrence import STATE_B
from cmsim.workload.whole import busiest

#: the product that makes queries of latents
QUERIES_UP = "q up"
#: bytes of an element of the cache and of attention's operands
_WIDTH = BYTES_PER_ELEMENT


def _gemm(name: str, form: Formats, m: float, n: float, k: float, *, out_B: float | None = None) -> Kernel:
    work = compute.gemm(
        m,
        n,
        k,
        in_bytes=form.activation_B,
        weight_bytes=form.weight_B,
        out_bytes=form.stream_B if out_B is None else out_B,
    )
    return _kernel(name, "gemm", form.gemm, work, form.shape(m, n, k))


def _kernel(name: str, kernel: str, precision: str, work: Work, shape: Shape | None = None) -> Kernel:
    return Kernel(name, kernel, precision, float(work.flops), float(work.bytes_B), shape)


def quantise(name: str, form: Formats, tokens: float, width: float) -> list[Kernel]:
    """Casts of what a product reads, where it reads another format than the stream has; else none."""
    if not form.quantised:
        return []
    if form.recipe is not None:
        work = Work(3.0 * tokens * width, form.recipe.cast_B * tokens * width)
    else:
        work = compute.quantise(tokens, width, in_bytes=form.stream_B, out_bytes=form.activation_B)
    return [_kernel(name, "quantise", "", work)]


def attention_in(model: ModelSpec, tokens: float, tp: int, form: Formats) -> list[Kernel]:
    """Norm and the projections up to queries, keys and values."""
    out = [
        _kernel(
            "attention norm", "norm", "", compute.norm(tokens, model.hidden, element_bytes=form.stream_B, residual=True)
        )
    ]
    out += quantise("attention quantise", form, tokens, model.hidden)
    heads = busiest(model.heads, tp)
    if model.attention == "mla":
        latent = model.kv_lora_rank + model.rope_dim
        if model.q_lora_rank:
            out.append(_gemm("q, kv down", form, tokens, model.q_lora_rank + latent, model.hidden))
            lora = compute.norm(tokens, model.q_lora_rank + model.kv_lora_rank, element_bytes=form.stream_B)
            out.append(_kernel("latent norm", "norm", "", lora))
            out += quantise("latent quantise", form, tokens, model.q_lora_rank)
            out.append(_gemm(QUERIES_UP, form, tokens, heads * model.head_dim, model.q_lora_rank))
        else:
            out.append(_gemm("q, kv down", form, tokens, heads * model.head_dim + latent, model.hidden))
        rotated, width = heads + 1, model.rope_dim
    else:
        kv_heads = busiest(model.kv_heads, tp)
        columns = heads * model.query_dim + kv_heads * (model.head_dim + model.v_head_dim)
        out.append(_gemm("q, k, v", form, tokens, columns, model.hidden))
        rotated, width = heads + kv_heads, model.head_dim
    if model.index_heads:
        # every rank scores with all heads of the indexer: their sum chooses
        latents = model.q_lora_rank or model.hidden
        out.append(_gemm("index queries", form, tokens, model.index_heads * model.index_dim, latents))
        out.append(_gemm("index key, weights", form, tokens, model.index_dim + model.index_heads, model.hidden))
    if model.rope_dim or model.attention != "mla":
        work = compute.rope(tokens, rotated, width, element_bytes=form.stream_B)
        out.append(_kernel("rope", "rope", "", work))
    return out


def product(name: str, form: Formats, tokens: float, columns: float, rows: float) -> Kernel:
    """A product beside those of layers."""
    return _gemm(name, form, tokens, columns, rows)


def attention_out(model: ModelSpec, tokens: float, tp: int, form: Formats) -> list[Kernel]:
    """The output projection."""
    width = busiest(model.heads, tp) * model.v_head_dim
    gate = compute.activation(tokens, width, element_bytes=form.stream_B)
    return [
        *([_kernel("attention gate", "activation", "", gate)] if model.gated_queries else []),
        *quantise("output quantise", form, tokens, width),
        _gemm("attention out", form, tokens, model.hidden, width),
    ]


def core_prefill(
    model: ModelSpec,
    sequences: float,
    queries: float,
    context: float,
    tp: int,
    form: Formats,
    *,
    narrow: bool = False,
    made: float | None = None,
) -> list[Kernel]:
    """The attention core over whole sequences, causal; ``narrow``: in a layer whose tokens see a window.

    made: tokens of a sequence whose keys and values are made of latents, default ``context`` [1]
    """
    element = _WIDTH[form.attention]
    heads = busiest(model.heads, tp)
    window = model.window if narrow and model.window < context else 0
    if window and model.chunked:
        # chunks are as so many sequences
        within = min(queries, float(window))
        sequences, queries, context, window = sequences * queries / within, within, float(window), 0
    if model.attention == "mla":
        tokens = sequences * (context if made is None else made)
        expand = compute.mla_expand(
            tokens,
            heads=heads,
            kv_lora_rank=model.kv_lora_rank,
            nope_dim=model.nope_dim,
            d_v=model.v_head_dim,
            element_bytes=form.stream_B,
            latent_bytes=form.activation_B,
            weight_bytes=form.weight_B,
        )
        # the rotated part of the one shared key is copied beside every head's key
        copied = Work(0.0, 2 * tokens * heads * model.head_dim * form.stream_B)
        core = compute.mla_prefill(
            queries,
            context,
            heads=heads,
            d_qk=model.head_dim,
            d_v=model.v_head_dim,
            element_bytes=element,
            sequences=sequences,
        )
        sizes = compute.latent_shape(
            "mla_context",
            sequences=sequences,
            new=queries,
            before=context - queries,
            heads=heads,
            latent=_latent(model),
            precision=form.attention,
            cached=form.cached,
        )
        expanded = form.shape(tokens, heads * (model.nope_dim + model.v_head_dim), model.kv_lora_rank)
        return [
            _kernel("k, v up", "gemm", form.gemm, expand, expanded),
            _kernel("k join", "rope", "", copied),
            _kernel("attention", "mla_prefill", form.attention, core, sizes),
        ]
    core = compute.attention_prefill(
        queries,
        context,
        heads=heads,
        kv_heads=busiest(model.kv_heads, tp),
        d_qk=model.head_dim,
        d_v=model.v_head_dim,
        element_bytes=element,
        sequences=sequences,
        window=float(window) if window else None,
    )
    asked = _attention_shape(model, "attention_context", sequences, queries, context - queries, heads, tp, form, window)
    return [_kernel("attention", "attention_prefill", form.attention, core, asked)]


def index_scores(model: ModelSpec, sequences: float, pairs: float, context: float, new: float) -> list[Kernel]:
    """What an indexer makes of ``pairs`` of new and earlier tokens of each sequence; its keys have one byte."""
    if not model.index_heads:
        return []
    flops = 2.0 * sequences * pairs * model.index_heads * model.index_dim
    read_B = sequences * (context * model.index_dim + new * model.index_heads * model.index_dim)
    return [
        _kernel("index scores", "generic", "bf16", Work(flops, read_B)),
        # scores of all heads summed, the best chosen: read twice
        _kernel("index top-k", "generic", "", Work(0.0, 3 * 4.0 * sequences * pairs)),
    ]


def recurrence(
    model: ModelSpec, sequences: float, new: float, tp: int, form: Formats, *, stepwise: bool, trained: bool = False
) -> list[Kernel]:
    """A layer's mixer with a state: norm, product in, convolution, core, gated norm, product out.

    stepwise: the state is there already, and ``new`` tokens of each sequence go on from it. trained: the core as a
    training step runs it, several kernels of a class of their own. Otherwise core and convolution are priced as any
    other kernel: none was measured.
    """
    of, tokens = model.recurrence, sequences * new
    assert of is not None, "a model without such layers"
    heads, groups, width = busiest(of.heads, tp), busiest(of.groups, tp), of.width_on(tp)
    opening = compute.norm(tokens, model.hidden, element_bytes=form.stream_B, residual=True)
    if stepwise:
        core = compute.recurrence_step(
            tokens,
            sequences=sequences,
            heads=heads,
            groups=groups,
            key_dim=of.key_dim,
            value_dim=of.value_dim,
            products=of.products,
            element_bytes=form.stream_B,
            state_bytes=STATE_B,
        )
    elif trained:
        core = compute.recurrence_scanned(
            tokens,
            heads=heads,
            groups=groups,
            key_dim=of.key_dim,
            value_dim=of.value_dim,
            products=of.products,
            chunk=of.chunk,
            element_bytes=form.stream_B,
        )
    else:
        core = compute.recurrence_chunked(
            tokens,
            sequences=sequences,
            heads=heads,
            groups=groups,
            key_dim=of.key_dim,
            value_dim=of.value_dim,
            products=of.products,
            chunk=of.chunk,
            element_bytes=form.stream_B,
            state_bytes=STATE_B,
        )
    out = [_kernel("mixer norm", "norm", "", opening), *quantise("mixer quantise", form, tokens, model.hidden)]
    out.append(_gemm("mixer in", form, tokens, of.columns_on(tp), model.hidden))
    if of.taps:
        short = compute.short_convolution(
            tokens, of.channels_on(tp), of.taps, sequences=sequences, element_bytes=form.stream_B
        )
        out.append(_kernel("convolution", "generic", "", short))
    closing = compute.norm(tokens, width, element_bytes=form.stream_B)
    gate = compute.activation(tokens, width, element_bytes=form.stream_B)
    return [
        *out,
        _kernel("recurrence", "recurrence" if trained else "generic", form.attention, core),
        _kernel("mixer gate", "activation", "", gate),
        _kernel("result norm", "norm", "", closing),
        *quantise("result quantise", form, tokens, width),
        _gemm("mixer out", form, tokens, model.hidden, width),
    ]


def _attention_shape(
    model: ModelSpec,
    kind: str,
    sequences: float,
    new: float,
    before: float,
    heads: float,
    tp: int,
    form: Formats,
    window: float = 0.0,
) -> Shape | None:
    if model.head_dim != model.v_head_dim:
        return None
    return compute.attention_shape(
        kind,
        sequences=sequences,
        new=new,
        before=before,
        heads=heads,
        kv_heads=busiest(model.kv_heads, tp),
        head_dim=model.head_dim,
        precision=form.attention,
        cached=form.cached,
        window=float(window),
    )


def _latent(model: ModelSpec) -> tuple[int, int, int, int]:
    return model.kv_lora_rank, model.rope_dim, model.nope_dim, model.v_head_dim


def core_decode(
    model: ModelSpec,
    sequences: float,
    q_tokens: float,
    context: float,
    tp: int,
    form: Formats,
    *,
    narrow: bool = False,
    shards: int = 1,
    own: float | None = None,
    copies: int = 1,
) -> list[Kernel]:
    """The attention core of a decode step over the cache; ``narrow``: in a layer whose tokens see a window.

    shards: ranks that have a part of each sequence's cache    own: sequences whose queries the rank makes, default all
    copies: ranks of the tensor group that have a part each of one copy, and work with the heads of all of them
    """
    element = _WIDTH[form.attention]
    heads = busiest(model.heads, tp)
    tokens, shards = (sequences if own is None else own) * q_tokens, shards * copies
    asking = heads * copies
    if model.attention == "mla":
        # queries into the latent space and results out of it: one small GEMM per head, weights read once
        absorb = compute.grouped_gemm(
            tokens * heads, model.kv_lora_rank, model.nope_dim, heads, in_bytes=2.0, out_bytes=2.0, weight_bytes=2.0
        )
        expand = compute.grouped_gemm(
            tokens * heads, model.v_head_dim, model.kv_lora_rank, heads, in_bytes=2.0, out_bytes=2.0, weight_bytes=2.0
        )
        context = context / shards
        core = compute.mla_decode(
            q_tokens,
            context,
            heads=asking,
            kv_lora_rank=model.kv_lora_rank,
            rope_dim=model.rope_dim,
            element_bytes=element,
            kv_bytes=form.kv_B,
            sequences=sequences,
        )
        sizes = compute.latent_shape(
            "mla_generation",
            sequences=sequences,
            new=q_tokens,
            before=max(context - q_tokens, 0.0),
            heads=asking,
            latent=_latent(model),
            precision=form.attention,
            cached=form.cached,
        )
        in_latents = compute.gemm_shape(tokens, model.kv_lora_rank, model.nope_dim, "bf16", groups=heads)
        from_latents = compute.gemm_shape(tokens, model.v_head_dim, model.kv_lora_rank, "bf16", groups=heads)
        return [
            _kernel("q absorb", "gemm", form.attention, absorb, in_latents),
            _kernel("attention", "mla_decode", form.attention, core, sizes),
            _kernel("v expand", "gemm", form.attention, expand, from_latents),
        ]
    seen, context = (model.within(context) if narrow else context) / shards, context / shards
    core = compute.attention_decode(
        q_tokens,
        seen,
        heads=asking,
        kv_heads=busiest(model.kv_heads, tp),
        d_qk=model.head_dim,
        d_v=model.v_head_dim,
        element_bytes=element,
        kv_bytes=form.kv_B,
        sequences=sequences,
    )
    before = max(context - q_tokens, 0.0)
    window = seen if seen < context else 0.0
    asked = _attention_shape(model, "attention_generation", sequences, q_tokens, before, asking, tp, form, window)
    return [_kernel("attention", "attention_decode", form.attention, core, asked)]


def dense_ffn(
    model: ModelSpec, tokens: float, tp: int, form: Formats, *, width: float | None = None, name: str = "ffn"
) -> list[Kernel]:
    """Norm left out; up (and gate), activation, down."""
    columns = busiest(model.ffn if width is None else width, tp)
    fold = 2 if model.gated else 1
    act = compute.activation(tokens, columns, element_bytes=form.stream_B, gated=model.gated)
    return [
        _gemm(f"{name} up", form, tokens, fold * columns, model.hidden),
        _kernel(f"{name} activation", "activation", "", act),
        *quantise(f"{name} quantise", form, tokens, columns),
        _gemm(f"{name} down", form, tokens, model.hidden, columns),
    ]


def ffn_norm(model: ModelSpec, tokens: float, form: Formats) -> list[Kernel]:
    """Norm and residual before the second half of a layer."""
    work = compute.norm(tokens, model.hidden, element_bytes=form.stream_B, residual=True)
    return [_kernel("ffn norm", "norm", "", work), *quantise("ffn quantise", form, tokens, model.hidden)]


def router(model: ModelSpec, tokens: float) -> list[Kernel]:
    """Scores and top-k choice, in 16 bits whatever the rest uses."""
    scores = compute.gemm(tokens, model.experts, model.hidden, in_bytes=2.0, out_bytes=4.0)
    return [
        _kernel("router", "gemm", "bf16", scores, compute.gemm_shape(tokens, model.experts, model.hidden, "bf16")),
        _kernel("top-k", "generic", "", Work(0.0, 8.0 * tokens * model.experts)),
    ]


def experts(model: ModelSpec, arriving: float, active: float, form: Formats, *, tp: int = 1) -> list[Kernel]:
    """The grouped GEMMs of the rank's experts over the tokens that arrive, and their order by expert.

    arriving: (token, expert) pairs at this rank [1]    active: experts of the rank with at least one token [1]
    """
    width, fold = busiest(model.expert_ffn, tp), 2 if model.gated else 1
    up = compute.grouped_gemm(
        arriving,
        fold * width,
        model.hidden,
        active,
        in_bytes=form.activation_B,
        weight_bytes=form.weight_B,
        out_bytes=form.stream_B,
    )
    down = compute.grouped_gemm(
        arriving,
        model.hidden,
        width,
        active,
        in_bytes=form.activation_B,
        weight_bytes=form.weight_B,
        out_bytes=form.stream_B,
    )
    of_up = compute.grouped_shape(arriving, fold * width, model.hidden, active, form.gemm, form.weights)
    of_down = compute.grouped_shape(arriving, model.hidden, width, active, form.gemm, form.weights)
    act = compute.activation(arriving, width, element_bytes=form.stream_B, gated=model.gated)
    ordered = Work(0.0, 2 * arriving * model.hidden * form.dispatched_B)
    # tokens that came in 16 bits are cast here
    cast = quantise("token quantise", form, arriving, model.hidden) if form.dispatched_B > form.activation_B else []
    return [
        _kernel("expert order", "generic", "", ordered),
        *cast,
        _kernel("expert up", "grouped_gemm", form.gemm, up, of_up),
        _kernel("expert activation", "activation", "", act),
        *quantise("expert quantise", form, arriving, width),
        _kernel("expert down", "grouped_gemm", form.gemm, down, of_down),
    ]


def combine_sum(model: ModelSpec, tokens: float, copies: float, form: Formats) -> list[Kernel]:
    """Weighted sum of the experts' answers for each token."""
    return [
        _kernel(
            "expert sum",
            "generic",
            "",
            Work(2.0 * tokens * copies * model.hidden, tokens * (copies + 1) * model.hidden * form.stream_B),
        )
    ]


def embedding(model: ModelSpec, tokens: float, form: Formats) -> list[Kernel]:
    """The token table's rows."""
    return [
        _kernel(
            "embedding",
            "embedding",
            "",
            compute.embedding(tokens, model.hidden, weight_bytes=2.0, out_bytes=form.stream_B),
        )
    ]


def head(
    model: ModelSpec, tokens: float, tp: int, form: Formats, *, sample: bool, sampled: Work | None = None
) -> list[Kernel]:
    """Final norm, the output matrix, and for inference the choice of a token. 16 bits: heads are not quantised.

    sampled: what a sampler does beside for each token that it chooses
    """
    final = compute.norm(tokens, model.hidden, element_bytes=form.stream_B)
    words = busiest(model.vocab, tp)
    logits = compute.gemm(tokens, words, model.hidden, in_bytes=2.0, out_bytes=4.0 if not sample else 2.0)
    sizes = compute.gemm_shape(tokens, words, model.hidden, "bf16")
    out = [_kernel("final norm", "norm", "", final), _kernel("head", "gemm", "bf16", logits, sizes)]
    last = compute.sampling(tokens, words, element_bytes=2.0 if sample else 4.0)
    if sampled is not None:
        last = Work(last.flops + sampled.flops * tokens, last.bytes_B + sampled.bytes_B * tokens)
    return [*out, _kernel("sampling" if sample else "loss", "sampling", "", last)]
