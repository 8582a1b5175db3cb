"""The program ``cmsim``: its commands, and what becomes of errors.

A page of commands registers functions on `app`; rooms that take long to import are imported inside them.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cmsim import collector
from cmsim.cli import say
from cmsim.errors import CmsimError, CmsimWarning
from cmsim.version import __version__

#: what a shell gives for a program that was interrupted, and for one whose reader went away
INTERRUPTED, BROKEN_PIPE = 130, 141


class Commands(TyperGroup):
    """Runs a command; a user's mistake becomes one line per problem on stderr, a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            out = super().invoke(ctx)
            sys.stdout.flush()  # a reader who went away is met here, not at the interpreter's end
            return out
        except CmsimError as error:
            say.errors(error)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # what is still buffered has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,  # noqa: ARG001  # the interpreter passes it
) -> str:
    """A warning of ours as one line for people; others, which are of the code, with their place."""
    if issubclass(category, CmsimWarning):
        return f"note: {say.plain(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


app = typer.Typer(
    name="cmsim",
    cls=Commands,
    no_args_is_help=True,
    # a bug's traceback is for whoever mends it: plain, and whole
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"cmsim {__version__}")
        raise typer.Exit


def loaded() -> None:
    """Search for reference cycles from here on, but not among what was imported, which lives to the end."""
    collector.settled()


@app.callback()
def cmsim(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  # its callback has answered it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Performance, latency and energy of AI supernodes, from one scenario file."""
    if context.invoked_subcommand not in ("run", "sweep", "search"):  # which say themselves when their rooms are there
        loaded()


# Pages register their commands when they are imported; the order here is the order of the help.
# fmt: off
from cmsim.cli import run, sweep, search, pace, compare, plot, report, ui, catalogue, show, check, schema, validate, calibrate, trace, export, new, doctor  # noqa: E402, F401, I001, E501
# fmt: on


def main() -> None:
    """Entry point of ``cmsim``."""
    # the process is the program's: `app` alone leaves it as it is
    warnings.formatwarning = _note
    collector.off()  # until a command is there: a tenth of a short run
    try:
        app(prog_name="cmsim")
    except KeyboardInterrupt:  # outside of a command: while the program starts or ends
        sys.exit(INTERRUPTED)
