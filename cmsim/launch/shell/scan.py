"""Characters of a shell script as words, one at a time, with the lines they stand on."""

from __future__ import annotations

from cmsim.errors import InputError, Problem
from cmsim.launch.shell.syntax import Word, WordPiece

#: how deep quotes and brackets may lie in each other
DEEPEST = 60
_BREAKS = " \t\n;&|<>()"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "e": "\x1b"}


class Scanner:
    """A position in a text. ``comments`` are collected as they are passed, by line."""

    def __init__(self, text: str, file: str, line: int = 1):
        self.text = text
        self.file = file
        self.at = 0
        self.line = line
        self.comments: dict[int, str] = {}

    def fail(self, message: str, line: int | None = None) -> InputError:
        return InputError(Problem(message, self.file, line or self.line))

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.text[at] if at < len(self.text) else ""

    def starts(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def take(self, count: int = 1) -> str:
        out = self.text[self.at : self.at + count]
        self.at += count
        self.line += out.count("\n")
        return out

    def blanks(self) -> None:
        """Past blanks, continued lines and a comment; a line break stays."""
        while self.at < len(self.text):
            if self.peek() in " \t\r":
                self.take()
            elif self.starts("\\\n"):
                self.take(2)
            elif self.starts("\\\r\n"):
                self.take(3)
            elif self.peek() == "#":
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                self.comments[self.line] = self.text[self.at + 1 : end].strip()
                self.at = end
            else:
                return

    # words

    def word(self, stops: str = _BREAKS) -> Word | None:
        """The next word, or None where none starts here."""
        line = self.line
        pieces: list[WordPiece] = []
        text: list[str] = []

        def flush() -> None:
            if text:
                pieces.append(WordPiece("text", "".join(text)))
                text.clear()

        while self.at < len(self.text):
            char = self.peek()
            if char in "<>" and self.peek(1) == "(" and stops == _BREAKS:
                flush()
                self.take(2)
                pieces.append(WordPiece("text", f"<({self.upto_paren()})", True))
            elif text and text[-1] in "@?!*+" and char == "(":
                text.append(f"{self.take()}{self.upto_paren()})")
            elif char in stops:
                break
            elif char == "\\":
                if self.peek(1) == "\n":
                    self.take(2)
                    continue
                self.take()
                flush()
                pieces.append(WordPiece("text", self.take(), True))
            elif char == "'":
                flush()
                pieces.append(WordPiece("text", self.single(), True))
            elif char == '"':
                flush()
                pieces += self.double()
            elif self.starts("$'"):
                flush()
                self.take()
                pieces.append(WordPiece("text", self.ansi(), True))
            elif self.starts('$"'):
                flush()
                self.take()
                pieces += self.double()
            elif char in "$`":
                piece = self.dollar(quoted=False)
                if piece is None:
                    text.append(self.take())
                else:
                    flush()
                    pieces.append(piece)
            else:
                text.append(self.take())
        flush()
        return Word(tuple(pieces), line) if pieces else None

    def single(self) -> str:
        line = self.line
        self.take()
        end = self.text.find("'", self.at)
        if end < 0:
            raise self.fail("a quote ' is not closed", line)
        out = self.take(end - self.at)
        self.take()
        return out

    def ansi(self) -> str:
        line = self.line
        self.take()
        out: list[str] = []
        while self.peek() != "'":
            if not self.peek():
                raise self.fail("a quote $' is not closed", line)
            char = self.take()
            if char == "\\":
                after = self.take()
                out.append(_ESCAPES.get(after, "\\" + after))
            else:
                out.append(char)
        self.take()
        return "".join(out)

    def double(self) -> list[WordPiece]:
        line = self.line
        self.take()
        pieces: list[WordPiece] = []
        text: list[str] = []
        while self.peek() != '"':
            if not self.peek():
                raise self.fail('a quote " is not closed', line)
            if self.peek() == "\\":
                after = self.peek(1)
                if after == "\n":
                    self.take(2)
                elif after and after in '$`"\\':
                    self.take()
                    text.append(self.take())
                else:
                    text.append(self.take())
                continue
            piece = self.dollar(quoted=True) if self.peek() in "$`" else None
            if piece is None:
                text.append(self.take())
            else:
                if text:
                    pieces.append(WordPiece("text", "".join(text), True))
                    text.clear()
                pieces.append(piece)
        self.take()
        if text or not pieces:
            pieces.append(WordPiece("text", "".join(text), True))
        return pieces

    def dollar(self, *, quoted: bool) -> WordPiece | None:
        """What starts with $ or `, or None where the sign is only a character."""
        if self.peek() == "`":
            return WordPiece("run", self.backticks(), quoted)
        after = self.peek(1)
        if self.starts("$(("):
            start, line = self.at, self.line
            self.take(3)
            body = self.upto_paren(quiet=True)
            if body is not None and self.peek() == ")":
                self.take()
                return WordPiece("sum", body, quoted)
            self.at, self.line = start, line  # a command substitution whose command is in brackets
        if after == "(":
            self.take(2)
            return WordPiece("run", self.upto_paren() or "", quoted)
        if after == "{":
            self.take(2)
            return WordPiece("var", self.upto_brace(), quoted)
        if after == "[":
            line = self.line
            self.take(2)
            end = self.text.find("]", self.at)
            if end < 0:
                raise self.fail("$[ is not closed", line)
            body = self.take(end - self.at)
            self.take()
            return WordPiece("sum", body, quoted)
        if after and ((after.isalpha() and after.isascii()) or after == "_"):
            self.take()
            start = self.at
            while self.peek() and ((self.peek().isascii() and self.peek().isalnum()) or self.peek() == "_"):
                self.at += 1
            return WordPiece("var", self.text[start : self.at], quoted)
        if after and after in "0123456789@*#?$!-":
            self.take()
            return WordPiece("var", self.take(), quoted)
        return None

    def backticks(self) -> str:
        line = self.line
        self.take()
        out: list[str] = []
        while self.peek() != "`":
            if not self.peek():
                raise self.fail("a quote ` is not closed", line)
            if self.peek() == "\\" and self.peek(1) and self.peek(1) in "`\\$":
                self.take()
            out.append(self.take())
        self.take()
        return "".join(out)

    def upto_paren(self, *, quiet: bool = False) -> str | None:
        """Text to the bracket that closes, past those inside and past quotes; the bracket is taken."""
        return self._upto("(", ")", quiet=quiet)

    def upto_brace(self) -> str:
        return self._upto("{", "}") or ""

    def _upto(self, opens: str, closes: str, *, quiet: bool = False) -> str | None:
        start, line, depth = self.at, self.line, 1
        while self.at < len(self.text):
            char = self.peek()
            if char == "\\":
                self.take(2)
            elif char == "'":
                self.single()
            elif char == '"':
                self._past_double()
            elif char == "`":
                self.backticks()
            elif char == "#" and closes == ")" and self.text[self.at - 1] in " \t\n;":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                depth += (char == opens) - (char == closes)
                if depth > DEEPEST:
                    raise self.fail(f"brackets lie deeper than {DEEPEST} in each other", line)
                self.take()
                if not depth:
                    return self.text[start : self.at - 1]
        if quiet:
            return None
        raise self.fail(f"'{opens}' is not closed", line)

    def _past_double(self) -> None:
        line = self.line
        self.take()
        while self.peek() != '"':
            if not self.peek():
                raise self.fail('a quote " is not closed', line)
            if self.peek() == "\\":
                self.take(2)
            elif self.starts("$("):
                self.take(2)
                self.upto_paren()
            elif self.starts("${"):
                self.take(2)
                self.upto_brace()
            else:
                self.take()
        self.take()
