"""Qwen-Bailian usage traces: conversations turn by turn, with the hash of every block of 16 tokens of the prompt.

Source: github.com/alibaba-edu/qwen-bailian-usagetraces-anon, README; Wang et al., KVCache Cache in the Wild, ATC 2025.
Read from that description: no file of it was at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import LIMIT_B
from cmsim.requests.lines import LabelValue, RealValue, WholeValue, first_keys, read_lines
from cmsim.requests.requests import Requests, monotonic, prefix_of, requests_of

NAME = "qwen-bailian"
CHAT, PARENT, TIME, INPUT, OUTPUT = "chat_id", "parent_chat_id", "timestamp", "input_length", "output_length"
BLOCKS, TYPE = "hash_ids", "type"
#: tokens of a block
BLOCK_TOKENS = 16


def sniff(start: bytes, path: Path) -> bool:
    return {CHAT, PARENT, TIME, INPUT, OUTPUT} <= first_keys(start, path)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    label = LabelValue()
    columns = {CHAT: WholeValue(high=2**62), PARENT: WholeValue(-1, 2**62), TIME: RealValue()}
    columns |= {INPUT: WholeValue(1), OUTPUT: WholeValue(1), TYPE: label}
    lines = read_lines(path, columns, lists=(BLOCKS,), limit_B=limit_B)
    time_s, input_tokens, output_tokens = lines[TIME], lines[INPUT], lines[OUTPUT]
    notes = []
    session, lost = _sessions(lines[CHAT], lines[PARENT])
    if lost:
        notes.append(f"the earlier turn of {lost} of {len(lines)} requests is not above them: they begin a session")
    blocks, size = lines.lists[BLOCKS]
    size = np.maximum(size, 0)
    differ = int((size != -(-input_tokens // BLOCK_TOKENS)).sum()) if len(blocks) else 0
    if differ:
        notes.append(f"{differ} of {len(lines)} requests do not have one hash for each {BLOCK_TOKENS} tokens")
    return requests_of(
        NAME,
        path,
        arrival_s=time_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prefix=prefix_of(blocks, size),
        block_tokens=BLOCK_TOKENS if len(blocks) else 0,
        session=session,
        labels={TYPE: (label.names, lines[TYPE])},
        facts={
            "keys": list(lines.keys),
            "requests": len(lines),
            "input_tokens": int(input_tokens.sum()),
            "output_tokens": int(output_tokens.sum()),
            "hash_blocks": len(blocks),
            "unique_hash_ids": len(np.unique(blocks)),
            "sessions": int(session.max()) + 1,
            "types": label.counts(lines[TYPE]),
            "monotonic": monotonic(time_s),
            "span_s": float(time_s.max() - time_s.min()),
        },
        notes=notes,
    )


def _sessions(chat: Ints, parent: Ints) -> tuple[Ints, int]:
    """Number of the conversation of each request, and how many name an earlier turn that does not stand above them.

    chat, parent  id of the request and of the turn before it, -1: none
    """
    rows = np.arange(len(chat))
    order = np.argsort(chat, kind="stable")
    place = np.minimum(np.searchsorted(chat[order], parent), len(chat) - 1)
    above = order[place]
    # only a turn further up counts, so that no chain of turns can close on itself
    known = (parent >= 0) & (chat[above] == parent) & (above < rows)
    root = np.where(known, above, rows)
    while (root[root] != root).any():
        root = root[root]
    _, session = np.unique(root, return_inverse=True)
    return np.asarray(session, np.int64), int(((parent >= 0) & ~known).sum())
