"""BurstGPT: requests to a campus service by second, model and kind of client; later files also say the session.

Source: github.com/HPMLL/BurstGPT, README. Response tokens of 0 are failed requests.
"""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Label, Real, Whole
from cmsim.reading.tables import header_names, read_table
from cmsim.requests.requests import Requests, monotonic, requests_of

NAME = "burstgpt"
TIME, INPUT, OUTPUT, TOTAL = "Timestamp", "Request tokens", "Response tokens", "Total tokens"
SESSION, MODEL, LOG = "Session ID", "Model", "Log Type"


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return {TIME, INPUT, OUTPUT} <= set(header_names(start))


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    label = {MODEL: Label(), LOG: Label(), SESSION: Label()}
    table = read_table(
        path,
        {TIME: Real(), INPUT: Whole(), OUTPUT: Whole()},
        optional={TOTAL: Whole(high=2 * 10**9), **label},
        limit_B=limit_B,
    )
    failed = table[OUTPUT] == 0
    table.refuse((table[INPUT] < 1) & ~failed, INPUT, "at least 1 where tokens were generated")
    notes = table.notes()
    differ = int((table[TOTAL] != table[INPUT] + table[OUTPUT]).sum()) if TOTAL in table else 0
    if differ:
        notes.append(f"'{TOTAL}' of {differ} requests is not the sum of the other two: not used")
    facts = {
        "header": list(table.header),
        "requests": len(table),
        "request_tokens": int(table[INPUT].sum()),
        "response_tokens": int(table[OUTPUT].sum()),
        "zero_output": int(failed.sum()),
        "monotonic": monotonic(table[TIME]),
        "span_s": float(table[TIME].max() - table[TIME].min()),
    }
    facts |= {name: label[name].counts(table[name]) for name in (MODEL, LOG) if name in table}
    if SESSION in table:
        facts["sessions"] = len(label[SESSION].names)
    return requests_of(
        NAME,
        path,
        arrival_s=table[TIME],
        input_tokens=table[INPUT],
        output_tokens=table[OUTPUT],
        session=table.get(SESSION),
        labels={name: (label[name].names, table[name]) for name in (MODEL, LOG) if name in table},
        failed=failed,
        facts=facts,
        notes=notes,
    )
