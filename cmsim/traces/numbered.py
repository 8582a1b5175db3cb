"""Which ranks the files of a folder are of, where their names say it and their content does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmsim.reading.bytes_in import bad

_AFTER_WORD = re.compile(r"(?:rank|worker)[-_.]?(\d{1,7})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def numbered(names: Sequence[str]) -> list[int] | None:
    """Numbers of file names that count from 0, each once: those after "rank" or "worker", else those of one place.

    None: no place in the names does. Dates, batch sizes, steps and process ids are numbers too, and no ranks.

    >>> numbered(["step3_rank1.json", "step3_rank0.json"]), numbered(["et_0.json", "et_1.json"])
    ([1, 0], [0, 1])
    >>> numbered(["trace_4.json", "trace_5.json"]) is None, numbered(["bs_32.json"]) is None
    (True, True)
    """
    wanted = list(range(len(names)))
    words = [found[1] if (found := _AFTER_WORD.search(name)) else "" for name in names]
    each = [_NUMBER.findall(name) for name in names]
    places = range(max((len(one) for one in each), default=0))
    ways = [words]
    # from the end first: hosts and dates stand before, endings are alike
    ways += [[one[-1 - place] if place < len(one) else "" for one in each] for place in places]
    ways += [[one[place] if place < len(one) else "" for one in each] for place in places]
    for way in ways:
        if all(0 < len(text) < 8 for text in way):
            numbers = [int(text) for text in way]
            if sorted(numbers) == wanted:
                return numbers
    return None


def ranks_of(folder: Path, said: Mapping[Path, int], meets: Mapping[Path, bool]) -> dict[int, Path]:
    """Files by rank, ascending.

    said   rank that each file says, -1 where it says none
    meets  whether it names communicators: else it is a recording of its own, whatever number its name has

    A file alone that says nothing is rank 0. Raises InputError naming the files where ranks are not known or not
    different.
    """
    silent = [path for path in said if said[path] < 0]
    names = numbered([path.name for path in said]) if silent and len(said) > 1 else None
    number = dict(zip(said, names, strict=True)) if names else {}
    out: dict[int, Path] = {}
    for path, rank in said.items():
        if rank < 0 and len(said) > 1:
            if path not in number or not meets[path]:
                raise bad(folder, _unknown([one.name for one in silent], names is not None))
            rank = number[path]
        rank = max(rank, 0)
        if rank in out:
            raise bad(folder, f"rank {rank} has two files ({out[rank].name}, {path.name}); keep one of them")
        out[rank] = path
    return dict(sorted(out.items()))


def _unknown(names: Sequence[str], alone: bool) -> str:
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    why = (
        "they name no communicators: each is a recording of its own"
        if alone
        else "their names are not numbered 0 to n-1, one a rank"
    )
    return f"nothing says which rank {listed} is of, and {why}; name one file, or keep the files of one job"
