"""Damaged files: every reader over mutations of real samples; only InputError may come out.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 0] [--only FORMAT] [--jobs 2]

A mutation flips, cuts, repeats or swaps bytes, or puts in numbers and words that formats are full of. A file that opens
is counted, turned into a trace and lowered. Prints inputs and refusals by format, and the slowest; fails at the first
exception that is no InputError, and leaves its file behind. The test set runs a few thousand.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from cmsim import jobs, requests, traces
from cmsim.calibration.logs import read_log
from cmsim.errors import CmsimWarning, InputError
from cmsim.hardware import load_accelerator, load_stack, load_system
from cmsim.reading.bytes_in import GZIP_MAGIC
from cmsim.scenario import load_scenario
from cmsim.workload.model import load_model

ROOT = Path(__file__).resolve().parents[1]
#: a sample is cut to this, so that a million of them take minutes [B]
_MOST_B = 6_000
#: expanded size that an importer may take of a mutated sample: gzip bombs stop here [B]
_LIMIT_B = 2_000_000
#: what formats are full of
_WORDS = (
    *(
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"null",
        b"4294967295",
        b"18446744073709551616",
        b"9" * 400,
        b"[" * 60,
        b"{",
        b'"',
    ),
    *(
        b"\n",
        b",",
        b"\t",
        b":",
        b"\x00",
        b"\xff" * 12,
        b"\x80" * 11,
        b"None",
        b"NONE",
        b"true",
        b"\\u0000",
        b"\xc3\x28",
    ),
)


def samples() -> dict[str, list[tuple[str, bytes]]]:
    """Small real files by format: name and expanded bytes."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    roots = [ROOT / "workloads" / name for name in ("traces", "requests", "jobs")]
    for path in sorted(path for root in roots if root.is_dir() for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
        for name, known in REGISTRIES.items():
            if any(importer.sniff(data[:4096], path) for importer in known.values()):
                form = next(form for form, importer in known.items() if importer.sniff(data[:4096], path))
                found.setdefault(f"{name}/{form}", []).append((path.name.removesuffix(".gz"), small(data)))
                break
    for name, (pattern, _) in WRITTEN.items():
        found[name] = [(path.name, small(path.read_bytes())) for path in sorted(ROOT.glob(pattern))]
    return found


def small(data: bytes) -> bytes:
    """A sample of a few kilobytes that still is whole: lists of JSON shortened, lines kept whole."""
    if len(data) <= _MOST_B:
        return data
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        cut = data[:_MOST_B]
        return cut[: cut.rfind(b"\n") + 1] or cut
    return orjson.dumps(shortened(document))


def shortened(value: Any, most: int = 24) -> Any:
    """JSON with long lists thinned out."""
    if isinstance(value, dict):
        return {key: shortened(one, most) for key, one in value.items()}
    if isinstance(value, list):
        return [shortened(one, most) for one in value[:: max(1, len(value) // most)]]
    return value


#: what people write: where samples lie, and what reads one
WRITTEN: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "written/scenario": ("scenarios/*.yaml", load_scenario),
    "written/system": ("topologies/*.yaml", lambda path: load_system(str(path))),
    "written/accelerator": ("topologies/accelerators/*.yaml", lambda path: load_accelerator(str(path))),
    "written/stack": ("topologies/stacks/*.yaml", lambda path: load_stack(str(path))),
    "written/model": ("workloads/models/*.json", load_model),
    "written/log": ("tests/cases/logs/[ab]*.log", read_log),
}
REGISTRIES = {"trace": traces.IMPORTERS, "requests": requests.IMPORTERS, "jobs": jobs.IMPORTERS}


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to four changes."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out) + 1)
        to = min(len(out), at + draw.choice((1, 1, 2, 8, 64, 512)))
        what = draw.randrange(6)
        if what == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            del out[at:to]
        elif what == 2:
            out[at:at] = out[at:to]
        elif what == 3:
            out[at:to] = draw.choice(_WORDS)
        elif what == 4:
            out[at:at] = draw.choice(_WORDS)
        elif draw.random() < 0.3:
            del out[at:]
    return bytes(out)


def open_all(form: str, path: Path) -> str:
    """What became of a file: "read", or "refused"."""
    room, name = form.split("/")
    try:
        if form in WRITTEN:
            WRITTEN[form][1](path)
            return "read"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CmsimWarning)
            opened = REGISTRIES[room][name].open_(path, limit_B=_LIMIT_B)
            opened.counts()
            if room == "trace":
                traces.lower(opened.trace(ranks=None))
    except InputError as error:
        assert str(error), "an error without a word"
        return "refused"
    return "read"


def inputs(form: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` mutated samples of a format, the same for the same seed."""
    draw = random.Random(f"{form} {seed}")
    own = SAMPLES[form]
    for _ in range(count):
        name, data = draw.choice(own)
        damaged = mutated(data, draw)
        yield name, gzip.compress(damaged, 1) if draw.random() < 0.02 else damaged


SAMPLES = samples()


def fuzz(form: str, count: int, seed: int) -> tuple[str, Counter[str], float]:
    """Open ``count`` mutations; the slowest takes so long. [s]"""
    seen: Counter[str] = Counter()
    slowest_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, data) in enumerate(inputs(form, count, seed)):
            path = Path(folder) / name
            path.write_bytes(data)
            start_s = time.perf_counter()
            try:
                seen[open_all(form, path)] += 1
            except Exception as error:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{form.replace('/', '-')}-{seed}-{number}-{name}"
                kept.write_bytes(data)
                raise AssertionError(f"{form}: {type(error).__name__}: {error} (kept as {kept})") from error
            slowest_s = max(slowest_s, time.perf_counter() - start_s)
            path.unlink()
    return form, seen, slowest_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    forms = [form for form in SAMPLES if args.only in form]
    each = -(-args.inputs // len(forms))
    parts = 8
    total: dict[str, Counter[str]] = {form: Counter() for form in forms}
    slowest: dict[str, float] = dict.fromkeys(forms, 0.0)
    with ProcessPoolExecutor(args.jobs) as pool:
        waits = [
            pool.submit(fuzz, form, -(-each // parts), args.seed * parts + i) for i in range(parts) for form in forms
        ]
        for wait in waits:
            form, seen, slowest_s = wait.result()
            total[form] += seen
            slowest[form] = max(slowest[form], slowest_s)
    for form in forms:
        done = total[form]
        print(f"{form:24} {sum(done.values()):9,} inputs, {done['refused']:9,} refused, slowest {slowest[form]:.3f} s")
    print(f"{sum(sum(done.values()) for done in total.values()):,} inputs, every exception an InputError")
    return 0


if __name__ == "__main__":
    sys.exit(main())
