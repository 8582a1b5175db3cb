"""A model of several towers: its text tower, and the sizes of one that sees where its keys are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.workload.families.keys import Keys
from cmsim.workload.vision import VisionTower

#: where files keep the text tower, the first that is there
_TEXT = ("text_config", "language_config", "llm_config", "thinker_config")
_OTHERS = ("vision_config", "visual", "audio_config")
#: towers lie in towers: a thinker, and its text
_DEPTH = 3
#: no size of a tower is larger
_MOST = 10**9
_ALONE = "the text tower alone is counted and priced"
#: keys of the whole that are about the text tower too, where it does not say them itself
_SHARED = ("tie_word_embeddings", "model_type", "torch_dtype")


def text_tower(data: Mapping[str, Any], file: str, text: str) -> Keys:
    """The keys of the text tower; of a model of text alone those of the whole file."""
    notes: list[str] = []
    for _ in range(_DEPTH):
        notes += _left_out(data)
        inner = next((data[name] for name in _TEXT if isinstance(data.get(name), dict)), None)
        if inner is None:
            break
        notes = notes or [_ALONE]
        data = {**{name: data[name] for name in _SHARED if name in data}, **inner}
    keys = Keys(data, file, text)
    keys.spared(*_OTHERS)
    keys.notes += notes
    return keys


def _left_out(data: Mapping[str, Any]) -> list[str]:
    notes = []
    for name in _OTHERS:
        tower = data.get(name)
        if isinstance(tower, dict):
            kind = "audio" if name == "audio_config" else "vision"
            count = tower_parameters(tower)
            size = f"about {count / 1e9:.2f} G parameters" if count else "of unknown size"
            notes.append(f"{_ALONE}; left out: the {kind} tower, {size}")
    return notes


def tower_parameters(tower: Mapping[str, Any]) -> int:
    """Products of a transformer that sees or hears, 0 where its sizes stand under other keys. [1]"""

    def size(*names: str) -> int:
        return next((int(tower[name]) for name in names if type(tower.get(name)) is int and 0 < tower[name] < _MOST), 0)

    layers = size("num_hidden_layers", "depth", "layers", "vt_num_hidden_layers", "encoder_layers")
    width = size("embed_dim", "hidden_size", "width", "vt_hidden_size", "d_model")
    ffn = size("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim") or 4 * width
    return layers * (4 * width**2 + 2 * width * ffn)


def vision_tower(data: Mapping[str, Any], file: str, text: str) -> VisionTower | None:
    """The tower that sees, of families whose keys are known; None of others, and of models of text alone.

    Source: Hugging Face transformers, models/qwen2_5_vl and models/llama4 (configuration and modelling pages).
    """
    for name in ("vision_config", "visual"):
        found = data.get(name)
        if isinstance(found, dict):
            keys = Keys(found, file, text)
            read = next((reader for key, reader in _TOWERS if key in found), None)
            tower = read(keys, data) if read is not None else None
            return None if keys.problems else tower
    return None


def _qwen(keys: Keys, data: Mapping[str, Any]) -> VisionTower:
    """Patches of two frames, gated FFNs with biases, windows in most layers; four patches make a token."""
    layers, hidden, ffn = keys.layers("depth"), keys.whole("hidden_size"), keys.whole("intermediate_size")
    patch, merge = keys.whole("patch_size", 14), keys.whole("spatial_merge_size", 2)
    full = keys.numbers("fullatt_block_indexes", below=layers)
    wide, out = hidden * merge**2, keys.whole("out_hidden_size", int(data.get("hidden_size") or 1))
    # norms have weights alone; the projector has a norm before it, and biases
    small = layers * (2 * hidden + 4 * hidden + 2 * ffn + hidden) + hidden + wide + out
    return VisionTower(
        layers=layers,
        hidden=hidden,
        heads=keys.whole("num_heads"),
        ffn=ffn,
        gated=True,
        patch=patch,
        channels=keys.whole("in_channels", keys.whole("in_chans", 3)),
        frames=keys.whole("temporal_patch_size", 2),
        image=0,
        extra=0,
        merge=merge,
        projector=((wide, wide), (wide, out)),
        small_parameters=small,
        window=keys.whole("window_size", 0, least=0) // patch,
        full_layers=len(full),
    )


def _llama(keys: Keys, data: Mapping[str, Any]) -> VisionTower:
    """Tiles of one size with a token beside their patches; four patches make a token, through three products."""
    layers, hidden, ffn = keys.layers(), keys.whole("hidden_size"), keys.whole("intermediate_size")
    image, patch = keys.whole("image_size"), keys.whole("patch_size")
    inner, out = keys.whole("projector_input_dim"), keys.whole("projector_output_dim")
    text = data.get("text_config")
    wide = int(text["hidden_size"]) if isinstance(text, dict) and type(text.get("hidden_size")) is int else out
    rows = (image // patch) ** 2 + 1
    # two norms and six biases a layer; a token, positions, two norms
    small = layers * (4 * hidden + 4 * hidden + ffn + hidden) + hidden + rows * hidden + 4 * hidden
    return VisionTower(
        layers=layers,
        hidden=hidden,
        heads=keys.whole("num_attention_heads"),
        ffn=ffn,
        gated=False,
        patch=patch,
        channels=keys.whole("num_channels", 3),
        frames=1,
        image=image,
        extra=1,
        merge=2,
        projector=((4 * hidden, inner), (out, out), (out, wide)),
        small_parameters=small,
    )


#: by a key that only this kind of tower has
_TOWERS = (("fullatt_block_indexes", _qwen), ("pixel_shuffle_ratio", _llama))
