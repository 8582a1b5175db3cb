"""Ending an event at once."""

from __future__ import annotations

import simpy


def fire(event: simpy.Event) -> None:
    """End an event within this instant and tell who waits for it now, not after a turn through the queue.

    What `simpy.Environment.step` does with an event it takes from the queue. Order inside an instant decides nothing
    here (rates are solved at its end), and most events of a run end so: it saves a quarter of the run.
    """
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    event._ok = True
    event._value = None
    for callback in callbacks:
        callback(event)
