"""A shell script walked through without running it: which commands it would start, with which arguments.

Nothing is executed. Variables, sums, arrays, branches, loops, functions, here-documents and the usual programs that
turn text into text are worked out; files are read only where the caller's ``read`` finds one, and written only into a
dictionary. What a program of the machine would say is not known, and stays visible (`values.unknown`). Steps, texts and
depth are bounded.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping

from cmsim.errors import InputError, Problem
from cmsim.launch.shell.arithmetic import SumError
from cmsim.launch.shell.builtins import BUILTINS
from cmsim.launch.shell.checks import Checker
from cmsim.launch.shell.expand import Expander
from cmsim.launch.shell.filters import FILTERS, NotWorkedOutError
from cmsim.launch.shell.parse import ShellParser
from cmsim.launch.shell.patterns import matches
from cmsim.launch.shell.syntax import (
    AndOr,
    Assign,
    Braces,
    CaseClause,
    Check,
    Count,
    Define,
    For,
    If,
    Math,
    Node,
    Pipeline,
    Redirect,
    Simple,
    While,
    Word,
)
from cmsim.launch.shell.values import HOLE, Said, is_unknown, shown, unknown
from cmsim.launch.shell.variables import Leave, Started, Value, Variables

#: commands within commands, and programs that are noted
DEEPEST, MOST_COMMANDS = 40, 2_000


class Shell(Variables):
    """Walks through one script. ``read`` gives the text of a file that the script names, or None."""

    def __init__(
        self,
        file: str,
        *,
        path: str = "script.sh",
        args: tuple[str, ...] = (),
        given: Mapping[str, str] | None = None,
        read: Callable[[str], str | None] = lambda _: None,
        depth: int = 0,
    ):
        super().__init__(file, given or {})
        self.path = path
        self.positional = list(args)
        self.read = read
        self.depth = depth
        self.functions: dict[str, Define] = {}
        self.files: dict[str, str] = {}
        self.started: list[Started] = []
        self.comments: dict[int, str] = {}
        self.status = 0
        self.left: tuple[int, int] | None = None
        self.folder = "."
        self.temporary = 0
        self.saved: list[dict[str, Value | None]] = []
        self.sinks: list[list[str]] = []
        self.given: str | None = None  # what a pipe or a redirection puts in front of a command
        self.expand = Expander(self)

    # the script

    def script(self, text: str, *, line: int = 1) -> None:
        """Walk through a script to its end. InputError where it is none, or takes too long."""
        try:
            parser = ShellParser(text, self.file, line)
            body = parser.script()
            self.comments |= parser.scan.comments
            self.run(body)
        except Leave as left:
            if left.what == "exit":
                self.left = (left.count, self.steps)
        except RecursionError:
            raise InputError(Problem("lies too deep in itself to be worked out", self.file)) from None

    def within(self, text: str, line: int) -> None:
        """Text as commands of this shell: eval, source, a command substitution."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail(f"commands lie deeper than {DEEPEST} in each other", line)
        try:
            self.run(ShellParser(text, self.file, line).script())
        finally:
            self.depth -= 1

    # what pages of this room ask of it

    def is_there(self, name: str, *, folder: bool, line: int) -> bool:
        if not folder and (name in self.files or self.read(name) is not None):
            return True
        self.note(f"'{name}' is not there, as far as is known here", line)
        return False

    def content(self, name: str) -> str | None:
        return self.files[name] if name in self.files else self.read(name)

    def write(self, text: str) -> None:
        if self.sinks:
            self.sinks[-1].append(text)

    def captured(self, run: Callable[[], None]) -> str:
        self.sinks.append([])
        try:
            run()
        finally:
            out = "".join(self.sinks.pop())
        self.spend(len(out) // 100, 0)
        return out

    def output(self, text: str, line: int) -> str:
        """What a command substitution becomes."""
        text = text.strip()
        if text.startswith("<"):
            content = self.content(self.expand.quoted_text(text[1:].strip().strip("\"'"), line))
            return unknown(f"$({text})") if content is None else content.rstrip("\n")
        before = dict(self.variables)
        folder, positional = self.folder, list(self.positional)

        def run() -> None:
            with contextlib.suppress(Leave):
                self.within(text, line)

        out = self.captured(run).rstrip("\n")
        self.variables, self.folder, self.positional = before, folder, positional
        if is_unknown(out):
            out = unknown(f"$({text})") if shown(out) == out.strip("\ue000\ue001") else out
        return out

    # commands

    def run(self, body: list[AndOr]) -> None:
        for one in body:
            self.spend(1, one.line)
            for sign, pipeline in one.parts:
                if (sign == "&&" and self.status) or (sign == "||" and not self.status):
                    continue
                self.pipeline(pipeline)

    def pipeline(self, pipeline: Pipeline) -> None:
        given = self.given
        for n, command in enumerate(pipeline.commands):
            last = n + 1 == len(pipeline.commands)
            if last:
                self.given = given
                self.node(command)
            else:
                self.given = given
                given = self.captured(lambda command=command: self.node(command))  # type: ignore[misc]
        self.given = None
        if pipeline.negated:
            self.status = int(not self.status)

    def node(self, node: Node) -> None:
        self.spend(1, node.line)
        if isinstance(node, Simple):
            self.simple(node)
        elif isinstance(node, Define):
            self.functions[node.name] = node
            self.status = 0
        elif isinstance(node, Math):
            self.status = self.math(node.text, node.line)
        elif isinstance(node, Check):
            self.status = int(not Checker(self, node.words, node.line, double=True).value())
        else:
            self.redirected(node.redirects, lambda: self.compound(node), node.line)

    def math(self, text: str, line: int) -> int:
        """1 where a sum is zero, as a status."""
        if not text.strip():
            return 1
        try:
            return int(not self.expand.evaluator(line).value(self.expand.quoted_text(text, line)))
        except SumError as error:
            self.note(f"(({text.strip()})) {error}; taken as false", line)
            return 1

    def compound(self, node: Node) -> None:
        if isinstance(node, Braces):
            self.block(node)
        elif isinstance(node, If):
            for check, body in node.branches:
                self.run(check)
                if not self.status:
                    self.run(body)
                    return
            self.status = 0
            self.run(node.otherwise)
        elif isinstance(node, For):
            values = (
                list(self.positional) if node.words is None else [t for w in node.words for t in self.expand.texts(w)]
            )
            self.loop(iter(values), lambda value: self.put(node.name, value), node.body, node.line)
        elif isinstance(node, Count):
            self.math(node.start, node.line)
            self.loop(self.counted(node), None, node.body, node.line)
        elif isinstance(node, While):
            self.loop(self.checked(node), None, node.body, node.line)
        elif isinstance(node, CaseClause):
            self.case(node)

    def block(self, node: Braces) -> None:
        if not node.apart:
            self.run(node.body)
            return
        before = {
            name: list(v) if isinstance(v, list) else dict(v) if isinstance(v, dict) else v
            for name, v in self.variables.items()
        }
        folder = self.folder
        try:
            self.run(node.body)
        except Leave as left:
            if left.what != "exit":
                raise
            self.status = left.count
        finally:
            self.variables, self.folder = before, folder

    def loop(self, turns, take, body: list[AndOr], line: int) -> None:  # type: ignore[no-untyped-def]
        for value in turns:
            self.spend(1, line)
            if take is not None:
                take(value)
            try:
                self.run(body)
            except Leave as left:
                if left.what not in ("break", "continue"):
                    raise
                if left.count > 1:
                    raise Leave(left.what, left.count - 1) from None
                if left.what == "break":
                    break

    def counted(self, node: Count):  # type: ignore[no-untyped-def]
        while not node.check.strip() or not self.math(node.check, node.line):
            yield None
            self.math(node.step, node.line)

    def checked(self, node: While):  # type: ignore[no-untyped-def]
        given = self.given
        lines = given.splitlines() if given is not None else None
        while True:
            self.given = None
            if lines is not None:
                self.given = "\n".join(lines) + "\n" if lines else ""
            self.run(node.check)
            if lines is not None:
                lines = lines[1:]
            self.given = None
            if bool(self.status) != node.until:
                self.status = 0
                return
            yield None

    def case(self, node: CaseClause) -> None:
        text = self.expand.text(node.word)
        if is_unknown(text):
            self.note(f"case on '{shown(text)}', which only a run would tell: only * is taken", node.line)
        through = False
        for patterns, body, end in node.arms:
            if through or any(self._matched(pattern, text) for pattern in patterns):
                self.run(body)
                if end == ";&":
                    through = True
                    continue
                if end == ";;&":
                    continue
                return

    def _matched(self, pattern: Word, text: str) -> bool:
        made = self.expand.pattern(pattern)
        return made == "*" if is_unknown(text) else matches(made, text)

    # simple commands

    def simple(self, node: Simple) -> None:
        for name in [word for word in node.words[:1] if isinstance(word, Word)]:
            if name.bare in self.functions and name.bare not in ("command",):
                break
        if not node.words:
            self.status = 0
            for assign in node.assigns:
                self.assign(assign)
            self.redirected(node.redirects, lambda: None, node.line)
            return
        argv: list[str] = []
        declared: dict[int, Assign] = {}
        for word in node.words:
            if isinstance(word, Assign):
                declared[len(argv)] = word
                argv.append(word.name)
            else:
                argv += self.expand.texts(word)
        if not argv:
            for assign in node.assigns:
                self.assign(assign)
            return
        self.redirected(node.redirects, lambda: self.command(argv, node, declared), node.line)

    def command(self, argv: list[str], node: Simple, declared: dict[int, Assign]) -> None:
        front: dict[str, Value | None] = {}
        for assign in node.assigns:
            front[assign.name] = self.variables.get(assign.name)
            self.assign(assign)
        try:
            self.call(argv, node.line, declared, tuple(front))
        finally:
            for name, value in front.items():
                if value is None:
                    self.variables.pop(name, None)
                else:
                    self.variables[name] = value

    def call(
        self, argv: list[str], line: int, declared: Mapping[int, Assign] | None = None, front: tuple[str, ...] = ()
    ) -> None:
        """A command by its words: a function, a builtin, a filter, or a program that is noted."""
        self.spend(1, line)
        name = argv[0]
        if name in self.functions:
            self.function(name, argv[1:], line)
        elif name in BUILTINS:
            self.status = BUILTINS[name](self, argv, line, declared or {})
        elif name.rpartition("/")[2] in FILTERS:
            self.filter(name.rpartition("/")[2], argv, line)
        else:
            self.start(argv, line, front)

    def function(self, name: str, args: list[str], line: int) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail(f"functions call each other deeper than {DEEPEST}", line)
        before, self.positional = self.positional, args
        refs = dict(self.refs)
        self.saved.append({})
        try:
            self.status = 0
            self.node(self.functions[name].body)
        except Leave as left:
            if left.what != "return":
                raise
            self.status = left.count
        finally:
            for variable, value in self.saved.pop().items():
                if value is None:
                    self.variables.pop(variable, None)
                else:
                    self.variables[variable] = value
            self.positional, self.refs = before, refs
            self.depth -= 1

    def filter(self, name: str, argv: list[str], line: int) -> None:
        given = self.given or ""
        self.status = 0
        if any(is_unknown(arg) for arg in argv[1:]) and name not in (
            "echo",
            "printf",
            "dirname",
            "basename",
            "realpath",
            "readlink",
        ):
            self.write(unknown(" ".join(argv)))
            return
        if is_unknown(given) and name not in ("echo", "printf", "seq"):
            self.write(unknown(f"{given} | {' '.join(argv)}"))
            return
        args = argv[1:]
        if name in ("sed", "grep", "awk", "cut", "head", "tail", "wc", "sort") and self.given is None and args:
            content = self.content(args[-1])
            if content is not None and len(args) > 1:
                given, args = content, args[:-1]
        if name == "xargs" and args and args != ["echo"]:
            self.call(_with_args(args, given, self.content), line)
            return
        try:
            out = FILTERS[name](args, given)
        except NotWorkedOutError as error:
            self.note(f"'{shown(' '.join(argv))[:60]}' is not worked out ({error})", line)
            out = unknown(" ".join(argv))
        if name == "grep" or name == "egrep":
            self.status = int(not out)
            out = "" if any("q" in arg for arg in args if arg.startswith("-")) else out
        self.write(out)

    def start(self, argv: list[str], line: int, front: tuple[str, ...] = ()) -> None:
        """A program: what it would get is noted, what it would say is not known."""
        if len(self.started) < MOST_COMMANDS:
            environment = {name: self.get(name) for name in self.variables if isinstance(self.variables[name], str)}
            exported = {name: environment[name] for name in environment if name in self.exports or name in front}
            words = tuple(word if isinstance(word, Said) else Said(word, line) for word in argv)
            self.started.append(Started(words, environment, line, exported, self.given))
        self.status = 0
        self.write(unknown(" ".join(argv)))

    def assign(self, assign: Assign) -> None:
        if assign.elements is not None:
            self._assign_elements(assign)
            return
        assert assign.value is not None
        value = self.expand.text(assign.value)
        if assign.name in self.integers:
            value = self.expand.sum(f"{self.get(assign.name) or 0}+({value})" if assign.append else value, assign.line)
            self.put(assign.name, value)
            return
        value = value if isinstance(value, Said) else Said(value, assign.line)
        index = self.expand._key(assign.name, assign.index, assign.line) if assign.index is not None else None
        self.put(assign.name, value, index, append=assign.append)

    def _assign_elements(self, assign: Assign) -> None:
        assert assign.elements is not None
        name = self.real(assign.name)
        old = self.variables.get(name)
        if isinstance(old, dict) or (any(key is not None for key, _ in assign.elements) and self._named(assign)):
            made: dict[str, str] = dict(old) if assign.append and isinstance(old, dict) else {}
            for key, word in assign.elements:
                if key is not None:
                    made[self.expand.quoted_text(key, assign.line).strip("'\"")] = self.expand.text(word)
            self.variables[name] = made
            return
        values: list[str] = []
        if assign.append:
            values = list(old) if isinstance(old, list) else [str(old)] if old else []
        for key, word in assign.elements:
            if key is not None and key.isdigit() and int(key) < 10_000:
                values += [HOLE] * (int(key) + 1 - len(values))
                values[int(key)] = self.expand.text(word)
            else:
                values += self.expand.texts(word)
            if len(values) > 20_000:
                raise self.fail(f"the array {assign.name} has more than 20000 elements", assign.line)
        self.variables[name] = values

    def _named(self, assign: Assign) -> bool:
        return any(key is not None and not key.isdigit() for key, _ in assign.elements or ())

    # redirections

    def redirected(self, redirects: list[Redirect], run: Callable[[], None], line: int) -> None:
        into: str | None = None
        more = False
        for redirect in redirects:
            if redirect.op == "<<":
                self.given = redirect.body if redirect.literal else self.expand.quoted_text(redirect.body, line)
            elif redirect.op == "<<<":
                self.given = self.expand.text(redirect.target) + "\n"
            elif redirect.op == "<":
                name = self.expand.text(redirect.target)
                content = self.content(name)
                self.given = unknown(f"< {name}") if content is None else content
            elif redirect.op in (">", ">>", ">|", "&>", "&>>") and redirect.fd in ("", "1"):
                into, more = self.expand.text(redirect.target), redirect.op in (">>", "&>>")
        if into is None:
            run()
            return
        text = self.captured(run)
        if into == "/dev/stderr" or into == "/dev/null":
            return
        text = (self.content(into) or "") + text if more else text
        if len(self.files) < 200 and len(text) < 1_000_000:
            self.files[into] = text


def _with_args(args: list[str], given: str, content: Callable[[str], str | None]) -> list[str]:
    """The command of xargs, with the words that it is given behind it."""
    while args and args[0].startswith("-"):
        if args[0] == "-a" and len(args) > 1:
            given = content(args[1]) or ""
        args = args[2:] if args[0] in ("-a", "-n", "-I", "-P", "-L", "-d") else args[1:]
    try:
        words = shlex.split(given)
    except ValueError:
        words = given.split()
    return [*(args or ["echo"]), *words[:5_000]]
