"""The page on Panel, and its server. Each person who opens it has an object of their own; what was played is for all.

A field that changes is answered at once from what is known. What is not known yet is played by one thread for all who
ask, so that nobody waits for the page itself, and after it the question is played whole.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cmsim.errors import CmsimError, InputError, Problem
from cmsim.scenario import Scenario
from cmsim.ui import drawn
from cmsim.ui.form import FilledForm, FormField
from cmsim.ui.told import WhatIsKnown
from cmsim.ui.whatif import Answer, WhatIf

T = TypeVar("T")
_HERE = Path(__file__).parent
#: where it is served unless somebody says otherwise: nobody else's machine reaches it there
LOOPBACK = "127.0.0.1"
#: after the last change, before the question is played whole [s]
_SETTLED_s = 0.25
#: what may be taken along: name of the button, of the file, and its kind
_FILES = {
    "scenario": ("Scenario", "what_if.yaml", "text/yaml"),
    "report": ("Report", "what_if.html", "text/html"),
    "frames": ("Frames", "what_if.zip", "application/zip"),
}


@functools.lru_cache(maxsize=1)
def _panel() -> Any:
    """The library. Raises InputError where it is not there."""
    try:
        import panel
    except ImportError:
        raise InputError(Problem("needs the package panel: pip install 'cmsim[ui]'", key="ui")) from None
    return panel


@functools.lru_cache(maxsize=1)
def _controls() -> Any:
    """The class of the form: its fields go to the browser, what is filled in comes back as a message."""
    import param
    from panel.custom import JSComponent

    class Controls(JSComponent):  # type: ignore[misc]
        groups = param.List(default=[])
        files = param.Dict(default={})
        file = param.Dict(default={})
        _esm = _HERE / "form.js"

        def __init__(self, told: Callable[[dict[str, Any]], None], **params: Any):
            self._told_of = told
            super().__init__(**params)

        def _handle_msg(self, msg: Any) -> None:
            self._told_of(msg if isinstance(msg, dict) else {})

    return Controls


class PersonsPage:
    """One person's page: what they filled in, and what is shown of it.

    known, worker  what was played for all, and the thread that plays    start  the scenario that it is filled in from
    """

    def __init__(self, known: WhatIsKnown, worker: ThreadPoolExecutor, start: Scenario | None = None):
        self._pn = _panel()
        self.model = WhatIf(known, start)
        self._worker = worker
        self._question = 0  # how often something was asked
        self._turn = 0  # what the browser calls it
        self.answer = Answer(self.model.form.kind)
        css = (_HERE / "parts.css").read_text(encoding="utf-8")
        looks = {"stylesheets": [css], "sizing_mode": "stretch_width", "margin": 0}
        files = {name: label for name, (label, *_) in _FILES.items()}
        self.form = _controls()(self.told, groups=self._groups(), files=files, **looks)
        self.parts = {name: self._pn.pane.HTML("", **looks) for name in ("said", "chart", "table", "why")}

    def page(self) -> Any:
        """What is served."""
        text = (_HERE / "page.html").read_text(encoding="utf-8")
        page = self._pn.Template(text)
        page.add_panel("form", self.form)
        for name, part in self.parts.items():
            page.add_panel(name, part)
        if self._pn.state.curdoc is not None:
            self._pn.state.on_session_destroyed(lambda _: self.leave())
        self.ask()
        return page

    def told(self, message: dict[str, Any]) -> None:
        """What the browser says: fields that changed, or a file that is wanted."""
        if isinstance(values := message.get("values"), dict):
            turn = message.get("turn")
            self._turn = turn if isinstance(turn, int) else 0
            self.model.change(values)
            if (groups := self._groups()) and _shape(groups) != _shape(self.form.groups):
                self.form.groups = groups
            self.ask()
        elif (name := message.get("file")) in _FILES:
            self._pn.state.execute(functools.partial(self._take, str(name)))

    def ask(self) -> None:
        """Answers at once, and goes on with what takes longer."""
        self._question += 1
        self.answer = self.model.answer()
        self._show()
        if not self.answer.error:
            self._pn.state.execute(functools.partial(self._go_on, self._question))

    async def _go_on(self, question: int) -> None:
        """Prepares what is missing, plays the question, then what may be asked next; until something else is asked."""
        scenario = self.answer.scenario
        while self.answer.missing:
            await self._away(question, self.model.prepare, scenario)
            if question != self._question:
                return
            self.answer = self.model.answer()
            self._show()
            if self.answer.error:
                return
        await asyncio.sleep(_SETTLED_s)
        if question != self._question:
            return
        played = await self._away(question, self.model.play, self.answer)
        if question != self._question or played is None:
            return
        self.answer = played
        self._show()
        while await self._away(question, self.model.more, scenario):
            if question == self._question:  # loads that are there now are in the chart
                self.answer = dataclasses.replace(self.answer, lines=self.model.answer().lines)
                self._show()

    async def _away(self, question: int, work: Callable[..., T], *of: Any) -> T | None:
        """What the one thread that plays gives for it; None where the question is no more asked when it is its turn."""

        def still() -> T | None:
            return work(*of) if question == self._question else None

        return await asyncio.get_running_loop().run_in_executor(self._worker, still)

    def leave(self) -> None:
        """Nobody looks any more."""
        self._question += 1

    async def _take(self, name: str) -> None:
        """Makes a file and sends it."""
        _, called, kind = _FILES[name]
        loop = asyncio.get_running_loop()
        make = {
            "scenario": lambda _: self.model.yaml().encode(),
            "report": self.model.report,
            "frames": self.model.frames,
        }
        try:
            scenario = self.model.scenario()
            self._show(f"making {called} …")
            content = await loop.run_in_executor(self._worker, make[name], scenario)
        except CmsimError as error:
            self.parts["said"].object = drawn.shown(
                Answer(self.answer.kind, error=str(error)),
                self.model.colour,
                doing="no file",
                state="none",
                turn=self._turn,
            ).said
            return
        # the same file asked for twice is sent twice
        self.form.file = {}
        self.form.file = {"name": called, "kind": kind, "text": base64.b64encode(content).decode()}
        self._show()

    def _show(self, doing: str = "") -> None:
        answer = self.answer
        doing, state = (doing, "busy") if doing else _doing(answer)
        shown = drawn.shown(answer, self.model.colour, doing=doing, state=state, turn=self._turn)
        for name, part in self.parts.items():
            if name == "said" or not (answer.error or (name == "why" and not answer.played)):
                part.object = getattr(shown, name)
            # what was right before stays, and is seen to be of the question before
            part.css_classes = [] if part.object == getattr(shown, name) else ["stale"]

    def _groups(self) -> list[dict[str, Any]]:
        values = self.model.form.values
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in self.model.fields:
            groups.setdefault(one.group, []).append(_field(one, values[one.name]))
        return [{"name": name, "fields": fields} for name, fields in groups.items()]


def _field(one: FormField, value: Any) -> dict[str, Any]:
    said = {"name": one.name, "label": one.label, "look": one.look, "values": list(one.values)}
    return {**said, "shown": one.shown(), "value": value}


def _shape(groups: Sequence[dict[str, Any]]) -> list[Any]:
    """Fields without what is filled in."""
    return [[group["name"], *({**one, "value": None} for one in group["fields"])] for group in groups]


def _doing(answer: Answer) -> tuple[str, str]:
    """What is being done for an answer, as a sentence and as a word."""
    if answer.error:
        return "What stood here before is of the question before.", "none"
    if answer.missing:
        return f"Playing steps of {', '.join(answer.missing)}: a new plan takes a second or some …", "busy"
    if answer.played:
        return "Played: what `cmsim run` says of this scenario.", "played"
    return "Told from steps that were played; the question itself is played once you rest.", "told"


def serve(
    *, port: int = 0, address: str = LOOPBACK, origins: Sequence[str] = (), start: Scenario | None = None
) -> tuple[Any, str]:
    """(a server of the page, which listens and does not run yet; where it is). `run` runs it.

    port     0: one that is free    address  of this machine; others reach it anywhere but at `LOOPBACK`
    origins  whose pages may talk to it beside its own: HOST:PORT    start  as of `PersonsPage`

    Raises InputError where the library is not there, where nothing can listen there, for an origin that is none, and
    for a scenario that the page cannot ask.
    """
    panel = _panel()
    from bokeh.server.util import create_hosts_allowlist as hosts_of

    if not address or ":" in address:  # origins are HOST:PORT, which has no place for one of IPv6
        raise InputError(Problem(f"must be a name or an address of IPv4, got {address!r}", key="--address"))
    if start is not None:
        FilledForm.of_scenario(start)
    known, worker = WhatIsKnown(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="cmsim-ui")
    port = port or _free(address)
    allowed = [*(f"{host}:{port}" for host in dict.fromkeys((address, LOOPBACK, "localhost"))), *origins]
    try:
        hosts_of(allowed, port)  # the library looks at them when it listens already
        server = panel.io.server.get_server(
            {"/": lambda: PersonsPage(known, worker, start).page()},
            port=port,
            address=address,
            websocket_origin=allowed,
            title="cmsim: what if",
        )
    except OSError as error:
        raise InputError(
            Problem(f"cannot listen at {address}:{port}: {error.strerror or error}", key="--port")
        ) from None
    except ValueError as error:  # what the library says of a host
        raise InputError(Problem(f"{error}; write HOST:PORT", key="--allow-origin")) from None
    return server, f"http://{address}:{port}/"


def run(server: Any) -> None:
    """Runs a server until somebody ends the process: Ctrl-C, or SIGTERM."""
    loop = server.io_loop
    with contextlib.suppress(NotImplementedError):  # there are systems without
        loop.asyncio_loop.add_signal_handler(signal.SIGTERM, loop.stop)
    server.start()
    with contextlib.suppress(KeyboardInterrupt):
        loop.start()
    server.stop()


def _free(address: str) -> int:
    """A port that nobody has."""
    try:
        with socket.create_server((address, 0)) as one:
            return int(one.getsockname()[1])
    except OSError as error:
        raise InputError(Problem(f"cannot listen at {address}: {error.strerror or error}", key="--address")) from None


__all__ = ["LOOPBACK", "PersonsPage", "run", "serve"]
