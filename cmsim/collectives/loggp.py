"""LogGP: what many messages from one rank cost.

    one message       T = o + (k - 1) G + L + o
    m messages        T = o + (m - 1) max(g, o, k G) + (k - 1) G + L + o
    binomial reduce   T = ceil(log2 p) (2 o + L + (k - 1) G)

L is the wire's latency, o the overhead of sender and of receiver, g the gap between messages, G the gap per byte, k
the bytes of a message. Hockney's alpha is 2 o + L and his 1/B is G; what he loses is the (m - 1) g of a rank with
hundreds of peers.

Leaves out: contention in the network.
Source: Alexandrov, Ionescu, Schauser and Scheiman, SPAA 1995, doi:10.1145/215399.215427; example of LogGOPSim's README.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import Column, ceil_log2


def message_s(size_B: Column, *, L_s: Column, o_s: Column, G_s_per_B: Column) -> Column:
    """Time of one message. [s]

    T = o + (k - 1) G + L + o
    size_B: k [B]    L_s: latency [s]    o_s: overhead at either end [s]    G_s_per_B: gap per byte [s/B]

    >>> message_s(11, L_s=2.0, o_s=1.0, G_s_per_B=0.1)
    5.0
    """
    return 2 * o_s + L_s + (size_B - 1) * G_s_per_B


def messages_s(messages: Column, size_B: Column, *, L_s: Column, o_s: Column, g_s: Column, G_s_per_B: Column) -> Column:
    """Time until the last of several equal messages from one rank has arrived. [s]

    T = o + (m - 1) max(g, o, k G) + (k - 1) G + L + o
    messages: m [1]    size_B: k [B]    L_s: latency [s]    o_s: overhead at either end [s]
    g_s: gap between messages [s]    G_s_per_B: gap per byte [s/B]

    >>> float(messages_s(3, 11, L_s=2.0, o_s=1.0, g_s=4.0, G_s_per_B=0.1))
    13.0
    """
    gap = np.maximum(np.maximum(g_s, o_s), size_B * G_s_per_B)
    return message_s(size_B, L_s=L_s, o_s=o_s, G_s_per_B=G_s_per_B) + (messages - 1) * gap


def binomial_reduce_s(ranks: Column, size_B: Column, *, L_s: Column, o_s: Column, G_s_per_B: Column) -> Column:
    """Time until the root of a binomial reduce has heard everything, arithmetic left out. [s]

    T = ceil(log2 p) (2 o + L + (k - 1) G)
    ranks: p [1]    size_B: k [B]    L_s: latency [s]    o_s: overhead at either end [s]
    G_s_per_B: gap per byte [s/B]

    >>> float(binomial_reduce_s(8, 11, L_s=2.0, o_s=1.0, G_s_per_B=0.1))
    15.0
    """
    return ceil_log2(ranks) * message_s(size_B, L_s=L_s, o_s=o_s, G_s_per_B=G_s_per_B)
