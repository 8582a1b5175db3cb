"""What can go wrong, and how it is said.

CmsimError                  a user's mistake or a run that cannot be; never a bug of ours
├── InputError              a file, key or value is wrong: all problems of a file at once (exit code 2)
├── InfeasibleError         the input is well formed but no plan of it can run here (exit code 1)
└── FailedError             a run was played and gave nothing to trust (exit code 1)

Bugs of our own raise AssertionError and keep their traceback. Only ``cmsim.cli`` catches, prints and
sets the exit code.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where it is, what was got, what is allowed."""

    message: str
    file: str = ""
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line is not None and self.file else "")
        return ": ".join(part for part in (place, self.key, self.message) if part)


class CmsimError(Exception):
    """Base of every error a user can mend. Carries every problem that was found, in file order.

    Parameters
    ----------
    problems
        A message, a Problem (message, file, line, key), or several of them.
    """

    exit_code = 2

    def __init__(self, problems: str | Problem | Iterable[Problem]):
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception is rebuilt from its message, which would lose the places
        return type(self), (self.problems,)


class InputError(CmsimError):
    """A file, key or value is wrong."""


class InfeasibleError(CmsimError):
    """Well-formed input that this machine cannot run: it does not fit the memory, or no plan of these sizes is one.

    budget: what is needed and what is there, for machines; empty where the message says it all
    """

    exit_code = 1

    def __init__(self, problems: str | Problem | Iterable[Problem], budget: Mapping[str, Any] | None = None):
        super().__init__(problems)
        self.budget = dict(budget or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.budget)


class FailedError(CmsimError):
    """A run that was played and gave nothing to trust: ranks wait for ever, or a number fails its check."""

    exit_code = 1


#: how notes of a run begin that belong above its figures: without them these mislead
WARNING = "warning: "


class CmsimWarning(UserWarning):
    """Something that a caller should know of an answer that has no place for notes."""


def tell(notes: Iterable[str]) -> None:
    """Notes as warnings, for whoever called the function that tells. Only where the package meets its users: inside,
    notes are returned beside what they are about, for warnings go to all threads of a process."""
    for note in notes:
        warnings.warn(note, CmsimWarning, stacklevel=3)


def did_you_mean(got: str, allowed: Iterable[str], *, limit: int = 12) -> str:
    """The nearest name and the allowed ones, ready to end an error message.

    >>> did_you_mean("ringg", ["ring", "direct"])
    "Did you mean 'ring'? Allowed: direct, ring."
    """
    names = sorted(allowed)
    near = nearest(got, names)
    hint = f"Did you mean '{near}'? " if near else ""
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return f"{hint}Allowed: {', '.join(names[:limit]) or 'nothing'}{more}."


def nearest(got: str, allowed: Iterable[str]) -> str | None:
    """The closest of the allowed names, capitals apart, or None.

    >>> nearest("FP8", ["int8", "fp8"])
    'fp8'
    """
    names = {name.lower(): name for name in allowed}
    found = difflib.get_close_matches(got.lower(), list(names), n=1, cutoff=0.5)
    return names[found[0]] if found else None
