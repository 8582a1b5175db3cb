"""The version, and that of the forms other programs read, alone so that any room may name them."""

from __future__ import annotations

__version__ = "0.1.0"
#: of scenarios, folders and documents on stdout: grows where a reader of the older form would be misled
SCHEMA_VERSION = 1


def unread(found: object) -> str:
    """Why what says this ``schema_version`` is not read; nothing where it is, as all older ones are.

    >>> unread(1), unread(99)
    ('', '99; this cmsim reads 1. A newer one wrote it: `pip install --upgrade cmsim` reads it')
    """
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= SCHEMA_VERSION:
        return ""
    reads = "1" if SCHEMA_VERSION == 1 else f"1 to {SCHEMA_VERSION}"
    newer = isinstance(found, int) and found > SCHEMA_VERSION
    advice = ". A newer one wrote it: `pip install --upgrade cmsim` reads it" if newer else ""
    return f"{found!r}; this cmsim reads {reads}{advice}"
