"""Makes docs/pictures anew: runs the commands of docs/figures.md in order, and takes pictures of the report.

    python benchmarks/pictures.py [NAME...]      default: all; of names as figures.md has them, without .png

Pictures are of 256 colours at most, so that each is small. The report is opened in Chromium (`apt-get install
chromium`, `pip install -e '.[pages]'`); where there is none its pictures are left as they are, and this is said.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from cmsim.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURES = ROOT / "docs" / "figures.md", ROOT / "docs" / "pictures"
#: of pictures of the report: name -> width and height [px]
SCREENS = {"report": (1280, 1500), "report-phone": (400, 860)}
#: no picture is larger than that [B]; colours that are tried until one is not
MOST_B = 150_000
COLOURS = (256, 64, 24, 12)


def commands(text: str) -> tuple[dict[str, str], list[list[str]]]:
    """Files that a page has its reader write, and its commands, in order."""
    files = dict(re.findall(r"`([\w./-]+\.yaml)`:\n\n```yaml\n(.*?)```", text, re.S))
    return files, [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (cmsim .+)$", text, re.M)]


def small(source: Path, target: Path) -> None:
    """A picture of so few colours that it is small."""
    for colours in COLOURS:
        with Image.open(source) as picture:
            few = picture.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(target, optimize=True)
        size = target.stat().st_size
        if size <= MOST_B:
            print(f"{target.relative_to(ROOT)}: {colours} colours, {size / 1000:.0f} kB")
            return
    raise SystemExit(f"{target.name} is larger than {MOST_B // 1000} kB")


def photograph(page: Path, folder: Path) -> list[Path]:
    """The top of the report at widths of a screen and of a phone; none where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("no Chromium here: pictures of the report stay as they are")
        return []
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height) in SCREENS.items():
            shown = browser.new_page(viewport={"width": width, "height": height})
            shown.goto(page.as_uri())
            taken.append(folder / f"{name}.png")
            shown.screenshot(path=str(taken[-1]))
        browser.close()
    return taken


def main(wanted: Sequence[str]) -> None:
    files, every = commands(PAGE.read_text(encoding="utf-8"))
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, body in files.items():
            Path(name).write_text(body, encoding="utf-8")
        needed = {word for one in every if not wanted or Path(one[-1]).stem in wanted for word in one}
        for words in every:
            out = Path(words[-1])
            runs = out.suffix == ""
            if (runs and out.name not in needed) or (not runs and wanted and out.stem not in wanted):
                continue
            done = CliRunner().invoke(app, words)
            if done.exit_code:
                raise SystemExit(f"cmsim {shlex.join(words)}\n{done.output}")
            if out.suffix == ".png":
                small(out, PICTURES / out.name)
            elif out.suffix == ".html":
                for picture in photograph(out.resolve(), Path(folder)):
                    small(picture, PICTURES / picture.name)


if __name__ == "__main__":
    main(sys.argv[1:])
