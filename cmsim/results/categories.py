"""Text of frames as pandas has it where few words come again and again: numbers into a list of words.

The list is in the order in which its words come first, so that frames of a run and of the folder it was saved in are
equal. A column of a million words is then 1 MB where it was 8 or more, and is grouped and compared as numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Columns, Packed, held

if TYPE_CHECKING:
    import pandas as pd

#: kinds of arrays that hold text
TEXT = "OUT"


def column(columns: Columns, name: str) -> Any:
    """A column of a frame: text as a categorical, all else as it is."""
    if held(columns, name).dtype.kind not in TEXT:
        return columns[name]
    import pandas as pd

    part = columns.part(name) if isinstance(columns, Packed) else columns[name]
    if isinstance(part, tuple):
        # a number below 0 counts from the end of the table
        codes, used = pd.factorize(np.asarray(part[0]) % max(len(part[1]), 1))
        words = part[1][used]
        if len(set(words.tolist())) == len(words):
            return pd.Categorical.from_codes(codes, categories=pd.Index(words))
    codes, words = pd.factorize(np.asarray(columns[name], object))
    return pd.Categorical.from_codes(codes, categories=pd.Index(words))


def alone(word: str, rows: int) -> Any:
    """A column of one word."""
    import pandas as pd

    return pd.Categorical.from_codes(np.zeros(rows, np.int8), categories=pd.Index([word]))


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames below each other; a column that is a categorical in all of them stays one, with the words of all."""
    import pandas as pd

    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    made: dict[str, Any] = {}
    for name in dict.fromkeys(name for frame in frames for name in frame.columns):
        parts = [frame[name] for frame in frames if name in frame.columns]
        if len(parts) == len(frames) and all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            words = list(dict.fromkeys(word for part in parts for word in part.cat.categories))
            made[name] = pd.CategoricalDtype(words)
    out: pd.DataFrame = pd.concat([frame.astype(made) for frame in frames], ignore_index=True)
    return out
