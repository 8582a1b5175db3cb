"""How often a checkpoint is best, and what a job then takes: closed forms."""

from __future__ import annotations

import math


def young_s(stall_s: float, mtbf_s: float) -> float:
    """Work between two checkpoints. [s]

    sqrt(2 d M)

    Source: Young, Commun. ACM 17(9), 1974, doi:10.1145/361147.361115.

    >>> round(young_s(60, 11124), 3)
    1155.37
    """
    return math.sqrt(2 * stall_s * mtbf_s)


def daly_s(stall_s: float, mtbf_s: float) -> float:
    """Work between two checkpoints. [s]

    sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d, and M where d is 2 M or more.

    Source: Daly, Future Gener. Comput. Syst. 22(3), 2006, eq. 37, doi:10.1016/j.future.2004.11.016.

    >>> round(daly_s(60, 11124), 3)
    1115.716
    """
    if stall_s >= 2 * mtbf_s:
        return mtbf_s
    share = stall_s / (2 * mtbf_s)
    return math.sqrt(2 * stall_s * mtbf_s) * (1 + math.sqrt(share) / 3 + share / 9) - stall_s


def goodput(interval_s: float, stall_s: float, restart_s: float, mtbf_s: float) -> float:
    """Work over the clock under exponential failures, which come while it saves and starts again, too. [1]

    tau / (M e^(R/M) (e^((tau + d)/M) - 1))

    Source: Daly, 2006, eq. 13.

    >>> round(goodput(1155.37, 60, 600, 11124), 6)
    0.852407
    """
    if math.isinf(mtbf_s):
        return interval_s / (interval_s + stall_s)
    exponent = (interval_s + stall_s) / mtbf_s
    if exponent + restart_s / mtbf_s > 700:  # the largest double
        return 0.0
    return interval_s / (mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1(exponent))
