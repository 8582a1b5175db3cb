"""A policy of the user's own: one function of Python, asked at each instant at which something happened.

It is somebody's program. It is run only where that was allowed, and what it gives is looked at.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InputError, Problem

_SHOWN = 80


@dataclass(frozen=True)
class Offer:
    """What a policy sees. Columns cannot be written to.

    now_s     the time [s]
    waiting   name -> column, a row per job that waits, as submitted: job (its number), accelerators, priority, team
              (its name, or ""), submit_s, and expected_s (expected length on the fastest machine that it may run on,
              of what is left of it) [s]
    machines  name -> free (accelerators of each domain), size (the same of an empty machine)
    """

    now_s: float
    waiting: Mapping[str, NDArray[Any]]
    machines: Mapping[str, Mapping[str, NDArray[Any]]]


PolicyFunction = Callable[[Offer], Any]


def load(policy: str, base: Path | None) -> PolicyFunction:
    """The function, from a module beside the scenario, in the working folder, or installed.

    Raises InputError where there is none, and with what it says where its module cannot be imported.
    """
    module, _, name = policy.partition(":")
    try:
        found = getattr(_module(module, base), name, None)
    except Exception as error:  # a stranger's module may raise anything
        raise _wrong(policy, f"its module raised {type(error).__name__}: {error}") from error
    if not callable(found):
        raise _wrong(policy, f"{module} has no function {name!r}")
    its: PolicyFunction = found
    return its


def _module(name: str, base: Path | None) -> Any:
    for folder in (base, Path.cwd()):
        path = None if folder is None else folder / (name.replace(".", "/") + ".py")
        if path is not None and path.is_file():
            spec = importlib.util.spec_from_file_location(f"cmsim_policy_{name.replace('.', '_')}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            # what the module defines may look for it there while it is read
            sys.modules[spec.name] = module
            try:
                spec.loader.exec_module(module)
            finally:
                del sys.modules[spec.name]
            return module
    return importlib.import_module(name)


def asked(policy: str, function: PolicyFunction, offer: Offer) -> list[int]:
    """Rows of ``waiting`` to start, in this order, each where there is room. Raises InputError for anything else."""
    at = f"at {offer.now_s:.10g} s"
    try:
        answer = function(offer)
        given = list(answer) if isinstance(answer, Iterable) else None
    except Exception as error:  # so may a stranger's function
        raise _wrong(policy, f"{at} it raised {type(error).__name__}: {error}") from error
    count = len(offer.waiting["job"])
    if given is None:
        raise _wrong(policy, f"{at} it returned {_short(answer)}, which is no list of rows of `waiting`{_to(count)}")
    out: list[int] = []
    for one in given:
        if isinstance(one, bool) or not isinstance(one, int | np.integer) or not 0 <= one < count:
            raise _wrong(policy, f"{at} it returned {_short(answer)}: {_short(one)} is no row of `waiting`{_to(count)}")
        out.append(int(one))
    if len(set(out)) < len(out):
        raise _wrong(policy, f"{at} it returned {_short(answer)}, where a row stands twice{_to(count)}")
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _to(count: int) -> str:
    return f". Allowed: each of 0 to {count - 1} once, or none"


def _wrong(policy: str, message: str) -> InputError:
    return InputError(Problem(f"{policy}: {message}", key="policy"))
