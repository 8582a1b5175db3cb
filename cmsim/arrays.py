"""Arrays by what they hold; their shapes and units stand where they are used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
#: half as wide, where there is one for each of a million ranks or members of groups
Shorts = NDArray[np.int32]
#: of either width
Numbers = NDArray[np.integer]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
