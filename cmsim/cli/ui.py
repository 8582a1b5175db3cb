"""``cmsim ui``: a live page of what-if questions."""

from __future__ import annotations

from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app


@app.command()
def ui(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="Scenario that the page is filled in from: its first workload of each kind, without its sweep.",
            show_default=False,
            autocompletion=complete.scenarios,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
    address: Annotated[
        str, typer.Option(help="Where to listen. Anywhere but at 127.0.0.1 others reach it, and there is no password.")
    ] = "127.0.0.1",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Whose pages may talk to it beside its own. May be repeated."),
    ] = None,
) -> None:
    """Ask what if, in a browser: systems, model, workload, plan and load; chart and table follow. Ends with Ctrl-C."""
    from cmsim.scenario import load_scenario
    from cmsim.ui.page import run, serve

    start = load_scenario(scenario) if scenario is not None else None
    server, place = serve(port=port, address=address, origins=allow_origin or (), start=start)
    if not _loopback(address):
        say.message(
            f"warning: {address} is no address of this machine alone: whoever reaches it can ask, without a password, "
            "and name files of this machine in scenarios"
        )
    say.line(place)
    if open_:
        server.io_loop.add_callback(server.show, "/")
    run(server)


def _loopback(address: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
