"""Send and receive: one message from one rank to another.

    T = alpha + S/B

Leaves out: the protocol (eager or rendezvous) and the gap to the next message.
Source: Hockney, Parallel Computing 20(3), 389-398, 1994, doi:10.1016/S0167-8191(06)80021-9.
"""

from __future__ import annotations

from cmsim.collectives.terms import Algorithm, Schedule, Send, any_peers, leaving, nothing

SOURCE = "Hockney 1994, doi:10.1016/S0167-8191(06)80021-9"


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
