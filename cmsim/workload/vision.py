"""The tower of a multimodal model that sees: an encoder of image patches, and what makes text tokens of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionTower:
    """Sizes of a tower. Counts of parameters are whole numbers [1], FLOPs are [FLOP].

    layers, hidden, heads, ffn, gated   of the encoder, in which every patch sees every other of its image
    patch, channels, frames   pixels of a patch's side; numbers of a pixel; images that a patch spans
    image        pixels of an image's side, where the tower has one size; else 0
    extra        tokens beside the patches of an image (one in front)
    merge        patches of a side that become one token of the text
    window, full_layers   layers see windows of so many patches of a side, but ``full_layers`` of them; 0: none do
    projector    products behind the encoder, (rows, columns) each, on every token of the text
    small_parameters   biases, norms, learned positions and tokens
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    gated: bool
    patch: int
    channels: int
    frames: int
    image: int
    extra: int
    merge: int
    projector: tuple[tuple[int, int], ...]
    small_parameters: int
    window: int = 0
    full_layers: int = 0

    @property
    def patch_inputs(self) -> int:
        """Numbers of a patch. [1]"""
        return self.channels * self.frames * self.patch**2

    @property
    def parameters(self) -> int:
        """All of them, those of the projector too."""
        layer = 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.ffn
        projector = sum(rows * columns for rows, columns in self.projector)
        return self.layers * layer + self.patch_inputs * self.hidden + projector + self.small_parameters

    def patches(self, image: int) -> int:
        """Of an image of ``image`` pixels a side. [1]"""
        return (image // self.patch) ** 2

    def tokens(self, image: int) -> int:
        """Of the text, for one image. [1]"""
        return self.patches(image) // self.merge**2

    def seen(self, image: int) -> list[tuple[int, int]]:
        """Layers, and how many patches a patch sees in each of them; windows and all."""
        whole = self.patches(image) + self.extra
        narrow = min(self.window**2, whole) if self.window else 0
        return (
            [(self.full_layers, whole), (self.layers - self.full_layers, narrow)] if narrow else [(self.layers, whole)]
        )

    def forward_flops(self, image: int) -> float:
        """Of one image: two for every weight that a patch meets, four numbers wide for every patch it sees. [FLOP]"""
        rows = self.patches(image) + self.extra
        layer = 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.ffn
        cores = sum(count * 4.0 * rows * seen * self.hidden for count, seen in self.seen(image))
        made = 2.0 * self.patches(image) * self.patch_inputs * self.hidden
        projector = 2.0 * self.tokens(image) * sum(rows * columns for rows, columns in self.projector)
        return 2.0 * rows * self.layers * layer + cores + made + projector
