"""Words of a shell with their variables, sums and commands put in, as a list of texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmsim.launch.shell.arithmetic import Evaluator, SumError
from cmsim.launch.shell.patterns import removed, replaced
from cmsim.launch.shell.scan import Scanner
from cmsim.launch.shell.syntax import Word, WordPiece
from cmsim.launch.shell.values import HOLE, Said, is_unknown, unknown

if TYPE_CHECKING:
    from cmsim.launch.shell.run import Shell

_BRACES = re.compile(
    r"\{(-?\d{1,9})\.\.(-?\d{1,9})(?:\.\.(-?\d{1,9}))?\}|\{([^{}\s]*,[^{}\s]*)\}|\{([A-Za-z])\.\.([A-Za-z])\}"
)
_HEAD = re.compile(r"([#!]?)([A-Za-z_]\w*|\d+|[@*#?$!-])(\[((?:[^\]\[]|\[[^\]]*\])*)\])?(.*)\Z", re.DOTALL)
#: texts of one word, and characters of one text
MOST, LONGEST = 5_000, 200_000
#: names that a shell sets itself: what they are worth here
_OWN = {"$": "12345", "!": "12346", "-": "hB", "RANDOM": "", "HOSTNAME": "", "SECONDS": "0", "PPID": "1", "UID": "0"}

#: a part of a word: text, whether quoted, and whether a text ends behind it
Part = tuple[str, bool, bool]


class Expander:
    def __init__(self, shell: Shell):
        self.shell = shell

    # words

    def texts(self, word: Word) -> list[str]:
        """A word as the texts that a command gets: split at blanks where it is not quoted."""
        out: list[str] = []
        for one in self.braced(word):
            out += self._split(self._parts(one), word.line)
            if len(out) > MOST:
                raise self.shell.fail(f"a word becomes more than {MOST} texts", word.line)
        return out

    def text(self, word: Word) -> str:
        """A word as one text: right of =, in case and in [[ ]]."""
        parts = self._parts(word)
        if len(parts) == 1:
            return self._bound(parts[0][0], word.line)
        return self._bound("".join(text + " " * ends for text, _, ends in parts), word.line)

    def pattern(self, word: Word) -> str:
        """A word as a pattern: what is quoted means itself."""
        return "".join(
            re.sub(r"([\\*?\[\](){}|+@!])", r"\\\1", text) if quoted else text for text, quoted, _ in self._parts(word)
        )

    def quoted_text(self, text: str, line: int) -> str:
        """A text as if it stood in double quotes: in here-documents, sums and defaults."""
        scan = Scanner(text, self.shell.file, line)
        pieces: list[WordPiece] = []
        plain: list[str] = []
        while scan.peek():
            if scan.peek() == "\\" and scan.peek(1) and scan.peek(1) in "$`\\\n":
                after = scan.take(2)[1]
                plain.append("" if after == "\n" else after)
                continue
            piece = scan.dollar(quoted=True) if scan.peek() in "$`" else None
            if piece is None:
                plain.append(scan.take())
                continue
            pieces.append(WordPiece("text", "".join(plain), True))
            plain.clear()
            pieces.append(piece)
        pieces.append(WordPiece("text", "".join(plain), True))
        return self.text(Word(tuple(pieces), line))

    def braced(self, word: Word) -> list[Word]:
        """``{0..3}`` and ``{a,b}`` of unquoted text written out."""
        for n, piece in enumerate(word.pieces):
            if piece.kind != "text" or piece.quoted or "{" not in piece.body:
                continue
            found = _BRACES.search(piece.body)
            if not found:
                continue
            if found[4] is not None:
                choices = found[4].split(",")
            elif found[5] is not None:
                low, high = ord(found[5]), ord(found[6])
                choices = [chr(i) for i in range(low, high + (1 if high >= low else -1), 1 if high >= low else -1)]
            else:
                low, high = int(found[1]), int(found[2])
                step = abs(int(found[3] or 1)) or 1
                if abs(high - low) // step > MOST:
                    raise self.shell.fail(f"braces hold more than {MOST} numbers", word.line)
                wide = (
                    max(map(len, found.groups()[:2]))
                    if re.match(r"-?0\d", found[1]) or re.match(r"-?0\d", found[2])
                    else 0
                )
                numbers = range(low, high + (1 if high >= low else -1), step if high >= low else -step)
                choices = [str(i).zfill(wide) for i in numbers]
            out: list[Word] = []
            for choice in choices:
                body = piece.body[: found.start()] + choice + piece.body[found.end() :]
                made = (*word.pieces[:n], WordPiece("text", body), *word.pieces[n + 1 :])
                out += self.braced(Word(made, word.line))
                if len(out) > MOST:
                    raise self.shell.fail(f"braces make more than {MOST} words", word.line)
            return out
        return [word]

    def _split(self, parts: list[Part], line: int) -> list[str]:
        """Texts of a word's parts. A text that is one part keeps the line where that part was written."""
        out: list[str] = []
        now: str | None = None
        separators = self.shell.get("IFS") if self.shell.is_set("IFS") else " \t\n"
        for text, quoted, ends in parts:
            if quoted:
                now = text if now is None else now + text
            else:
                for n, bit in enumerate(_apart(text, separators)):
                    if n and now is not None:
                        out.append(now)
                        now = None
                    if bit:
                        now = Said(bit, getattr(text, "line", line)) if now is None else now + bit
            if ends and now is not None:
                out.append(now)
                now = None
        if now is not None:
            out.append(now)
        return [Said(self._bound(one, line), getattr(one, "line", line)) for one in out]

    def _bound(self, text: str, line: int) -> str:
        self.shell.spend(len(text) // 100, line)
        if len(text) > LONGEST:
            raise self.shell.fail(f"a text becomes longer than {LONGEST} characters", line)
        return text

    # pieces

    def _parts(self, word: Word) -> list[Part]:
        out: list[Part] = []
        for n, piece in enumerate(word.pieces):
            if piece.kind == "text":
                body = piece.body
                if n == 0 and not piece.quoted and body.startswith("~") and body[1:2] in ("", "/"):
                    body = (self.shell.get("HOME") or unknown("~")) + body[1:]
                out.append((body, piece.quoted, False))
            elif piece.kind == "sum":
                out.append((self.sum(piece.body, word.line), piece.quoted, False))
            elif piece.kind == "run":
                out.append((self.shell.output(piece.body, word.line), piece.quoted, False))
            else:
                out += self._variable(piece, word.line)
        return out

    def sum(self, text: str, line: int) -> str:
        text = self.quoted_text(text, line)
        try:
            return str(self.evaluator(line).value(text))
        except SumError as error:
            if not is_unknown(text):
                self.shell.note(f"$(({text.strip()})) {error}", line)
            return unknown(f"$(({text.strip()}))")

    def evaluator(self, line: int) -> Evaluator:
        def get(name: str) -> str:
            base, _, index = name.partition("[")
            text = self._element(base, index[:-1], line) if index else self.shell.get(base)
            if is_unknown(text):
                raise SumError("holds what is not known")
            return text

        def put(name: str, value: str) -> None:
            base, _, index = name.partition("[")
            self.shell.put(base, value, index=self._key(base, index[:-1], line) if index else None)

        return Evaluator(get, put)

    def _key(self, name: str, index: str, line: int) -> str:
        """An index as a number, or as the text of an associative array."""
        text = self.quoted_text(index, line).strip("'\"")
        if isinstance(self.shell.raw(name), dict):
            return text
        try:
            return str(self.evaluator(line).value(text or "0"))
        except SumError:
            return text

    def _element(self, name: str, index: str, line: int) -> str:
        value = self.shell.raw(name)
        key = self._key(name, index, line)
        if isinstance(value, dict):
            return value.get(key, "")
        if isinstance(value, list):
            if not re.fullmatch(r"-?\d{1,9}", key) or not -len(value) <= int(key) < len(value):
                return ""
            return value[int(key)]
        return (value or "") if key == "0" else ""

    def _variable(self, piece: WordPiece, line: int) -> list[Part]:
        found = _HEAD.match(piece.body)
        if not found or (found[1] and not found[2]):
            if piece.body == "#":
                return [(str(len(self.shell.positional)), piece.quoted, False)]
            raise self.shell.fail(f"${{{piece.body}}} is not read", line)
        sign, name, _, index, rest = found.groups()
        if sign == "!" and (rest in ("*", "@") and index is None):
            names = [one for one in self.shell.names() if one.startswith(name)]
            return self._many(names, piece.quoted, star=rest == "*")
        if sign == "!" and index in ("@", "*"):
            value = self.shell.raw(name)
            keys = (
                list(value)
                if isinstance(value, dict)
                else [str(n) for n, one in enumerate(value or []) if one is not HOLE]
            )
            return self._many(keys, piece.quoted, star=index == "*")
        if sign == "!":
            target = self._one(name, index, line)
            return (
                self._variable(WordPiece("var", target + rest, piece.quoted), line)
                if re.match(r"[A-Za-z_]\w*(\[[^\]]*\])?\Z", target)
                else [("", piece.quoted, False)]
            )
        many = index in ("@", "*") or (name in "@*" and index is None)
        if sign == "#":
            if many:
                return [(str(len(self._all(name))), piece.quoted, False)]
            value = self._one(name, index, line)
            return [(unknown(f"${{#{name}}}") if is_unknown(value) else str(len(value)), piece.quoted, False)]
        if many:
            values = self._all(name)
            if rest[:1] == ":" and rest[1:2] not in "-=?+":
                values = self._sliced(values, rest[1:], line, positional=name in "@*")
            elif rest[:1] in ("-", "+", ":", "=", "?") and rest:
                return self._default(name, index, rest, piece, line, values)
            elif rest:
                values = [self._changed(value, rest, line) for value in values]
            return self._many(values, piece.quoted, star="*" in (index, name))
        if re.match(r":?[-=?+]", rest):
            return self._default(name, index, rest, piece, line, None)
        value = self._one(name, index, line)
        if rest:
            value = self._changed(value, rest, line)
        return [(value, piece.quoted, False)]

    def _many(self, values: list[str], quoted: bool, *, star: bool) -> list[Part]:
        if quoted and star:
            separators = self.shell.get("IFS") if self.shell.is_set("IFS") else " "
            return [(separators[:1].join(values), True, False)]
        # the last of them goes on with what follows in the word
        return [(value, quoted, n + 1 < len(values)) for n, value in enumerate(values)]

    def _all(self, name: str) -> list[str]:
        if name in "@*":
            return list(self.shell.positional)
        value = self.shell.raw(name)
        if isinstance(value, dict):
            return list(value.values())
        return (
            [one for one in value if one is not HOLE] if isinstance(value, list) else [] if value is None else [value]
        )

    def _one(self, name: str, index: str | None, line: int) -> str:
        if index is not None:
            return self._element(name, index, line)
        if name.isdigit():
            n = int(name)
            if n == 0:
                return self.shell.path
            return self.shell.positional[n - 1] if n <= len(self.shell.positional) else ""
        if name == "#":
            return str(len(self.shell.positional))
        if name == "?":
            return str(self.shell.status)
        if name in _OWN and not self.shell.is_set(name):
            return _OWN[name] or unknown(f"${name}")
        if name in ("LINENO", "BASH_SOURCE", "FUNCNAME", "EUID", "PWD", "OLDPWD") and not self.shell.is_set(name):
            return {"LINENO": str(line), "BASH_SOURCE": self.shell.path, "EUID": "0", "PWD": "."}.get(name, "")
        return self.shell.get(name, line)

    def _is_set(self, name: str, index: str | None, line: int) -> bool:
        if name.isdigit():
            return int(name) <= len(self.shell.positional)
        if index is not None:
            value = self.shell.raw(name)
            if index in ("@", "*"):
                return bool(value)
            key = self._key(name, index, line)
            if isinstance(value, dict):
                return key in value
            return isinstance(value, list) and key.isdigit() and int(key) < len(value)
        return name in "#?$!-" or self.shell.is_set(name)

    def _default(
        self, name: str, index: str | None, rest: str, piece: WordPiece, line: int, many: list[str] | None
    ) -> list[Part]:
        colon = rest[0] == ":"
        sign, other = (rest[1], rest[2:]) if colon else (rest[0], rest[1:])
        self.shell.asked(name)
        if many is not None:
            is_there = bool(many)
        else:
            is_there = self._is_set(name, index, line) and not (colon and self._one(name, index, line) == "")
        if sign == "+":
            return self._inner(other, piece.quoted, line) if is_there else [("", piece.quoted, False)]
        if is_there:
            if many is not None:
                return self._many(many, piece.quoted, star="*" in (index, name))
            return [(self._one(name, index, line), piece.quoted, False)]
        if sign == "?":
            self.shell.needs(name, self.quoted_text(other, line).strip("\"'"), line)
            return [(unknown(f"${name}"), piece.quoted, False)]
        parts = self._inner(other, piece.quoted, line)
        if sign == "=":
            self.shell.put(
                name, "".join(text for text, _, _ in parts), index=self._key(name, index, line) if index else None
            )
        return parts

    def _inner(self, text: str, quoted: bool, line: int) -> list[Part]:
        """The word behind :- and its like; quotes inside count where there are none outside."""
        if quoted:
            plain = self.quoted_text(text.replace('\\"', "\0").replace('"', "").replace("\0", '"'), line)
            return [(plain, True, False)]
        scan = Scanner(text, self.shell.file, line)
        word = scan.word("\0")
        return self._parts(word) if word else [("", False, False)]

    def _sliced(self, values: list[str], text: str, line: int, *, positional: bool) -> list[str]:
        start, _, count = text.partition(":")
        try:
            first = self.evaluator(line).value(self.quoted_text(start, line))
            length = self.evaluator(line).value(self.quoted_text(count, line)) if count else None
        except SumError:
            return values
        if positional:
            values = [self.shell.path, *values]
        first = first if first >= 0 else len(values) + first
        return values[first:] if length is None else values[first : first + length]

    def _changed(self, value: str, rest: str, line: int) -> str:
        """A value after %, #, /, ^, , and : behind its name."""
        if rest[0] == ":":
            return "".join(self._sliced(list(value), rest[1:], line, positional=False))
        if is_unknown(value):
            return value
        if rest[0] in "%#":
            longest = rest[:2] in ("%%", "##")
            pattern = self._pattern_text(rest[2:] if longest else rest[1:], line)
            return removed(pattern, value, front=rest[0] == "#", longest=longest)
        if rest[0] == "/":
            every = rest[:2] == "//"
            pattern, by = _halves(rest[2:] if every else rest[1:])
            return replaced(
                self._pattern_text(pattern, line),
                self.text(Scanner(by, self.shell.file, line).word("\0") or Word((), line)),
                value,
                every=every,
            )
        if rest in (",,", ","):
            return value.lower() if rest == ",," else value[:1].lower() + value[1:]
        if rest in ("^^", "^"):
            return value.upper() if rest == "^^" else value[:1].upper() + value[1:]
        if rest[0] == "@":
            return {"U": value.upper(), "L": value.lower(), "Q": "'" + value.replace("'", "'\\''") + "'"}.get(
                rest[1:], value
            )
        raise self.shell.fail(f"'{rest}' behind a variable is not read", line)

    def _pattern_text(self, text: str, line: int) -> str:
        word = Scanner(text, self.shell.file, line).word("\0")
        return self.pattern(word) if word else ""


def _halves(text: str) -> tuple[str, str]:
    """``a/b`` at the first / that is not escaped and not inside of a ${ }."""
    depth = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text.startswith("${", at):
            depth += 1
        elif text[at] == "}" and depth:
            depth -= 1
        elif text[at] == "/" and not depth:
            return text[:at], text[at + 1 :]
        at += 1
    return text, ""


def _apart(text: str, separators: str) -> list[str]:
    """Split at separators that are not within an unknown part."""
    if not separators:
        return [text]
    held = re.sub("\ue000[^\ue001]*\ue001", lambda m: m[0].replace(" ", "\ue002"), text)
    return [bit.replace("\ue002", " ") for bit in re.split(f"[{re.escape(separators)}]+", held)]
