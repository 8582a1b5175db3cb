"""Requests as LLMServingSim takes them: lengths, arrivals and token ids, of which the last two may be missing.

Source: github.com/casys-kaist/LLMServingSim, workloads. Conversations come in this form too, counted by a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import LIMIT_B
from cmsim.requests.lines import NO_VALUE, Lines, WholeValue, first_keys, read_lines
from cmsim.requests.requests import Prefix, Requests, monotonic, no_prefix, prefix_of, requests_of

NAME = "llmservingsim"
TIME, INPUT, OUTPUT = "arrival_time_ns", "input_toks", "output_toks"
INPUT_IDS, OUTPUT_IDS = "input_tok_ids", "output_tok_ids"
#: tokens of the blocks that are made from token ids: what serving engines keep and share by default
BLOCK_TOKENS = 16


def sniff(start: bytes, path: Path) -> bool:
    return {INPUT, OUTPUT} <= first_keys(start, path)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    columns = {TIME: WholeValue(high=2**62, blank=True), INPUT: WholeValue(1), OUTPUT: WholeValue(1)}
    lines = read_lines(path, columns, lists=(INPUT_IDS,), counted=(OUTPUT_IDS,), limit_B=limit_B)
    time_ns, input_tokens, output_tokens = lines[TIME], lines[INPUT], lines[OUTPUT]
    other = {
        key: _others(lines.lists[key][1], tokens)
        for key, tokens in ((INPUT_IDS, input_tokens), (OUTPUT_IDS, output_tokens))
    }
    timed = time_ns != NO_VALUE
    facts = {
        "keys": list(lines.keys),
        "lines": len(lines),
        "input_tokens": int(input_tokens.sum()),
        "output_tokens": int(output_tokens.sum()),
        "with_arrival": int(timed.sum()),
    }
    arrival_s = None
    if timed.any():
        if not timed.all():
            raise lines.wrong(int(timed.argmin()), TIME, "got nothing; allowed: arrivals in all lines or in none")
        facts["monotonic"] = monotonic(time_ns)
        facts["span_ns"] = int(time_ns.max() - time_ns.min())
        arrival_s = (time_ns - time_ns.min()) / 1e9
    prefix, notes = (no_prefix(len(lines)), []) if other[INPUT_IDS] else _prefix(lines)
    notes += [
        f"'{key}' of {count} of {len(lines)} requests has more or fewer ids than tokens: lengths are taken, ids are not"
        for key, count in other.items()
        if count
    ]
    return requests_of(
        NAME,
        path,
        arrival_s=arrival_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prefix=prefix,
        block_tokens=BLOCK_TOKENS if len(prefix.block) else 0,
        facts=facts,
        notes=notes,
    )


def _others(size: Ints, tokens: Ints) -> int:
    """Requests with another number of ids than of tokens."""
    return int(((size >= 0) & (size != tokens)).sum())


def _prefix(lines: Lines) -> tuple[Prefix, list[str]]:
    ids, size = lines.lists[INPUT_IDS]
    there = int((size >= 0).sum())
    if there == len(lines):
        return token_blocks(ids, size), [f"blocks of {BLOCK_TOKENS} tokens are made from the token ids"]
    said = [f"{there} of {len(lines)} requests have token ids: what prompts share is not known"] if there else []
    return no_prefix(len(lines)), said


def token_blocks(ids: Ints, size: Ints, *, tokens: int = BLOCK_TOKENS) -> Prefix:
    """Numbers of the blocks of prompts: two are the same where all tokens up to their ends are the same.

    ids   tokens of all prompts, one prompt after another
    size  tokens of each prompt, at least 1

    Each block is known by a 64-bit sum over the prompt up to its end of a hash of token and position: two different
    prefixes fall together once in 2^64.
    """
    ptr = np.concatenate(([0], np.cumsum(size)))
    place = np.arange(len(ids)) - np.repeat(ptr[:-1], size)
    total = np.cumsum(_mixed(_mixed(ids.astype(np.uint64)) + place.astype(np.uint64)), dtype=np.uint64)
    blocks = -(-size // tokens)
    first = np.concatenate(([0], np.cumsum(blocks)))[:-1]
    end = (np.arange(blocks.sum()) - np.repeat(first, blocks) + 1) * tokens
    end = np.repeat(ptr[:-1], blocks) + np.minimum(end, np.repeat(size, blocks)) - 1
    before = np.concatenate((np.zeros(1, np.uint64), total))[ptr[:-1]]
    _, at, code = np.unique(total[end] - np.repeat(before, blocks), return_index=True, return_inverse=True)
    rank = np.empty(len(at), np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    return prefix_of(rank[code], blocks)


def _mixed(value: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
