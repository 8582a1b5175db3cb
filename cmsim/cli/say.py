"""What the program says: errors, JSON, tables, notes, progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.errors import CmsimError, InputError, Problem

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: columns that a table may have where nobody says how wide the screen is, a pipe or a file: it stays one
WHOLE = 10_000
#: columns of a screen as it is thought of, for notes and for tables that are made for no screen
WIDTH = 100
#: space between two columns
GAP = 2
#: a bar appears once something takes longer [s]
PATIENCE_s = 2.0
#: more notes than these are only counted
_NOTES = 12
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])")


def errors(error: CmsimError) -> None:
    """One line per problem on stderr: ``error: FILE:LINE: KEY: message``."""
    for line in str(error).splitlines():
        print(f"error: {plain(here(line))}", file=sys.stderr)


def message(text: str) -> None:
    """A line for the reader, not part of the result."""
    print(plain(here(text)), file=sys.stderr)


def line(text: str) -> None:
    """A line of the result."""
    print(plain(here(text)))


def text(of: str) -> None:
    """A text that is the result, as it is."""
    print(plain(of), end="")


def plain(of: str) -> str:
    r"""Text that moves no cursor and turns no line round: what files call things is shown, never obeyed.

    >>> plain("\x1b]0;x\x07"), plain("\u202eabc")
    ('\\x1b]0;x\\x07', '\\u202eabc')
    """
    return of if of.isprintable() else _OBEYED.sub(lambda found: ascii(found[0])[1:-1], of)


#: control characters but line breaks and tabs, marks of direction, halves of characters
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def here(text: str) -> str:
    """Text with paths below the working folder as the user would type them."""
    folder = Path.cwd()
    return text if folder == folder.parent else text.replace(f"{folder}{os.sep}", "")


def document(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    """What JSON does not know: NumPy's numbers, mappings that are no dict, paths."""
    if hasattr(value, "item"):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else str(value)


def console(*, stderr: bool = False) -> Console:
    """A console on stdout (or stderr) as it is now; what goes into a pipe or a file keeps its full width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else WHOLE
    return Console(file=stream, width=wide, highlight=False, emoji=False)


def prose(width: int) -> int:
    """The width of running text on a console of that width: as wide as it is, but no line without an end."""
    return WIDTH if width == WHOLE else width


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    left: Sequence[int] = (0,),
    whole: Sequence[int] = (),
    bare: bool = False,
    marked: str = "",
) -> Table:
    """A table of text; columns are set to the right, but those of ``left``.

    whole: columns whose cells are not broken    bare: no heads and lines    marked: a word that stands out
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(
        title=Text(plain(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=None if bare else box.SIMPLE_HEAD,
        show_header=not bare,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # the box adds one
        header_style="cyan",
    )
    for i, head in enumerate(heads):
        out.add_column(Text(plain(head)), justify="left" if i in left else "right", overflow="fold", no_wrap=i in whole)
    for row in rows:
        cells = [Text(plain(cell)) for cell in row]
        for cell in cells:
            if marked:
                cell.highlight_words([marked], "yellow")
        out.add_row(*cells)
    return out


def show(*parts: Any) -> None:
    """Tables and lines on stdout, an empty line between them."""
    to = console()
    with to.capture() as captured:
        for i, part in enumerate(parts):
            if i:
                to.print()
            if isinstance(part, str):
                to.print(plain(part), markup=False)
            else:
                to.print(part)
    text = captured.get()
    # cells are padded; in a file or a pipe that is only in the way
    print(text if to.is_terminal else "\n".join(line.rstrip() for line in text.split("\n")), end="")


def broken(name: str) -> str:
    """A long name on several lines, broken after its underscores, and its longest word within.

    >>> broken("energy_per_token").splitlines(), broken("batch_per_accelerator").splitlines()
    (['energy_', 'per_', 'token'], ['batch_', 'per_', 'accel-', 'erator'])
    """
    lines = [""]
    for part in re.findall(r"[^_-]+[_-]?", name.replace("accelerator", "accel-erator").replace("microb", "micro-b")):
        if lines[-1] and len(lines[-1]) + len(part) > 8:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def notes(texts: Sequence[str], width: int) -> str:
    """Notes below tables, a dash before each."""
    shown = list(texts[:_NOTES]) + [f"and {len(texts) - _NOTES} more (--json has all)"] * (len(texts) > _NOTES)
    return "\n".join(
        textwrap.fill(note, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for note in shown
    )


def template(text: str) -> str:
    """A note without its numbers: notes with equal ones say the same thing of several runs."""
    return _NUMBER.sub("{}", text)


def merged(texts: Iterable[str]) -> list[tuple[str, str]]:
    """(note, its template), each once; where notes differ in one number, its range.

    >>> [note for note, _ in merged(["load is 1.2 times", "load is 1.6 times", "load is 1.4 times", "other"])]
    ['load is 1.2 to 1.6 times', 'other']
    """
    alike: dict[str, list[tuple[str, list[str]]]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(template(text), []).append((text, _NUMBER.findall(text)))
    out = []
    for shape, group in alike.items():
        first, numbers = group[0]
        columns = list(zip(*(found for _, found in group), strict=True))
        differing = [i for i, column in enumerate(columns) if len(set(column)) > 1]
        if len(differing) == 1:
            ordered = sorted(columns[differing[0]], key=lambda number: float(number.replace(",", "")))
            parts = iter([*numbers[: differing[0]], f"{ordered[0]} to {ordered[-1]}", *numbers[differing[0] + 1 :]])
            out.append((_NUMBER.sub(lambda _, given=parts: next(given), first), shape))  # type: ignore[misc]
        else:
            out.append((first + (f" (and {len(group) - 1} alike)" if len(group) > 1 else ""), shape))
    return out


def settings(given: Sequence[str]) -> dict[str, Any]:
    """``--set key=value`` as dotted keys and values; values are read as YAML.

    >>> settings(["network=ideal", "sweep.x=[1, 2e3]"])
    {'network': 'ideal', 'sweep.x': [1, 2000.0]}
    """
    from cmsim.reading import parse_yaml

    out: dict[str, Any] = {}
    problems = []
    for one in given:
        key, equals, text = one.partition("=")
        if not equals or not key.strip():
            problems.append(Problem(f"got {one!r}; write key=value", "--set"))
            continue
        try:
            data = parse_yaml(f"value: {text}", "--set").data
        except InputError as error:
            problems.append(Problem(f"{text!r} is {error.problems[0].message}", "--set", key=key.strip()))
            continue
        if set(data) != {"value"}:
            problems.append(Problem(f"{text!r} is not one value", "--set", key=key.strip()))
            continue
        out[key.strip()] = data["value"]
    if problems:
        raise InputError(problems)
    return out


class Bar:
    """Progress on stderr, drawn once something has taken longer than `PATIENCE_s`; nothing where nobody looks."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        self.on = sys.stderr.isatty() and not quiet
        self.clock = clock
        self.start_s = clock()
        self.drawn: Any = None

    def __call__(self, what: str, share: float) -> None:
        if not self.on or (self.drawn is None and self.clock() - self.start_s < PATIENCE_s):
            return
        if self.drawn is None:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
            self.drawn = Progress(*columns, console=console(stderr=True), transient=True)
            self.drawn.start()
            self.task = self.drawn.add_task(plain(what), total=1.0, completed=share)
        self.drawn.update(self.task, description=plain(what), completed=share)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.drawn is not None:
            self.drawn.stop()
