"""What is built in, and what a name or path of a user's means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmsim.errors import InputError, did_you_mean, nearest
from cmsim.reading.look import seen
from cmsim.reading.regular import exists

_PACKAGE = Path(__file__).parents[1]
#: ``topologies/``, ``workloads/`` and ``scenarios/``: beside the package in a checkout, inside it in a wheel
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent


def builtin_files(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Built-in files of a folder by name (file name without ending), sorted; nobody may change them."""
    where, ending = DATA / folder, pattern.lstrip("*")
    look = ("files", where, pattern)
    return seen(look, lambda: {path.name.removesuffix(ending): path for path in sorted(where.glob(pattern))})


def builtin_tree(folder: str) -> dict[str, Path]:
    """What lies in the folders of a built-in folder, a file or a folder each, by 'folder/name', sorted."""
    return {
        f"{inner.name}/{one.name}": one
        for inner in sorted((DATA / folder).iterdir())
        if inner.is_dir()
        for one in sorted(inner.iterdir())
        if not one.name.startswith((".", "LICENSE"))
    }


def aliases_of(path: Path) -> list[str]:
    """Other names that a YAML file gives itself. Only its head is read: aliases stand before the body."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("aliases:"):
                found = line.split(":", 1)[1].split("#")[0].strip(" []\n")
                return [alias.strip(" '\"") for alias in found.split(",") if alias.strip()]
    return []


def locate(
    name: str | Path, *, base: Path | None = None, built_in: Sequence[str] = (), folders: bool = False
) -> Path | None:
    """Where a user's file is: below ``base``, the working folder, or folders of what is built in.

    built_in: below `DATA`, "" for itself; asked in this order, after the other two    folders: may be found as well

    None where there is none of that name.
    """
    roots = (*((base,) if base is not None else ()), Path.cwd(), *(DATA / folder for folder in built_in))
    paths = (root / name for root in roots if str(name))
    return next((path for path in paths if exists(path, folders=folders)), None)


def find(name: str, folder: str, what: str, *, pattern: str = "*.yaml", base: Path | None = None) -> Path:
    """A user's path (relative to ``base``, or to the working folder) or a built-in file's name or alias.

    A bare name is a built-in one first, so that a file of the same name in the working folder changes nothing.
    Raises InputError with the nearest built-in name.
    """
    files = builtin_files(folder, pattern)
    looks_like_path = name.endswith(pattern.lstrip("*")) or "/" in name or "\\" in name
    if not looks_like_path:
        if name in files:
            return files[name]
        # only YAML files have aliases
        also = [path for path in files.values() if pattern.endswith(".yaml") and name in aliases_of(path)]
        if also:
            return also[0]
    path = locate(name, base=base, built_in=("",) if looks_like_path else (), folders=looks_like_path)
    if path is not None:
        return path
    if looks_like_path:
        near = nearest(Path(name).name.removesuffix(pattern.lstrip("*")), files)
        hint = f". Built in is '{near}'" if near else ""
        raise InputError(f"no such {what} file: {name}{hint}")
    raise InputError(f"no {what} named '{name}'. {did_you_mean(name, files)}")
