"""Images or video out of noise: every rank denoises whole images, or shares the tokens of some.

A step is one pass of the transformer over all latents of the batch, twice as many with classifier-free guidance; steps
are alike. Ranks that share an image have a part of its tokens each, of prompt and image alike, and for attention
exchange heads for tokens and back (DeepSpeed-Ulysses, arXiv:2309.14509, as xDiT and SGLang run it).

Text encoders and the decoder of latents are left out, once an image each; so is what schedulers do between steps, and
caching of layers that change little from step to step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim import compute
from cmsim.compute import Work
from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.kinds.diffusion import DiffusionFacts, DiffusionSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload import whole
from cmsim.workload.denoiser import DenoiserSpec, load_denoiser
from cmsim.workload.generate import layers
from cmsim.workload.generate.chain import Comm, Kernel, Piece, emit, joined
from cmsim.workload.generate.parallel import Layout, resolve
from cmsim.workload.ops import Least, ProgramBuilder, Programs, assemble


def programs(spec: DiffusionSpec, system: System, base: Path | None = None) -> Programs:
    """All steps of a batch of images."""
    model = load_denoiser(spec.model, base=base)
    _check(spec, model)
    layout = resolve(spec.parallel, system, ranks=spec.ranks, experts=0)
    total, notes = whole.counted(spec.batch_per_accelerator, layout.ranks / system.ranks_per_package, "images")
    groups = layout.ranks // layout.cp
    held = whole.busiest(total, groups)
    if held * groups > total:
        notes += (f"{total:g} images on {groups} groups of ranks: every one is priced as the busiest, with {held:g}",)
    one = _Pass(spec, model, layout, held)
    step, build = one.pieces(), ProgramBuilder()
    emit(build, [piece for _ in range(spec.steps) for piece in step])
    twice = 2.0 if guided(spec, model) else 1.0
    image, text = float(model.tokens(spec.width, spec.height, spec.frames)), one.text
    products, cores = (twice * spec.steps * part for part in model.flops(image, text))
    form = one.form
    flops = {form.gemm: total * products}
    flops[form.attention] = flops.get(form.attention, 0.0) + total * cores
    weights_B = model.parameters * form.weight_B
    rows = held * twice * (image + text) / layout.cp
    return assemble(
        [build],
        program=np.zeros(layout.ranks, np.int64),
        groups={"cp": layout.groups()["cp"]},
        facts=DiffusionFacts(total, float(spec.steps), products + cores),
        least=Least(layout.ranks, flops, spec.steps * weights_B),
        notes=[*notes, f"left out: {model.beside}"],
        footprint_B={
            "weights": [weights_B],
            # the residual stream, and what the widest layer makes of it: queries, keys, values and the FFN
            "activations": [rows * (4 * model.hidden + 3 * model.hidden + model.ffn) * form.stream_B],
        },
        plan={**layout.sizes, "images_per_group": int(held), "tokens_per_image": int(image)},
    )


def guided(spec: DiffusionSpec, model: DenoiserSpec) -> bool:
    """Whether a step is run with the prompt and without it."""
    return not model.distilled if spec.guidance is None else spec.guidance


def _check(spec: DiffusionSpec, model: DenoiserSpec) -> None:
    """Raises InfeasibleError for images that the model does not make, and plans that it does not have."""
    problems = [
        Problem(f"got {got!r}; images are made data parallel, or by cp. Allowed: 1.", key=f"parallel.{size}")
        for size in ("tp", "pp", "ep")
        if (got := getattr(spec.parallel, size)) != 1
    ]
    if model.heads % spec.parallel.cp:
        said = f"got {spec.parallel.cp}, which does not divide {model.heads} heads."
        problems.append(Problem(said, key="parallel.cp"))
    for key in ("width", "height"):
        got = getattr(spec, key)
        if got < model.side or got % model.side:
            near = max(got // model.side, 1) * model.side
            said = f"got {got}, which is no multiple of {model.side} pixels. Nearest: {near}, {near + model.side}."
            problems.append(Problem(said, key=key))
    if (spec.frames - 1) % model.frames or (model.frames == 1 and spec.frames > 1):
        allowed = "1" if model.frames == 1 else f"1 and multiples of {model.frames} more"
        problems.append(Problem(f"got {spec.frames}. Allowed: {allowed}.", key="frames"))
    if problems:
        raise InfeasibleError(problems)


class _Pass:
    """One pass of the transformer over a rank's share of a batch, as pieces.

    images, text   tokens of one of both on this rank and, of whole images, ``seen`` and ``text``
    """

    def __init__(self, spec: DiffusionSpec, model: DenoiserSpec, layout: Layout, held: float):
        self.model, self.ranks, self.form = model, layout.cp, layers.formats(spec.precision)
        self.batch = held * (2.0 if guided(spec, model) else 1.0)
        self.text = float(spec.prompt_tokens or model.text_tokens)
        self.seen = float(model.tokens(spec.width, spec.height, spec.frames))
        # of layers that see the prompt apart every rank has all of it
        self.rows = self.batch * whole.busiest(self.seen, self.ranks)
        self.words = self.batch * whole.busiest(self.text, self.ranks)

    def pieces(self) -> list[Piece]:
        model = self.model
        made = {name: getattr(self, f"_{name}")() for name in ("joint", "single", "cross") if getattr(model, name)}
        out = [Piece(self._opening())]
        for name, pieces in made.items():
            out += pieces * getattr(model, name)
        closing = [*self._normed("final", self.rows), self._product("patches out", self.rows, model.outputs)]
        return joined([*out, Piece(closing)])

    def _opening(self) -> list[Kernel]:
        model = self.model
        words = self.words if not model.cross else self.batch * self.text
        out = [
            self._product("patches in", self.rows, model.hidden, model.inputs),
            self._product("prompt in", words, model.hidden, model.text_width),
        ]
        return [*out, *(self._modulations(6) if model.cross else [])]

    def _joint(self) -> list[Piece]:
        """Tokens of image and prompt, each with weights of their own, see each other."""
        streams = (("image", self.rows), ("prompt", self.words))
        before = [kernel for name, rows in streams for kernel in self._projected(name, rows)]
        after = [kernel for name, rows in streams for kernel in (*self._out(name, rows), *self._ffn(name, rows))]
        both = self.seen + self.text
        return self._attended([*self._modulations(6), *self._modulations(6), *before], both, after)

    def _single(self) -> list[Piece]:
        """Tokens of both with the same weights; attention and the FFN beside each other, in one product out."""
        model, rows = self.model, self.rows + self.words
        before = [
            *self._modulations(3),
            *self._normed("single", rows),
            self._product("single q, k, v, up", rows, 3 * model.hidden + model.ffn),
            *self._turned("single", rows),
            self._activated("single", rows),
        ]
        after = [*self._cast("single", rows, model.hidden + model.ffn)]
        after.append(self._product("single out", rows, model.hidden, model.hidden + model.ffn))
        return self._attended(before, self.seen + self.text, after)

    def _cross(self) -> list[Piece]:
        """Tokens of the image see each other, then those of the prompt, of which every rank has all."""
        model, words = self.model, self.batch * self.text
        asked = self._core("prompt attention", self.rows / self.batch, self.text, model.heads)
        after = [
            *self._out("image", self.rows),
            *self._normed("prompt", self.rows),
            self._product("prompt q", self.rows, model.hidden),
            self._product("prompt k, v", words, 2 * model.hidden),
            asked,
            *self._out("prompt", self.rows),
            *self._ffn("image", self.rows),
        ]
        return self._attended(self._projected("image", self.rows), self.seen, after)

    def _attended(self, before: list[Kernel], tokens: float, after: list[Kernel]) -> list[Piece]:
        """Attention of all tokens over all of them, where ranks share them of some heads each."""
        heads = whole.busiest(self.model.heads, self.ranks)
        core = self._core("attention", tokens, tokens, heads)
        if self.ranks == 1:
            return [Piece([*before, core, *after])]
        size_B = self.batch * whole.busiest(tokens, self.ranks) * self.model.hidden * self.form.stream_B
        asked = Comm("exchange queries, keys, values", "all_to_all", 3 * size_B, "cp")
        return [
            Piece(before, asked),
            Piece([core], Comm("exchange results", "all_to_all", size_B, "cp")),
            Piece(after),
        ]

    def _core(self, name: str, queries: float, seen: float, heads: float) -> Kernel:
        width = self.model.head_dim
        work = compute.attention_prefill(
            queries,
            seen,
            heads=heads,
            kv_heads=heads,
            d_qk=width,
            d_v=width,
            element_bytes=BYTES_PER_ELEMENT[self.form.attention],
            causal=False,
            sequences=self.batch,
        )
        return Kernel(name, "attention_prefill", self.form.attention, float(work.flops), float(work.bytes_B))

    def _projected(self, name: str, rows: float) -> list[Kernel]:
        q, k, v = f"{name} q, k, v", rows, 3 * self.model.hidden
        return [*self._normed(name, rows), self._product(q, k, v), *self._turned(name, rows)]

    def _out(self, name: str, rows: float) -> list[Kernel]:
        hidden = self.model.hidden
        return [*self._cast(f"{name} output", rows, hidden), self._product(f"{name} attention out", rows, hidden)]

    def _ffn(self, name: str, rows: float) -> list[Kernel]:
        model = self.model
        return [
            *self._normed(f"{name} ffn", rows),
            self._product(f"{name} ffn up", rows, model.ffn),
            self._activated(f"{name} ffn", rows),
            *self._cast(f"{name} ffn", rows, model.ffn),
            self._product(f"{name} ffn down", rows, model.hidden, model.ffn),
        ]

    def _modulations(self, count: int) -> list[Kernel]:
        """Shifts, scales and gates of a layer, of the step's time, for each image."""
        return [self._product("modulations", self.batch, count * self.model.hidden)]

    def _normed(self, name: str, rows: float) -> list[Kernel]:
        """Norm, with what is gated and added before it, shifted and scaled."""
        work = compute.norm(rows, self.model.hidden, element_bytes=self.form.stream_B, residual=True)
        return [_kernel(f"{name} norm", "norm", work), *self._cast(name, rows, self.model.hidden)]

    def _turned(self, name: str, rows: float) -> list[Kernel]:
        """Norms of queries and keys, and their rotation."""
        work = compute.rope(rows, 2 * self.model.heads, self.model.head_dim, element_bytes=self.form.stream_B)
        return [_kernel(f"{name} rope", "rope", work)]

    def _activated(self, name: str, rows: float) -> Kernel:
        work = compute.activation(rows, self.model.ffn, element_bytes=self.form.stream_B, gated=False)
        return _kernel(f"{name} activation", "activation", work)

    def _cast(self, name: str, rows: float, columns: float) -> list[Kernel]:
        return layers.quantise(f"{name} quantise", self.form, rows, columns)

    def _product(self, name: str, rows: float, columns: float, inner: float | None = None) -> Kernel:
        return layers.product(name, self.form, rows, columns, self.model.hidden if inner is None else inner)


def _kernel(name: str, kernel: str, work: Work) -> Kernel:
    return Kernel(name, kernel, "", float(work.flops), float(work.bytes_B))
