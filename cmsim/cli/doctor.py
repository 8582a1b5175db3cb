"""``cmsim doctor``: what is installed, what extras would add, and whether a run goes through."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from typing import Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import CmsimError
from cmsim.version import __version__

#: what an extra is for, by its name in the package's metadata
EXTRAS = {
    "notebook": "notebooks: JupyterLab and its kernel",
    "onnx": "graphs of operators from ONNX files",
    "measure": "kernels measured on this machine (cmsim calibrate --measure)",
    "distributed": "sweeps on a Dask cluster (cmsim sweep --dask)",
    "optuna": "points drawn from spaces too large to list (cmsim sweep --trials)",
    "perfetto": "timelines for Perfetto (cmsim export perfetto)",
    "infragraph": "systems from descriptions of clusters (cmsim new --from)",
    "ui": "a live page of what-if questions (cmsim ui)",
}
#: a built-in scenario that is soon through
_PROBE = "allreduce"


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is installed, what extras would add, and whether a small run goes through."""
    found = report()
    if json:
        say.document(found)
    else:
        for part in _shown(found):
            say.show(part)
    if found["run"] != "goes through" or any(not one["release"] for one in found["packages"]):
        raise typer.Exit(1)


def report() -> dict[str, Any]:
    """All that is said, as data."""
    needs = _needed()
    return {
        "cmsim": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": [{"package": name, "release": _release(name)} for name in needs[""]],
        "extras": [
            {"extra": extra, "adds": what, "missing": [name for name in needs.get(extra, ()) if not _release(name)]}
            for extra, what in EXTRAS.items()
        ],
        "run": _goes(),
    }


def _shown(found: dict[str, Any]) -> list[Any]:
    head = f"cmsim {found['cmsim']}, Python {found['python']}, {found['platform']}"
    missing = [one["package"] for one in found["packages"] if not one["release"]]
    own = [f"{one['package']} {one['release']}" for one in found["packages"] if one["release"]]
    packages = f"installed: {', '.join(own)}" + (f"; missing: {', '.join(missing)}" if missing else "")
    rows = [
        [one["extra"], one["adds"], f"pip install 'cmsim[{one['extra']}]'" if one["missing"] else "there"]
        for one in found["extras"]
    ]
    return [head, packages, say.table(["extra", "adds", ""], rows, left=(0, 1, 2)), f"a small run {found['run']}"]


def _needed() -> dict[str, list[str]]:
    """Packages by the extra that asks for them; "" is for those that are always needed."""
    out: dict[str, list[str]] = {"": []}
    for one in metadata.requires("cmsim") or []:
        name, _, marker = one.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        out.setdefault(extra[1] if extra else "", []).append(re.split(r"[^\w.-]", name.strip(), maxsplit=1)[0])
    return out


def _release(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _goes() -> str:
    from cmsim import api

    try:
        api.run(_PROBE, record="none").require()
    except CmsimError as error:
        return f"fails: {error}"
    return "goes through"
