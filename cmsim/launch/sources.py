"""A file and those it names: found beside it, read as data, each only once."""

from __future__ import annotations

import posixpath
from pathlib import Path

from cmsim import reading
from cmsim.errors import InputError, Problem

#: a launch file is far smaller [B]
LARGEST_B = 2**20
#: how a file is read, by the end of its name
KINDS = {
    ".sh": "shell",
    ".bash": "shell",
    ".slurm": "shell",
    ".sbatch": "shell",
    ".sub": "shell",
    ".job": "shell",
    ".ksh": "shell",
    ".zsh": "shell",
    ".txt": "shell",
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".jsonc": "json",
}


class Sources:
    """Reads the file that is given and, below its folder, those it names. Nothing else of the disk is read."""

    def __init__(self, path: Path):
        self.path = path
        self.folder = path.parent
        self.read: dict[str, None] = {path.name: None}
        self.known: dict[str, str | None] = {}

    def text(self) -> str:
        """InputError: missing, too large, binary."""
        return _text(self.path)

    def beside(self, name: str) -> str | None:
        """Text of a file that the first one names, or None: not there, outside of its folder, or no text."""
        if name in self.known:
            return self.known[name]
        self.known[name] = None
        if not name or "\0" in name or len(name) > 1_000 or len(self.known) > 500:
            return None
        candidates = [posixpath.normpath(name), posixpath.basename(name)]
        for candidate in candidates:
            if candidate in ("", ".", "..") or candidate.startswith(("/", "..")):
                continue
            path = self.folder / candidate
            if path != self.path and reading.exists(path):
                try:
                    self.known[name] = _text(path)
                except InputError:
                    return None
                self.read[path.name] = None
                break
        return self.known[name]


def kind_of(path: Path, text: str) -> str:
    """How a file is read: by its name, else by its first line."""
    found = KINDS.get(path.suffix.lower())
    if found is not None:
        return found
    first = text.lstrip()[:200].partition("\n")[0]
    if first.startswith("{"):
        return "json"
    if first.startswith("#!") and "python" in first:
        return "python"
    return "shell"


def _text(path: Path) -> str:
    text = reading.read_text(path, limit_B=LARGEST_B)
    if "\0" in text:
        raise InputError(Problem("is no text: it holds null bytes", str(path)))
    return text.replace("\r\n", "\n")
