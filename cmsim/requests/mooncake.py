"""Mooncake: arrivals, lengths, and the hash of every block of 512 tokens of the prompt.

Source: github.com/kvcache-ai/Mooncake, FAST25-release/README.md and traces; Qin et al., Mooncake, FAST 2025.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.requests.lines import RealValue, WholeValue, first_keys, read_lines
from cmsim.requests.requests import Requests, monotonic, prefix_of, requests_of

NAME = "mooncake"
TIME, INPUT, OUTPUT, BLOCKS = "timestamp", "input_length", "output_length", "hash_ids"
#: tokens of a block
BLOCK_TOKENS = 512


def sniff(start: bytes, path: Path) -> bool:
    keys = first_keys(start, path)
    return {TIME, INPUT, OUTPUT, BLOCKS} <= keys and "chat_id" not in keys


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    columns = {TIME: RealValue(), INPUT: WholeValue(1), OUTPUT: WholeValue(1)}
    lines = read_lines(path, columns, lists=(BLOCKS,), limit_B=limit_B)
    time_ms, input_tokens, output_tokens = lines[TIME], lines[INPUT], lines[OUTPUT]
    blocks, size = lines.lists[BLOCKS]
    due = -(-input_tokens // BLOCK_TOKENS)
    differ = np.flatnonzero(size != due)
    if len(differ):
        row = int(differ[0])
        got = f"{size[row]} ids" if size[row] >= 0 else "nothing"
        allowed = f"{due[row]} ids, one for each {BLOCK_TOKENS} of {input_tokens[row]} tokens"
        raise lines.wrong(row, BLOCKS, f"got {got}; allowed: {allowed}")
    span_ms = float(time_ms.max() - time_ms.min())
    return requests_of(
        NAME,
        path,
        arrival_s=(time_ms - time_ms.min()) / 1e3,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prefix=prefix_of(blocks, size),
        block_tokens=BLOCK_TOKENS,
        facts={
            "keys": list(lines.keys),
            "requests": len(lines),
            "input_tokens": int(input_tokens.sum()),
            "output_tokens": int(output_tokens.sum()),
            "hash_blocks": len(blocks),
            "unique_hash_ids": len(np.unique(blocks)),
            "blocks_eq_ceil_len_512": int((size == due).sum()),
            "monotonic": monotonic(time_ms),
            "span_ms": int(span_ms) if span_ms.is_integer() else span_ms,
        },
    )
