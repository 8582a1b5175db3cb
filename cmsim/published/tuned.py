"""Limits of a scheduler that a benchmark derives from a model, a machine and lengths, where nobody sets them.

The benchmark of TensorRT-LLM takes the memory of all accelerators less the weights, and of that a share for caches; as
many whole requests as these hold are begun at once, and in the steady state a step has the tokens that they make and
those of prompts that come for them:

    requests = share (memory - weights) / ((prompt + answer) bytes of a cached token)
    tokens   = sequences (1 + prompt / answer)

Both are bounded, and rounded up; prompts are not cut, so that a step also has room for one beside all sequences.

Source: NVIDIA/TensorRT-LLM, bench/build/tuning.py (04cba882) and bench/benchmark/utils/general.py (0171265e).
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: of memory that weights leave, for caches
_CACHES = 0.95
_MOST_SEQUENCES, _MOST_TOKENS = 4096, 32768
#: (below, at least, in multiples of)
_SEQUENCES = ((256, 64, 32), (1024, 0, 128), (math.inf, 0, 256))
_TOKENS = ((4096, 2048, 256), (8192, 0, 512), (math.inf, 0, 1024))


class TunedLimits(NamedTuple):
    """sequences: begun at once [1]    step_tokens: of prompts and sequences in one step [1]"""

    sequences: int
    step_tokens: int


def tuned(memory_B: float, weights_B: float, token_B: float, *, prompt: int, answer: int) -> TunedLimits:
    """Limits of an engine.

    memory_B: of all its accelerators [B]    weights_B: of one copy of the model [B]
    token_B: a cached token of it, over all accelerators [B]    prompt, answer: tokens of a request [1]

    >>> tuned(79.65 * 2**30, 8.03e9, 65536, prompt=2048, answer=2048)
    TunedLimits(sequences=384, step_tokens=2432)
    """
    requests = _CACHES * (memory_B - weights_B) / (token_B * (prompt + answer))
    raw = min(requests, _MOST_SEQUENCES)
    sequences = _rounded(raw, _SEQUENCES)
    step_tokens = _rounded(min(raw * (1 + prompt / answer), _MOST_TOKENS), _TOKENS)
    return TunedLimits(sequences, max(step_tokens, prompt + sequences))


def _rounded(value: float, steps: tuple[tuple[float, int, int], ...]) -> int:
    least, of = next((least, of) for below, least, of in steps if value < below)
    return max(least, of * math.ceil(value / of))
