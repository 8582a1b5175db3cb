"""What a shell script is made of: words with their parts, and commands.

Bodies of ``${...}``, ``$((...))`` and ``$(...)`` are kept as text and are read when they are expanded: what they mean
depends on values that only then are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WordPiece:
    """Part of a word: ``kind`` text, var (``${body}``), sum (``$((body))``) or run (``$(body)``)."""

    kind: str
    body: str
    quoted: bool = False


@dataclass(frozen=True)
class Word:
    pieces: tuple[WordPiece, ...]
    line: int

    @property
    def bare(self) -> str | None:
        """Its text where it is nothing but unquoted text."""
        if all(piece.kind == "text" and not piece.quoted for piece in self.pieces):
            return "".join(piece.body for piece in self.pieces)
        return None


@dataclass(frozen=True)
class Assign:
    """``name=value``, ``name[index]+=value``, ``name=(elements)``."""

    name: str
    index: str | None
    append: bool
    value: Word | None
    elements: tuple[tuple[str | None, Word], ...] | None
    line: int


@dataclass(frozen=True)
class Redirect:
    """``op`` >, >>, <, <<, <<<; for << ``body`` is the text, ``target`` is its end word."""

    op: str
    fd: str
    target: Word
    body: str = ""
    literal: bool = False


@dataclass
class Simple:
    assigns: list[Assign]
    words: list[Word | Assign]
    redirects: list[Redirect]
    line: int


@dataclass
class Pipeline:
    commands: list[Node]
    negated: bool
    line: int


@dataclass
class AndOr:
    """Pipelines with what stands before each: "", && or ||."""

    parts: list[tuple[str, Pipeline]]
    line: int


@dataclass
class Braces:
    """``{ }`` and ``( )``."""

    body: list[AndOr]
    apart: bool
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class If:
    branches: list[tuple[list[AndOr], list[AndOr]]]
    otherwise: list[AndOr]
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class For:
    """``for name in words``; ``words`` None: the positional ones."""

    name: str
    words: list[Word] | None
    body: list[AndOr]
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class Count:
    """``for ((start; while; step))``."""

    start: str
    check: str
    step: str
    body: list[AndOr]
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class While:
    check: list[AndOr]
    body: list[AndOr]
    until: bool
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class CaseClause:
    word: Word
    arms: list[tuple[list[Word], list[AndOr], str]]
    line: int
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class Define:
    name: str
    body: Node
    line: int


@dataclass
class Math:
    """``((text))``."""

    text: str
    line: int


@dataclass
class Check:
    """``[[ words ]]``, operators among them as bare words."""

    words: list[Word]
    line: int


Node = Simple | Braces | If | For | Count | While | CaseClause | Define | Math | Check
