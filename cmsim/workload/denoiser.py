"""A diffusion transformer as numbers: read from the ``transformer/config.json`` of a diffusers pipeline.

Latents of images or video are cut into patches, which are its tokens. Three kinds of layers: *joint* ones, whose tokens
of image and prompt have weights of their own and see each other; *single* ones, whose tokens of both have the same
weights, with attention beside the FFN; and *cross* ones, whose tokens see each other, then the prompt's.

To add a family: a function that turns its keys into the fields of `DenoiserSpec`, and one line in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim import reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.families import Keys

DENOISERS = "workloads/denoisers"
#: pixels of a side, and frames behind the first, that a VAE makes one latent of, where a file does not say
_SIDE, _FRAMES = 8, 4
#: modulations of a layer: shift, scale and gate of each half; a single layer has one half
_BOTH, _ONE = 6, 3


@dataclass(frozen=True)
class DenoiserSpec:
    """Sizes of a diffusion transformer. Counts of parameters are whole numbers [1], FLOPs are [FLOP].

    joint, single, cross   layers of each kind    ffn  inner width of FFNs, which have no gate
    inputs, outputs        numbers of a patch, in and out
    side, frames           pixels of a patch's side; frames of video that a latent spans, but for the first; 1: images
    text_width, text_tokens  of a prompt as encoders leave it
    distilled              guidance is built in: one pass a step, not two
    beside                 what of a pipeline is left out, to say beside every run
    """

    name: str
    family: str
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    inputs: int
    outputs: int
    side: int
    text_width: int
    text_tokens: int
    joint: int = 0
    single: int = 0
    cross: int = 0
    frames: int = 1
    distilled: bool = False
    beside: str = "text encoders and the VAE that decodes latents"

    @property
    def layers(self) -> int:
        return self.joint + self.single + self.cross

    @property
    def stream_parameters(self) -> int:
        """Products that a token of one stream meets in a joint or single layer: attention's, and those of the FFN."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.ffn

    @property
    def parameters(self) -> int:
        """All of them, biases and norms left out."""
        square = self.hidden**2
        joint = 2 * (self.stream_parameters + _BOTH * square)
        single = self.stream_parameters + _ONE * square
        # modulations of cross layers are made once for all of them
        cross = self.stream_parameters + 4 * square
        ends = (self.inputs + self.outputs + self.text_width) * self.hidden
        shared = _BOTH * square * bool(self.cross)
        return self.joint * joint + self.single * single + self.cross * cross + ends + shared

    def tokens(self, width: int, height: int, frames: int = 1) -> int:
        """Of an image or video of so many pixels and frames. [1]"""
        return (width // self.side) * (height // self.side) * ((frames - 1) // self.frames + 1)

    def flops(self, image: float, text: float) -> tuple[float, float]:
        """Of one pass over so many tokens of each: products, and attention's cores. [FLOP]"""
        both, square = image + text, self.hidden**2
        products = self.stream_parameters * ((self.joint + self.single) * both + self.cross * image)
        products += self.cross * (2 * square * image + 2 * square * text)
        products += (self.inputs + self.outputs) * self.hidden * image + self.text_width * self.hidden * text
        cores = (self.joint + self.single) * both**2 + self.cross * image * (image + text)
        return 2.0 * products, 4.0 * cores * self.heads * self.head_dim


def _joint(keys: Keys, *, text: str, ffn_times: int = 4, packed: bool = False) -> dict[str, Any]:
    """Joint layers, then single ones. packed: neighbours were joined before, so that a patch is one of its inputs"""
    heads, width = keys.whole("num_attention_heads"), keys.whole("attention_head_dim")
    patch, channels = keys.whole("patch_size"), keys.whole("in_channels")
    inputs = channels * patch**2
    out = keys.whole("out_channels", channels) * patch**2
    return {
        "hidden": heads * width,
        "heads": heads,
        "head_dim": width,
        "ffn": ffn_times * heads * width,
        "inputs": inputs,
        "outputs": out,
        "side": _SIDE * (2 if packed else patch),
        "joint": keys.layers("num_layers"),
        "single": keys.whole("num_single_layers", 0, least=0),
        "text_width": keys.whole(text),
        "distilled": keys.flag("guidance_embeds", False),
    }


def _packed(keys: Keys) -> dict[str, Any]:
    return _joint(keys, text="joint_attention_dim", packed=True)


def _plain(keys: Keys) -> dict[str, Any]:
    if keys.get("dual_attention_layers"):
        keys.complain("dual_attention_layers", "a second attention of image tokens alone is not modelled")
    return _joint(keys, text="joint_attention_dim")


def _video(keys: Keys) -> dict[str, Any]:
    keys.must_be("patch_size_t", 1, "patches of one latent frame")
    keys.must_be("mlp_ratio", 4.0, "FFNs four times as wide")
    return _joint(keys, text="text_embed_dim") | {"frames": _FRAMES}


def _cross(keys: Keys) -> dict[str, Any]:
    """Layers whose tokens see each other, then the prompt's."""
    heads, width = keys.whole("num_attention_heads"), keys.whole("attention_head_dim")
    patch, channels = keys.wholes("patch_size"), keys.whole("in_channels")
    if patch and (len(patch) != 3 or patch[0] != 1 or patch[1] != patch[2]):
        keys.complain("patch_size", f"got {patch}; only patches of one latent frame, as high as wide, are modelled")
        patch = []
    side = patch[1] if patch else 1
    return {
        "hidden": heads * width,
        "heads": heads,
        "head_dim": width,
        "ffn": keys.whole("ffn_dim"),
        "inputs": channels * side**2,
        "outputs": keys.whole("out_channels", channels) * side**2,
        "side": _SIDE * side,
        "frames": _FRAMES,
        "cross": keys.layers("num_layers"),
        "text_width": keys.whole("text_dim"),
    }


#: how each class of diffusers is read, and how many tokens its pipeline makes of a prompt
FAMILIES: dict[str, tuple[Callable[[Keys], dict[str, Any]], int]] = {
    "FluxTransformer2DModel": (_packed, 512),
    "SD3Transformer2DModel": (_plain, 333),
    "HunyuanVideoTransformer3DModel": (_video, 256),
    "WanTransformer3DModel": (_cross, 512),
}


def is_denoiser(path: Path) -> bool:
    """Whether a JSON file says that it is of a diffusion transformer that is read."""
    try:
        found = reading.parse_json(reading.read_text(path), str(path))
    except InputError:
        return False
    return isinstance(found, dict) and found.get("_class_name") in FAMILIES


def load_denoiser(name_or_path: str | Path, *, base: Path | None = None) -> DenoiserSpec:
    """A built-in denoiser by name, or a ``config.json`` (or the folder it lies in) by path.

    base: folder a relative path starts from, beside the working folder. Raises InputError with all problems of a file.
    """
    path = reading.find(str(name_or_path), DENOISERS, "diffusion transformer", pattern="*.json", base=base)
    if path.is_dir():
        path = path / "config.json"
    text, file = reading.read_text(path), str(path)
    data = reading.parse_json(text, file)
    if not isinstance(data, dict):
        raise InputError(Problem(f"expected an object of keys and values, got {type(data).__name__}", file, 1))
    keys = Keys({**data, "model_type": data.get("_class_name")}, file, text)
    family = data.get("_class_name")
    if not isinstance(family, str) or family not in FAMILIES:
        near = did_you_mean(str(family or ""), FAMILIES, limit=len(FAMILIES))
        keys.complain("_class_name", f"got {family!r}, no diffusion transformer that cmsim reads. {near}")
        raise InputError(keys.problems)
    read, tokens = FAMILIES[family]
    sizes = read(keys)
    if keys.problems:
        raise InputError(keys.problems)
    own = data.get("_cmsim")
    said: dict[str, Any] = {}
    if isinstance(own, dict) and "beside" in own:
        said["beside"] = str(own["beside"])
    name = path.parent.resolve().name if path.name == "config.json" else path.stem
    return DenoiserSpec(name=name, family=family, text_tokens=tokens, **sizes, **said)


__all__ = ["DENOISERS", "FAMILIES", "DenoiserSpec", "is_denoiser", "load_denoiser"]
