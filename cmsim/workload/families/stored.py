"""The number formats that a config's ``quantization_config`` says its weights are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmsim.workload.families.keys import Keys


@dataclass(frozen=True)
class Stored:
    """Formats of linear layers (``units.BYTES_PER_ELEMENT``), and the words of the file that say so.

    kv_cache  that of the cache, None where the file says none    partly  layers beside the head stay in 16 bits
    blocks    weights have a scale for each block of a matrix, and so products are summed up block by block
    """

    weights: str
    activations: str
    said: str
    kv_cache: str | None = None
    partly: bool = False
    blocks: bool = False


#: methods with one format. Source: transformers, utils/quantization_config.py (QuantizationMethod)
_METHODS = {
    "fp8": ("fp8", "fp8"),
    "fbgemm_fp8": ("fp8", "fp8"),
    "finegrained_fp8": ("fp8", "fp8"),
    "mxfp4": ("fp4", "bf16"),
}
#: methods that say bits, and keep activations in 16
_BITS = {"gptq", "awq", "auto-round", "auto_round", "autoround", "hqq", "bitsandbytes", "intel/auto-round", "vptq"}
#: of a 4-bit whole number the size is that of the 4-bit float; products run in the activations' format
_OF_BITS = {4: "fp4", 8: "int8"}
#: layers that are left as they were, and those among them that runs keep in 16 bits anyway
_EXCEPT = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "llm_int8_skip_modules")
_PLAIN = ("lm_head", "embed", "router", "gate.weight", "norm")
_ALGORITHMS = {
    "FP8": ("fp8", "fp8"),
    "FP8_PB_WO": ("fp8", "fp8"),
    "NVFP4": ("fp4", "fp4"),
    "W4A8_AWQ": ("fp4", "fp8"),
    "W4A16_AWQ": ("fp4", "bf16"),
    "W4A16": ("fp4", "bf16"),
    "W8A16": ("int8", "bf16"),
    "W8A8_SQ_PER_CHANNEL": ("int8", "int8"),
}


def stored_in(outer: Keys, keys: Keys) -> Stored | None:
    """What the whole file or its text tower says; a method that is not known is noted."""
    config = keys.get("quantization_config")
    config = outer.data.get("quantization_config") if config is None else config
    config = outer.data.get("compression_config") if config is None else config
    keys.spared("compression_config")
    if config is None or config == {}:
        return None
    if not isinstance(config, dict):
        keys.complain("quantization_config", f"expected keys and values, got {config!r}")
        return None
    method = str(config.get("quant_method") or config.get("quant_algo") or "")
    found = _formats(config)
    if found is None:
        keys.notes.append(
            f"quantization_config of method '{method}' is not known: weights are taken to be in 16 bits unless the "
            "scenario's precision says otherwise"
        )
        return None
    blocks = bool(config.get("weight_block_size"))
    return Stored(*found, _said(config, method), _cache(config), _partly(config), blocks)


def _formats(config: Mapping[str, Any]) -> tuple[str, str] | None:
    method = str(config.get("quant_method", "")).lower()
    if method in _METHODS:
        return _METHODS[method]
    if method in _BITS:
        bits = config.get("bits", config.get("w_bit", config.get("nbits")))
        if method == "bitsandbytes":
            bits = 4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else bits
        return (_OF_BITS[bits], "bf16") if type(bits) is int and bits in _OF_BITS else None
    if method in ("compressed-tensors", "compressed_tensors"):
        return _groups(config.get("config_groups"))
    algorithm = config.get("quant_algo")
    inner = config.get("quantization")
    if algorithm is None and isinstance(inner, dict):
        algorithm = inner.get("quant_algo")
    return _ALGORITHMS.get(str(algorithm).upper())


def _groups(groups: object) -> tuple[str, str] | None:
    """The one format of all groups of layers; None where they differ."""
    if not isinstance(groups, dict) or not groups:
        return None
    found = set()
    for group in groups.values():
        if not isinstance(group, dict):
            return None
        weights = _number(group.get("weights"))
        found.add((weights, _number(group.get("input_activations")) or "bf16"))
    (only, *more) = found
    return None if more or only[0] is None else (str(only[0]), only[1])


def _number(given: object) -> str | None:
    if not isinstance(given, dict):
        return None
    bits, kind = given.get("num_bits"), str(given.get("type", "int"))
    if bits == 8:
        return "fp8" if kind == "float" else "int8"
    return "fp4" if bits == 4 else None


def _cache(config: Mapping[str, Any]) -> str | None:
    inner = config.get("quantization")
    algorithm = config.get("kv_cache_quant_algo") or (isinstance(inner, dict) and inner.get("kv_cache_quant_algo"))
    if algorithm in ("FP8", "INT8"):
        return str(algorithm).lower()
    scheme = _number(config.get("kv_cache_scheme"))
    return scheme if scheme in ("fp8", "int8") else None


def _partly(config: Mapping[str, Any]) -> bool:
    """Whether layers are left as they were that runs keep in the format of all others: head and router are not."""
    for key in _EXCEPT:
        names = config.get(key)
        if isinstance(names, list) and any(not any(one in str(name) for one in _PLAIN) for name in names):
            return True
    return False


def _said(config: Mapping[str, Any], method: str) -> str:
    for key in ("fmt", "bits", "quant_algo", "format"):
        if config.get(key) not in (None, ""):
            return f"{method}, {key} {config[key]}"
    return method
