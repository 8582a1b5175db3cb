"""Words of a shell script as commands."""

from __future__ import annotations

import re

from cmsim.launch.shell.scan import DEEPEST, Scanner
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
    WordPiece,
)

_ASSIGN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^\]=]*\])?(\+?)=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_:.-]*")
#: builtins whose arguments may be assignments, arrays too
DECLARES = frozenset({"declare", "local", "export", "readonly", "typeset"})
_ENDS = frozenset({"then", "do", "done", "fi", "else", "elif", "esac", "}", ";;", ";&", ";;&"})


class ShellParser:
    """Raises InputError with file and line for what is no shell script."""

    def __init__(self, text: str, file: str, line: int = 1):
        self.scan = Scanner(text, file, line)
        self.heredocs: list[tuple[list[Redirect], Redirect, bool]] = []
        self.depth = 0

    def script(self) -> list[AndOr]:
        out = self.commands()
        if self.scan.peek():
            raise self.scan.fail(f"'{self._next()}' ends nothing here")
        return out

    # lists

    def commands(self) -> list[AndOr]:
        """Commands up to a word that ends something, a closing bracket or the end."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.scan.fail(f"commands lie deeper than {DEEPEST} in each other")
        out: list[AndOr] = []
        while True:
            self.newlines()
            if not self.scan.peek() or self.scan.peek() == ")" or self._next() in _ENDS:
                break
            out.append(self.and_or())
            self.scan.blanks()
            if (
                self.scan.peek()
                and self.scan.peek() in ";&"
                and not self.scan.starts(";;")
                and not self.scan.starts(";&")
            ):
                self.scan.take()
        self.depth -= 1
        return out

    def newlines(self) -> None:
        while True:
            self.scan.blanks()
            if self.scan.peek() != "\n":
                return
            self.scan.take()
            self.read_heredocs()

    def read_heredocs(self) -> None:
        pending, self.heredocs = self.heredocs, []
        for among, redirect, dashed in pending:
            end = "".join(piece.body for piece in redirect.target.pieces)
            lines: list[str] = []
            while self.scan.at < len(self.scan.text):
                stop = self.scan.text.find("\n", self.scan.at)
                stop = len(self.scan.text) if stop < 0 else stop
                line = self.scan.take(stop - self.scan.at)
                self.scan.take()
                line = line.lstrip("\t") if dashed else line
                if line.rstrip("\r") == end:
                    break
                lines.append(line)
            body = "".join(f"{line}\n" for line in lines)
            literal = any(piece.quoted for piece in redirect.target.pieces)
            among[among.index(redirect)] = Redirect(redirect.op, redirect.fd, redirect.target, body, literal)

    def and_or(self) -> AndOr:
        line = self.scan.line
        parts = [("", self.pipeline())]
        while True:
            self.scan.blanks()
            for sign in ("&&", "||"):
                if self.scan.starts(sign):
                    self.scan.take(2)
                    self.newlines()
                    parts.append((sign, self.pipeline()))
                    break
            else:
                return AndOr(parts, line)

    def pipeline(self) -> Pipeline:
        line, negated = self.scan.line, False
        self.scan.blanks()
        while self._next() == "!":
            self.scan.take()
            self.scan.blanks()
            negated = not negated
        commands = [self.command()]
        while True:
            self.scan.blanks()
            if self.scan.peek() != "|" or self.scan.starts("||"):
                return Pipeline(commands, negated, line)
            self.scan.take(2 if self.scan.starts("|&") else 1)
            self.newlines()
            commands.append(self.command())

    # commands

    def command(self) -> Node:
        self.scan.blanks()
        line, word = self.scan.line, self._next()
        if self.scan.starts("(("):
            start = self.scan.at, self.scan.line
            self.scan.take(2)
            body = self.scan.upto_paren(quiet=True)
            if body is not None and self.scan.peek() == ")":
                self.scan.take()
                return Math(body, line)
            self.scan.at, self.scan.line = start
        if self.scan.peek() == "(":
            self.scan.take()
            block = Braces(self.commands(), True, line)
            self.expect(")")
            return self.redirected(block)
        made = {
            "{": self._group,
            "if": self._if,
            "for": self._for,
            "select": self._for,
            "while": self._while,
            "until": self._while,
            "case": self._case,
            "[[": self._check,
        }.get(word)
        if made is not None:
            return self.redirected(made())
        if word == "function":
            self.scan.take(len(word))
            self.scan.blanks()
            name = self._next()
            self.scan.take(len(name))
            self.scan.blanks()
            if self.scan.starts("()"):
                self.scan.take(2)
            self.newlines()
            return Define(name, self.command(), line)
        called = _NAME.match(self.scan.text, self.scan.at)
        if called and (rest := re.compile(r"[ \t]*\([ \t]*\)").match(self.scan.text, called.end())):
            self.scan.take(rest.end() - self.scan.at)
            self.newlines()
            return Define(called[0], self.command(), line)
        return self.simple()

    def redirected(self, node: Node) -> Node:
        while not isinstance(node, Simple | Define | Math | Check) and (self.redirect(node.redirects)):
            pass
        return node

    def _group(self) -> Node:
        line = self.scan.line
        self.keyword("{")
        body = self.commands()
        self.keyword("}")
        return Braces(body, False, line)

    def _if(self) -> Node:
        line = self.scan.line
        self.keyword("if")
        branches = [(self.commands(), self._then())]
        otherwise: list[AndOr] = []
        while self._next() == "elif":
            self.keyword("elif")
            branches.append((self.commands(), self._then()))
        if self._next() == "else":
            self.keyword("else")
            otherwise = self.commands()
        self.keyword("fi")
        return If(branches, otherwise, line)

    def _then(self) -> list[AndOr]:
        self.keyword("then")
        return self.commands()

    def _for(self) -> Node:
        line = self.scan.line
        self.scan.take(len(self._next()))
        self.scan.blanks()
        if self.scan.starts("(("):
            self.scan.take(2)
            parts = (self.scan.upto_paren() or "").split(";")
            self.expect(")")
            if len(parts) != 3:
                raise self.scan.fail("for ((...)) takes three parts with ; between them", line)
            return Count(parts[0], parts[1], parts[2], self._do(), line)
        name = self._next()
        self.scan.take(len(name))
        self.newlines()
        words: list[Word] | None = None
        if self._next() == "in":
            self.scan.take(2)
            words = self.words()
        return For(name, words, self._do(), line)

    def words(self) -> list[Word]:
        out: list[Word] = []
        while True:
            self.scan.blanks()
            word = self.scan.word()
            if word is None:
                return out
            out.append(word)

    def _do(self) -> list[AndOr]:
        self.scan.blanks()
        if self.scan.peek() == ";":
            self.scan.take()
        self.newlines()
        if self._next() == "{":
            self.keyword("{")
            body = self.commands()
            self.keyword("}")
            return body
        self.keyword("do")
        body = self.commands()
        self.keyword("done")
        return body

    def _while(self) -> Node:
        line, word = self.scan.line, self._next()
        self.scan.take(len(word))
        check = self.commands()
        return While(check, self._do(), word == "until", line)

    def _case(self) -> Node:
        line = self.scan.line
        self.keyword("case")
        self.scan.blanks()
        word = self.scan.word()
        if word is None:
            raise self.scan.fail("case takes a word", line)
        self.newlines()
        self.keyword("in")
        arms: list[tuple[list[Word], list[AndOr], str]] = []
        while True:
            self.newlines()
            if self._next() == "esac":
                self.keyword("esac")
                return CaseClause(word, arms, line)
            if self.scan.peek() == "(":
                self.scan.take()
            patterns: list[Word] = []
            while True:
                self.scan.blanks()
                pattern = self.scan.word()
                if pattern is None:
                    raise self.scan.fail("a branch of case takes a pattern")
                patterns.append(pattern)
                self.scan.blanks()
                if self.scan.peek() != "|":
                    break
                self.scan.take()
            self.expect(")")
            body = self.commands()
            end = next((sign for sign in (";;&", ";;", ";&") if self.scan.starts(sign)), "")
            self.scan.take(len(end))
            arms.append((patterns, body, end))

    def _check(self) -> Node:
        line = self.scan.line
        self.scan.take(2)
        out: list[Word] = []
        regex = False
        while True:
            self.scan.blanks()
            if self.scan.peek() == "\n":
                self.scan.take()
                continue
            if self.scan.starts("]]") and not regex:
                self.scan.take(2)
                return Check(out, line)
            sign = next((s for s in ("&&", "||", "(", ")", "<", ">") if self.scan.starts(s)), "")
            if sign and not regex:
                self.scan.take(len(sign))
                out.append(Word((WordPiece("text", sign),), self.scan.line))
                continue
            word = self.scan.word(" \t\n" if regex else " \t\n;&|<>()")
            if word is None:
                raise self.scan.fail("[[ is not closed", line)
            regex = word.bare == "=~"
            out.append(word)

    def simple(self) -> Simple:
        line = self.scan.line
        assigns: list[Assign] = []
        words: list[Word | Assign] = []
        redirects: list[Redirect] = []
        while True:
            self.scan.blanks()
            if self.redirect(redirects):
                continue
            first = words[0] if words else None
            declares = isinstance(first, Word) and first.bare in DECLARES
            if (not words or declares) and (assign := self.assign()):
                (words if declares else assigns).append(assign)
                continue
            word = self.scan.word()
            if word is None:
                break
            words.append(word)
        if not (assigns or words or redirects):
            raise self.scan.fail(
                f"a command should stand before '{self._next() or self.scan.peek() or 'the end'}'", line
            )
        return Simple(assigns, words, redirects, line)

    def assign(self) -> Assign | None:
        found = _ASSIGN.match(self.scan.text, self.scan.at)
        if not found:
            return None
        line = self.scan.line
        self.scan.take(found.end() - self.scan.at)
        index = found[2][1:-1] if found[2] else None
        if self.scan.peek() == "(":
            self.scan.take()
            elements = self.elements()
            return Assign(found[1], index, bool(found[3]), None, tuple(elements), line)
        value = self.scan.word()
        return Assign(found[1], index, bool(found[3]), value or Word((), line), None, line)

    def elements(self) -> list[tuple[str | None, Word]]:
        out: list[tuple[str | None, Word]] = []
        line = self.scan.line
        while True:
            self.newlines()
            if self.scan.peek() == ")":
                self.scan.take()
                return out
            key = None
            if found := re.compile(r"\[([^\]\n]*)\]=").match(self.scan.text, self.scan.at):
                key = found[1]
                self.scan.take(found.end() - self.scan.at)
            word = self.scan.word()
            if word is None and key is None:
                got = self.scan.peek() or "the end"
                raise self.scan.fail(f"an array is not closed before '{got}' (it starts on line {line})")
            out.append((key, word or Word((), self.scan.line)))

    def redirect(self, into: list[Redirect]) -> bool:
        """Whether a redirection stood here; it is taken."""
        self.scan.blanks()
        found = re.compile(r"(&>>|&>|\d*(?:<<<|<<-|<<|<&|>>|>&|>\||<>|<|>))").match(self.scan.text, self.scan.at)
        if not found or (found[0] in "<>" and self.scan.peek(1) == "("):
            return False
        self.scan.take(len(found[0]))
        op = found[0].lstrip("0123456789")
        fd = found[0][: len(found[0]) - len(op)]
        self.scan.blanks()
        target = self.scan.word()
        if target is None:
            raise self.scan.fail(f"'{op}' takes a file or a word")
        redirect = Redirect("<<" if op == "<<-" else op, fd, target)
        into.append(redirect)
        if op in ("<<", "<<-"):
            self.heredocs.append((into, redirect, op == "<<-"))
        return True

    # pieces

    def _next(self) -> str:
        """The characters up to a blank or a sign: a keyword, if it is one."""
        found = re.compile(r";;&|;;|;&|[^\s;&|<>()]+").match(self.scan.text, self.scan.at)
        return found[0] if found else ""

    def keyword(self, word: str) -> None:
        self.newlines()
        got = self._next()
        if got != word:
            raise self.scan.fail(f"expected '{word}', got '{got or self.scan.peek() or 'the end of the script'}'")
        self.scan.take(len(word))

    def expect(self, sign: str) -> None:
        self.newlines()
        if not self.scan.starts(sign):
            raise self.scan.fail(f"expected '{sign}', got '{self.scan.peek() or 'the end of the script'}'")
        self.scan.take(len(sign))
