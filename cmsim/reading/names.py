"""What is built in, and what a name or path of a user's means."""

from __future__ import annotations

from pathlib import Path

from cmsim.errors import InputError, did_you_mean, nearest

_PACKAGE = Path(__file__).parents[1]
#: ``topologies/``, ``workloads/`` and ``scenarios/``: beside the package in a checkout, inside it in a wheel
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent


def builtin_files(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Built-in files of a folder by name (file name without ending), sorted."""
    return {path.name.removesuffix(pattern.lstrip("*")): path for path in sorted((DATA / folder).glob(pattern))}


def find(name: str, folder: str, what: str, *, pattern: str = "*.yaml", base: Path | None = None) -> Path:
    """A user's path (relative to ``base``, or to the working folder) or a built-in file's name.

    A bare name is a built-in one first, so that a file of the same name in the working folder changes nothing.
    Raises InputError with the nearest built-in name.
    """
    files = builtin_files(folder, pattern)
    looks_like_path = name.endswith(pattern.lstrip("*")) or "/" in name or "\\" in name
    if name in files and not looks_like_path:
        return files[name]
    for root in ([base] if base else []) + [Path.cwd()] + ([DATA] if looks_like_path else []):
        path = root / name
        if path.is_file() if not looks_like_path else path.exists():
            return path
    if looks_like_path:
        near = nearest(Path(name).name.removesuffix(pattern.lstrip("*")), files)
        hint = f". Built in is '{near}'" if near else ""
        raise InputError(f"no such {what} file: {name}{hint}")
    raise InputError(f"no {what} named '{name}'. {did_you_mean(name, files)}")
