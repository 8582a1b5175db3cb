"""What a service was asked, as columns: the one form that all readers of request traces make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import bad


@dataclass(frozen=True)
class Prefix:
    """Blocks of the prompts as CSR: row i has ``block[ptr[i]:ptr[i + 1]]``, from the first token on.

    Two prompts that begin with the same n blocks begin with the same n blocks of tokens, and need their keys and
    values once. The last block of a prompt may be shorter than the others.
    """

    ptr: Ints
    block: Ints


@dataclass(frozen=True)
class Requests:
    """One row per request, in order of arrival.

    arrival_s      from the first request, NaN where the format has no arrivals [s]
    input_tokens   tokens of the prompt, at least 1
    output_tokens  tokens generated, at least 1
    prefix         blocks of the prompts; no blocks at all where ``block_tokens`` is 0
    block_tokens   tokens of a block, 0 where the file does not say what prompts share
    session        requests of one conversation have the same number, -1 where the file does not say
    labels         what else tells requests apart, by column: names, and the code of each request (-1: none)
    facts          what the file holds, in the words of its format: before anything was dropped or sorted
    notes          assumptions and omissions, to say beside a result
    """

    format: str
    source: str
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    prefix: Prefix
    block_tokens: int
    session: Ints
    labels: Mapping[str, tuple[tuple[str, ...], Ints]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.input_tokens)

    @property
    def has_arrivals(self) -> bool:
        return not np.isnan(self.arrival_s).any()

    def counts(self) -> dict[str, Any]:
        """What the file holds, for ``cmsim trace info``; the key ``format`` names the format."""
        return {"format": self.format, **self.facts}


def no_prefix(count: int) -> Prefix:
    return Prefix(np.zeros(count + 1, np.int64), np.empty(0, np.int64))


def prefix_of(blocks: Ints, sizes: Ints) -> Prefix:
    """Blocks of all prompts one after another, and how many each has."""
    return Prefix(np.concatenate(([0], np.cumsum(sizes))), blocks)


def monotonic(time: NDArray[Any]) -> bool:
    return bool((time[1:] >= time[:-1]).all())


def requests_of(
    format: str,
    path: Path,
    *,
    arrival_s: Floats | None,
    input_tokens: Ints,
    output_tokens: Ints,
    prefix: Prefix | None = None,
    block_tokens: int = 0,
    session: Ints | None = None,
    labels: Mapping[str, tuple[tuple[str, ...], Ints]] | None = None,
    failed: NDArray[np.bool_] | None = None,
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Requests:
    """`Requests` from columns in file order: without the failed ones, sorted by arrival (stable), from 0 on.

    arrival_s  any zero; None: the format has no arrivals
    failed     requests that made no token

    Raises InputError where no request is left.
    """
    said = list(notes)
    count = len(input_tokens)
    rows = np.arange(count)
    if failed is not None and failed.any():
        rows = rows[~failed]
        said.append(f"{count - len(rows)} of {count} requests made no token: dropped as failed")
        if not len(rows):
            raise bad(path, f"none of the {count} requests made a token")
    if arrival_s is None:
        said.append("the format has no arrivals")
        time = np.full(len(rows), np.nan)
    else:
        time = arrival_s[rows]
        back = int((time[1:] < time[:-1]).sum())
        if back:
            order = np.argsort(time, kind="stable")
            rows, time = rows[order], time[order]
            said.append(f"{back} of {len(rows)} requests arrive before the one above them: sorted by arrival")
        time = time - time[0]
    assert (input_tokens[rows] > 0).all() and (output_tokens[rows] > 0).all()
    return Requests(
        format=format,
        source=str(path),
        arrival_s=time,
        input_tokens=input_tokens[rows],
        output_tokens=output_tokens[rows],
        prefix=no_prefix(len(rows)) if prefix is None else _taken(prefix, rows),
        block_tokens=block_tokens,
        session=np.full(len(rows), -1) if session is None else session[rows],
        labels={name: (names, codes[rows]) for name, (names, codes) in (labels or {}).items()},
        facts=facts,
        notes=tuple(said),
    )


def _taken(prefix: Prefix, rows: Ints) -> Prefix:
    sizes = np.diff(prefix.ptr)[rows]
    ptr = np.concatenate(([0], np.cumsum(sizes)))
    where = np.repeat(prefix.ptr[rows] - ptr[:-1], sizes) + np.arange(ptr[-1])
    return Prefix(ptr, prefix.block[where])
