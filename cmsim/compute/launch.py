"""When kernels run that a host launches one by one, or all at once as a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def eager_ends_s(kernel_s: ArrayLike, host_s: ArrayLike) -> NDArray[np.float64]:
    """End of each kernel of a stream when the host issues them in order. [s]

    Kernel i starts when it is issued (l_i, the running sum of ``host_s``) and its forerunner has ended:
    end_i = max(l_i, end_{i-1}) + k_i. With K the running sum of k this is K + running maximum of l - (K - k),
    without a loop.

    kernel_s: device time of each kernel [s]    host_s: host time to issue each, or one number for all [s]

    >>> eager_ends_s([3.0, 3.0, 9.0, 1.0], 5.0).tolist()
    [8.0, 13.0, 24.0, 25.0]
    """
    k = np.asarray(kernel_s, np.float64)
    issued = np.cumsum(np.broadcast_to(np.asarray(host_s, np.float64), k.shape))
    busy = np.cumsum(k)
    ends: NDArray[np.float64] = busy + np.maximum.accumulate(issued - (busy - k))
    return ends


def graph_ends_s(kernel_s: ArrayLike, *, graph_s: float, gap_s: float) -> NDArray[np.float64]:
    """End of each kernel of a graph launched once: ``graph_s``, then ``gap_s`` before every kernel. [s]

    >>> graph_ends_s([3.0, 3.0], graph_s=10.0, gap_s=1.0).tolist()
    [14.0, 18.0]
    """
    ends: NDArray[Any] = graph_s + np.cumsum(np.asarray(kernel_s, np.float64) + gap_s)
    return ends
