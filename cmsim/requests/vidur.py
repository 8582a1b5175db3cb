"""Requests as Vidur takes them: with arrivals, or lengths only.

Source: github.com/microsoft/vidur, data/processed_traces. Its splitwise files are the Azure traces of 2023 from 0 on.
"""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Real, Whole
from cmsim.reading.tables import header_names, read_table
from cmsim.requests.requests import Requests, monotonic, requests_of

NAME = "vidur"
TIME, INPUT, OUTPUT, TOTAL = "arrived_at", "num_prefill_tokens", "num_decode_tokens", "num_total_tokens"


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return {INPUT, OUTPUT} <= set(header_names(start))


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    table = read_table(
        path,
        {INPUT: Whole(1), OUTPUT: Whole(1)},
        optional={TIME: Real(), TOTAL: Whole(high=2 * 10**9)},
        known=("pd_ratio",),
        limit_B=limit_B,
    )
    notes = table.notes()
    differ = int((table[TOTAL] != table[INPUT] + table[OUTPUT]).sum()) if TOTAL in table else 0
    if differ:
        notes.append(f"'{TOTAL}' of {differ} requests is not the sum of the other two: not used")
    facts = {
        "header": list(table.header),
        "requests": len(table),
        "prefill_tokens": int(table[INPUT].sum()),
        "decode_tokens": int(table[OUTPUT].sum()),
    }
    if TIME in table:
        facts["monotonic"] = monotonic(table[TIME])
        facts["span_s"] = float(table[TIME].max() - table[TIME].min())
    return requests_of(
        NAME,
        path,
        arrival_s=table.get(TIME),
        input_tokens=table[INPUT],
        output_tokens=table[OUTPUT],
        facts=facts,
        notes=notes,
    )
