"""What the shell offers for TAB."""

from __future__ import annotations

from pathlib import Path

#: ``cmsim plot KIND``: named here so that no figure is imported to complete a word; a test compares
PLOTS = (
    *("power-throughput", "trade-off", "pareto", "timeline", "breakdown", "power", "power-curve", "roofline"),
    *("collective", "metric", "latency", "queue", "waterfall", "tornado", "break-even", "scaling", "links", "search"),
    *("topology", "predicted"),
)


def scenarios(incomplete: str) -> list[str]:
    """Built-in scenarios and files that fit."""
    return [*builtin("scenarios", incomplete), *_paths(incomplete, (".yaml", ".yml"))]


def results(incomplete: str) -> list[str]:
    """The same, and folders."""
    return scenarios(incomplete)


def names(incomplete: str) -> list[str]:
    """What ``cmsim show`` knows."""
    from cmsim.cli.catalogue import FOLDERS

    return [name for folder, pattern in FOLDERS.values() for name in builtin(folder, incomplete, pattern)]


def plots(incomplete: str) -> list[str]:
    return [kind for kind in PLOTS if kind.startswith(incomplete)]


def builtin(folder: str, incomplete: str = "", pattern: str = "*.yaml") -> list[str]:
    """Names of built-in files that start so."""
    from cmsim.reading import builtin_files

    return [name for name in builtin_files(folder, pattern) if name.startswith(incomplete)]


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    head, _, start = incomplete.rpartition("/")
    folder = Path(head or ("/" if incomplete.startswith("/") else "."))
    if not folder.is_dir():
        return []
    lead = f"{head}/" if "/" in incomplete else ""
    found = [path for path in sorted(folder.iterdir()) if path.name.startswith(start) and not path.name.startswith(".")]
    return [
        f"{lead}{path.name}{'/' if path.is_dir() else ''}" for path in found if path.is_dir() or path.suffix in endings
    ]
