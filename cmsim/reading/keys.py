"""Dotted keys, and mappings laid over mappings."""

from __future__ import annotations

import re
from typing import Any

from cmsim.errors import InputError, Problem

#: digits of a whole number in 64 bits
_DIGITS = 18
#: names that a dotted key joins
_DEEPEST = 32


def whole(text: str) -> bool:
    """Whether a text is a whole number from 0 on, as people write one and as the machine holds it.

    >>> whole("12"), whole("-1"), whole("²"), whole("9" * 400)
    (True, False, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def parts_of(key: str) -> list[str]:
    """Names of a dotted key.

    >>> parts_of("systems[0].set.host.pue")
    ['systems', '0', 'set', 'host', 'pue']
    """
    return re.sub(r"\[([0-9]+)\]", r".\1", key).split(".")


def set_dotted(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set ``a.b.0.c`` (or ``a.b[0].c``) in nested data, in place.

    Mappings on the way are made where they are absent, for a file leaves out what has a default; a misspelt
    one is found when the data is validated. Raises InputError where the way leads through a value or past
    the end of a list.

    >>> data = {"links": [{"GBps": 50}]}
    >>> set_dotted(data, "links[0].GBps", 100, where="--set")
    >>> set_dotted(data, "host.pue", 1.1, where="--set")
    >>> data
    {'links': [{'GBps': 100}], 'host': {'pue': 1.1}}
    """
    parts = parts_of(key)
    if len(parts) > _DEEPEST:
        raise InputError(Problem(f"a key of {len(parts)} names; allowed: {_DEEPEST}", where, key=f"{key[:40]}..."))
    if not all(parts):
        raise InputError(Problem("a key has names joined by dots, none of them empty", where, key=key))
    here: Any = data
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(here, list):
            if not whole(part) or int(part) >= len(here):
                raise InputError(Problem(f"no entry '{part}' in a list of {len(here)}", where, key=key))
            step: Any = int(part)
        elif isinstance(here, dict):
            step = int(part) if part not in here and whole(part) and int(part) in here else part
            if not last and here.get(step) is None:
                here[step] = {}
        else:
            raise InputError(Problem(f"'{'.'.join(parts[:i])}' is {here!r} and has no keys below it", where, key=key))
        if last:
            here[step] = value
        else:
            here = here[step]


def merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: mappings merge key by key, everything else is replaced. Neither is changed.

    >>> merge({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}})
    {'a': 1, 'b': {'c': 2, 'd': 3}}
    """
    if isinstance(base, dict) and isinstance(over, dict):
        out = dict(base)
        for key, value in over.items():
            out[key] = merge(base[key], value) if key in base else value
        return out
    return over
