"""Send and receive: one message from one rank to another.

    T = alpha + S/B

Leaves out: the protocol (eager or rendezvous) and the gap to the next message (``loggp``).
Source: Hockney, Parallel Computing 20(3), 389-398, 1994, doi:10.1016/S0167-8191(06)80021-9.
"""

from __future__ import annotations

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, any_peers, leaving, nothing

SOURCE = "Hockney 1994, doi:10.1016/S0167-8191(06)80021-9"


def send_recv_s(size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of one message. [s]

    T = alpha + S/B
    size_B: S, the message [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> send_recv_s(400.0, alpha_s=1.0, bandwidth_Bps=100.0)
    5.0
    """
    return alpha_s + size_B / bandwidth_Bps


def _send(ranks: int) -> Schedule:
    return Schedule(1, [[Send(0, ranks - 1, (0,))]] if ranks > 1 else [])


SEND_RECV = (
    Algorithm(
        name="send_recv",
        collective="send_recv",
        steps=any_peers,
        sent=any_peers,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, any_peers(p) / b),
        schedule=_send,
        source=SOURCE,
        # one message has one NIC, however many the node has
        rotates=False,
    ),
)
