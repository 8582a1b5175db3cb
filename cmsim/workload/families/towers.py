"""A model of several towers: its text tower is the one that is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.workload.families.keys import Keys

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
