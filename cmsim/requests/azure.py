"""Azure LLM inference traces: when, how many tokens in, how many out.

Source: github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and ...2024.md. The layout of 2024 is that
of 2023, with a zone behind the times.
"""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Clock, Whole, seconds
from cmsim.reading.tables import header_names, read_table
from cmsim.requests.requests import Requests, monotonic, requests_of

NAME = "azure-llm-2023"
TIME, INPUT, OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return {TIME, INPUT, OUTPUT} <= set(header_names(start))


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and line."""
    clock = Clock()
    table = read_table(path, {TIME: clock, INPUT: Whole(), OUTPUT: Whole()}, limit_B=limit_B)
    failed = table[OUTPUT] == 0
    table.refuse((table[INPUT] < 1) & ~failed, INPUT, "at least 1 where tokens were generated")
    (arrival_s,) = seconds(table[TIME])
    return requests_of(
        NAME,
        path,
        arrival_s=arrival_s,
        input_tokens=table[INPUT],
        output_tokens=table[OUTPUT],
        failed=failed,
        facts={
            "header": list(table.header),
            "requests": len(table),
            "context_tokens": int(table[INPUT].sum()),
            "generated_tokens": int(table[OUTPUT].sum()),
            "zero_output": int(failed.sum()),
            "first_timestamp": table.text(0, TIME),
            "monotonic": monotonic(table[TIME]),
            "span_s": float(arrival_s.max() - arrival_s.min()),
        },
        notes=[*clock.notes(), *table.notes()],
    )
