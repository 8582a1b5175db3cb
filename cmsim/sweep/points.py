"""Points as they are done, in this process, in others, or on a Dask cluster. What is wrong with one fails that one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim import api, side_by_side
from cmsim.errors import InputError, Problem
from cmsim.execution.together import outcomes_of
from cmsim.results import Outcome
from cmsim.scenario import Run

#: what a scheduler has to answer within [s]
PATIENCE_s = 10
#: points that go to a worker at once, at most, and how many of these each worker has ahead
_AT_ONCE, _PACKETS = 16, 50


def each(
    runs: Mapping[str, Run], base: Path | None, jobs: int | None, dask: str | None
) -> Generator[tuple[str, Outcome]]:
    """What becomes of each point, by its digest, as they come.

    base   folder that paths of the scenario start from    jobs, dask   as of `sweep`
    """
    if not runs:
        return
    if dask is not None:
        yield from _on_dask(runs, base, jobs, dask)
        return
    work = functools.partial(several, base)
    yield from zip(runs, side_by_side.in_packets(work, work, list(runs.values()), jobs), strict=True)


def point(base: Path | None, one: Run) -> Outcome:
    """What becomes of a point; what is wrong with its input is a reason like others."""
    try:
        return api.evaluate(one, api.machines_of(base))
    except InputError as error:
        return api.failed(one, str(error))


def several(base: Path | None, runs: Sequence[Run]) -> Iterator[Outcome]:
    """The same of several, those that go together made together."""
    return outcomes_of(runs, api.machines_of(base), functools.partial(point, base))


def _packet(base: Path | None, runs: Sequence[Run]) -> list[Outcome]:
    return list(several(base, runs))


def _on_dask(
    runs: Mapping[str, Run], base: Path | None, jobs: int | None, address: str
) -> Iterator[tuple[str, Outcome]]:
    """Packets on workers. Of a worker that is lost they go to others; a point that several died of has failed."""
    with _client(address, jobs) as client:
        from distributed import KilledWorker, as_completed

        digests = list(runs)
        size = max(1, min(_AT_ONCE, len(digests) // _PACKETS))
        work = functools.partial(_packet, None if base is None else base.absolute())
        packets = [digests[at : at + size] for at in range(0, len(digests), size)]

        def submitted(packet: list[str]) -> Any:
            future = client.submit(work, [runs[digest] for digest in packet], pure=False)
            mine[future.key] = packet
            return future

        mine: dict[str, list[str]] = {}
        under_way = as_completed([submitted(packet) for packet in packets])
        for future in under_way:
            packet = mine.pop(future.key)
            try:
                yield from zip(packet, future.result(), strict=True)
            except KilledWorker as error:
                if len(packet) == 1:
                    yield packet[0], api.failed(runs[packet[0]], f"{error}: no worker lived through it")
                else:  # which of them it was, each shows by itself
                    under_way.update([submitted([one]) for one in packet])


def _client(address: str, jobs: int | None) -> Any:
    """A client of a scheduler, or of workers that are started for it. Raises InputError where that is not possible."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(Problem("needs the package distributed: pip install 'cmsim[distributed]'", "--dask")) from None
    if address == "local":
        cluster = LocalCluster(
            n_workers=jobs or side_by_side.cores(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # that it ends is no news
        )
        return _Closing(Client(cluster), cluster)
    try:
        return Client(address, timeout=PATIENCE_s)
    except (ValueError, TypeError) as error:
        message = f"got '{address}': {error}. Allowed: the address of a Dask scheduler, tcp://HOST:PORT, or local"
        raise InputError(Problem(message, "--dask")) from None
    except (OSError, TimeoutError) as error:
        message = (
            f"no Dask scheduler answers at {address} within {PATIENCE_s} s ({error or type(error).__name__}). "
            "Start one with `dask scheduler` and `dask worker ADDRESS`, or take `--dask local`"
        )
        raise InputError(Problem(message, "--dask")) from None


class _Closing:
    """A client whose workers end with it."""

    def __init__(self, client: Any, cluster: Any):
        self.client, self.cluster = client, cluster

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.cluster.close()


__all__ = ["PATIENCE_s", "each", "point", "several"]
