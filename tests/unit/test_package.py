"""What people install: a wheel with its data inside, a source archive that makes it, and how large it all is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

#: what may be downloaded for a base installation, and what it may then take on a disk [B]. Of what it takes, numpy,
#: pandas and pyarrow are half, scipy and matplotlib a third; half of each is tests, headers and bytecode of its own.
DOWNLOADED_B, INSTALLED_B = 300e6, 750e6
#: what a wheel has to hold, beside the package
DATA = ("topologies/hgx_h100.yaml", "workloads/models/deepseek-r1.json", "scenarios/headline.yaml")


def test_what_a_wheel_and_a_source_archive_hold(root: Path):
    """Listed by what builds them; `make package` builds them."""
    wheels = pytest.importorskip("hatchling.builders.wheel")
    archives = pytest.importorskip("hatchling.builders.sdist")
    wheel = {one.distribution_path for one in wheels.WheelBuilder(str(root)).recurse_included_files()}
    assert {f"cmsim/data/{name}" for name in DATA} | {"cmsim/py.typed", "cmsim/cli/app.py"} <= wheel
    assert {path.split("/")[0] for path in wheel} == {"cmsim"}
    source = {one.distribution_path for one in archives.SdistBuilder(str(root)).recurse_included_files()}
    assert {*DATA, "Makefile", "tests/conftest.py", "docs/index.md", "constraints.txt", "CHANGELOG.md"} <= source
    odd = [path for path in wheel | source if "__pycache__" in path or path.startswith(("build", "dist", "out"))]
    assert not odd


def run(*words: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CMSIM", "COV"))}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_they_are_built_and_installed(root: Path, tmp_path: Path):
    """The wheel of the source archive, with what it needs and nothing else, in an environment of its own."""
    pytest.importorskip("hatchling")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    # `python -m hatchling build` is what builds; the wheel is made of what the archive holds, not of the checkout
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=root)
    (archive,) = tmp_path.glob("cmsim-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    assert f"cmsim/data/{DATA[0]}" in zipfile.ZipFile(wheel).namelist()

    files, pins = tmp_path / "files", root / "constraints.txt"
    run(*pip, "download", "-c", pins, "-d", files, wheel, cwd=tmp_path)
    assert sum(path.stat().st_size for path in files.iterdir()) < DOWNLOADED_B

    home = tmp_path / "home"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python = home / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-index", "--find-links", files, wheel, cwd=tmp_path)
    (packages,) = home.glob("lib/python*/site-packages")
    assert sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) < INSTALLED_B

    said = json.loads(run(home / "bin" / "cmsim", "run", "allreduce", "--json", "--quiet", cwd=tmp_path))
    assert len(said["results"]) == 6
    doctor = json.loads(run(home / "bin" / "cmsim", "doctor", "--json", cwd=tmp_path))
    assert doctor["run"] == "goes through" and all(one["release"] for one in doctor["packages"])
