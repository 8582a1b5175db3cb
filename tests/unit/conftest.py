"""What tests of this room have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

DENSE = {
    "model_type": "llama",
    "hidden_size": 8192,
    "num_hidden_layers": 4,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "moe_intermediate_size": 512,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 8192,
}


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Paths of two small models by name, dense and moe; others are built in."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, config in (("dense", DENSE), ("moe", MOE)):
        paths[name] = str(folder / f"{name}.json")
        (folder / f"{name}.json").write_text(json.dumps(config))
    return lambda name: paths.get(name, name)


@pytest.fixture(scope="session")
def small_service() -> Callable[..., dict[str, Any]]:
    """A service of a small model whose requests are all as long as each other; further keys as they are."""

    def of(*, rate_per_s: float, requests: int, prompt: int, output: int, **keys: Any) -> dict[str, Any]:
        return {
            "kind": "serving",
            "model": "llama-3.1-8b",
            "arrivals": {"process": "poisson", "rate_per_s": rate_per_s, "requests": requests},
            "lengths": {"prompt_tokens": prompt, "output_tokens": output},
            "sensitivity": False,
            **keys,
        }

    return of
