"""Timing kernels on the accelerator at hand, through PyTorch (cuda or npu), into tables that ``calibrate`` reads.

    gemm                  C[m,n] = A[m,k] B[k,n], bf16 and, where the chip has it, fp8
    attention_context     causal attention over a prompt        attention_generation  one token against a cache
    copy                  device memory to device memory, read and written
    launch                host time to issue an operation, and device time between two of one captured graph
    power                 of the board, idle and under matrix products

A time is the median of several windows; a window holds enough calls to last ``_WINDOW_S``. Where the device can capture
graphs, calls are replayed from one, so that the host does not count. Inputs are random (zeros run faster), and calls
walk through copies of them that together outgrow the cache. Nothing of the device's settings is changed.

Leaves out: clocks and temperature, which are as they come; kernels that PyTorch does not choose.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cmsim.errors import InputError
from cmsim.kernels.families import measured
from cmsim.reading import whole_folder

Row = dict[str, Any]

#: length of a timed window, and how many are taken
_WINDOW_S, _WINDOWS = 0.02, 5
#: calls of one window at most
_MOST_CALLS = 2000
#: bytes that copies of inputs must outgrow: larger than the last cache of today's chips
_CACHE_B = 256e6
#: seconds to let the board settle, and to keep it busy, while power is read
_IDLE_S, _BUSY_S = 3.0, 5.0

_M = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
_PROMPTS = ((1, 512), (1, 2048), (1, 8192), (4, 1024), (16, 512), (8, 4096), (2, 16384))
_CACHES = ((1, 1024), (1, 8192), (1, 65536), (8, 1024), (8, 8192), (64, 512), (64, 4096), (256, 1024), (256, 4096))
_COPIES = tuple(2**power for power in range(10, 33, 2))


@dataclass(frozen=True)
class Device:
    """An accelerator as PyTorch shows it. ``kind`` is cuda or npu; ``torch`` the module."""

    kind: str
    name: str
    torch: Any

    @property
    def backend(self) -> Any:
        return getattr(self.torch, self.kind)

    def tensor(self, *shape: int, dtype: Any) -> Any:
        """Random numbers of a sensible size."""
        made = self.torch.randn(*shape, device=self.kind, dtype=self.torch.bfloat16) / 8
        return made if dtype == self.torch.bfloat16 else made.to(dtype)


def device() -> Device:
    """The accelerator at hand. Raises InputError where PyTorch or an accelerator is missing."""
    try:
        import torch
    except ImportError:
        raise InputError("--measure needs PyTorch, which is not installed: pip install 'cmsim[measure]'") from None
    if torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_name(0), torch)
    try:
        import torch_npu  # noqa: F401  # registers torch.npu
    except ImportError:
        raise InputError("--measure needs an accelerator; PyTorch sees none (cuda, npu)") from None
    if not torch.npu.is_available():
        raise InputError("--measure needs an accelerator; PyTorch sees none (cuda, npu)")
    return Device("npu", torch.npu.get_device_name(0), torch)


def measure(
    out: str | Path,
    *,
    accelerator: str = "",
    kinds: Sequence[str] = (),
    quick: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Time everything and write a folder: a table for each kind, and measured.json with what it was measured on.

    out          folder, complete or absent    accelerator  what rows call it; default the device's own name
    kinds        of ``KINDS``; default all    quick  a fifth of the shapes    progress: kind, row, rows of the kind
    Returns the number of rows of each kind.

    InputError: no PyTorch, no accelerator, an unknown kind, a folder that is there already.
    """
    found = device()
    folder = Path(out)
    if folder.exists():
        raise InputError(f"{folder}: exists already; --measure writes a new folder")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"no measurement of kind '{unknown[0]}'. Allowed: {', '.join(KINDS)}.")
    counts = {}
    with whole_folder(folder) as beside:
        for kind in kinds or KINDS:
            rows = []
            for number, row in enumerate(KINDS[kind](found, quick)):
                rows.append({"system": accelerator or found.name, **row})
                if progress is not None:
                    progress(kind, number + 1, 0)
            if not rows:
                continue
            _write(rows, beside / f"{kind}.parquet")
            counts[kind] = len(rows)
        about = {"device": found.name, "through": f"torch {found.torch.__version__}", "rows": counts}
        (beside / "measured.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return counts


def time_us(found: Device, calls: Sequence[Callable[[], object]]) -> float:
    """Device time of one call, of several equal ones on inputs of their own that are taken in turn. [us]"""
    torch, backend = found.torch, found.backend
    for call in calls[:3]:
        call()
    backend.synchronize()
    once_s = _timed_s(found, lambda: [call() for call in calls[:2]]) / min(len(calls), 2)
    count = int(min(max(_WINDOW_S / max(once_s, 1e-7), 3), _MOST_CALLS))
    order = [calls[i % len(calls)] for i in range(count)]
    if found.kind == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in order:
                call()
        run: Callable[[], object] = graph.replay
    else:
        run = lambda: [call() for call in order]  # noqa: E731
    run()
    backend.synchronize()
    return median(_timed_s(found, run) for _ in range(_WINDOWS)) / count * 1e6


def _timed_s(found: Device, run: Callable[[], object]) -> float:
    start, end = (found.backend.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    found.backend.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _copies(bytes_B: float) -> int:
    """How many sets of inputs outgrow the cache."""
    return int(min(max(_CACHE_B // max(bytes_B, 1) + 1, 2), 64))


def _thin(shapes: Sequence[Any], quick: bool) -> Sequence[Any]:
    return shapes[::5] if quick else shapes


def _gemm(found: Device, quick: bool) -> Iterator[Row]:
    torch = found.torch
    shapes = [(m, n, k) for n, k in measured("gemm") for m in _M]
    for m, n, k in _thin(shapes, quick):
        sets = _copies(2 * (m * k + k * n))
        pairs = [
            (found.tensor(m, k, dtype=torch.bfloat16), found.tensor(n, k, dtype=torch.bfloat16)) for _ in range(sets)
        ]
        calls = [lambda a=a, b=b: torch.nn.functional.linear(a, b) for a, b in pairs]
        yield {"kernel": "torch", "dtype": "bfloat16", "m": m, "n": n, "k": k, "latency_us": time_us(found, calls)}
    if found.kind != "cuda" or torch.cuda.get_device_capability() < (8, 9):
        return
    one = torch.ones((), device="cuda")
    for m, n, k in _thin(shapes, quick):
        if m % 16:
            continue
        sets = _copies(m * k + k * n)
        pairs = [
            (found.tensor(m, k, dtype=torch.float8_e4m3fn), found.tensor(n, k, dtype=torch.float8_e4m3fn).t())
            for _ in range(sets)
        ]
        calls = [
            lambda a=a, b=b: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
            for a, b in pairs
        ]
        yield {"kernel": "torch", "dtype": "fp8", "m": m, "n": n, "k": k, "latency_us": time_us(found, calls)}


def _attention(found: Device, batch: int, queries: int, keys: int, heads: tuple[int, ...], causal: bool) -> float:
    torch = found.torch
    count, kv_heads, width = heads
    kv_B = 4.0 * batch * kv_heads * keys * width
    sets = []
    for _ in range(_copies(kv_B)):
        q = found.tensor(batch, count, queries, width, dtype=torch.bfloat16)
        k, v = (found.tensor(batch, kv_heads, keys, width, dtype=torch.bfloat16) for _ in range(2))
        sets.append((q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    calls = [lambda q=q, k=k, v=v: attend(q, k, v, is_causal=causal, enable_gqa=kv_heads != count) for q, k, v in sets]
    return time_us(found, calls)


def _heads(heads: tuple[int, ...]) -> Row:
    formats = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "window_size": 0, "kernel_source": "torch"}
    return dict(zip(("num_heads", "num_key_value_heads", "head_dim"), heads, strict=True)) | formats


def _context(found: Device, quick: bool) -> Iterator[Row]:
    for batch, tokens in _thin(_PROMPTS, quick):
        for heads in measured("attention"):
            latency_us = _attention(found, batch, tokens, tokens, heads, causal=True)
            yield {"batch_size": batch, "isl": tokens, **_heads(heads), "step": 0, "latency_us": latency_us}


def _generation(found: Device, quick: bool) -> Iterator[Row]:
    for batch, tokens in _thin(_CACHES, quick):
        for heads in measured("attention"):
            if 4.0 * batch * heads[1] * tokens * heads[2] > 8e9:
                continue
            latency_us = _attention(found, batch, 1, tokens, heads, causal=False)
            yield {"batch_size": batch, "isl": 1, **_heads(heads), "step": tokens - 1, "latency_us": latency_us}


def _copy(found: Device, _quick: bool) -> Iterator[Row]:
    torch = found.torch
    for size in _COPIES:
        sets = [torch.empty(2, size // 2, device=found.kind, dtype=torch.bfloat16) for _ in range(_copies(2 * size))]
        calls = [lambda pair=pair: pair[1].copy_(pair[0]) for pair in sets]
        latency_us = time_us(found, calls)
        yield {"bytes": size, "latency_us": latency_us, "read_and_written_GBps": 2 * size / latency_us / 1e3}


def _launch(found: Device, _quick: bool) -> Iterator[Row]:
    torch = found.torch
    small = torch.zeros(64, device=found.kind)
    count = 2000

    def issue() -> None:
        for _ in range(count):
            small.add_(1.0)

    issue()
    found.backend.synchronize()
    host = []
    for _ in range(_WINDOWS):
        start = time.perf_counter()
        issue()
        found.backend.synchronize()
        host.append(time.perf_counter() - start)
    yield {"how": "eager", "latency_us": median(host) / count * 1e6}
    yield {
        "how": "graph" if found.kind == "cuda" else "stream",
        "latency_us": time_us(found, [lambda: small.add_(1.0)]),
    }


def _power(found: Device, _quick: bool) -> Iterator[Row]:
    found.backend.synchronize()
    time.sleep(_IDLE_S)
    idle = board_W(found)
    if idle is None:
        return
    yield {"state": "idle", "power_W": idle}
    torch = found.torch
    a, b = (found.tensor(8192, 8192, dtype=torch.bfloat16) for _ in range(2))
    until = time.perf_counter() + _BUSY_S
    read = []
    while time.perf_counter() < until:
        for _ in range(64):
            torch.matmul(a, b)
        watts = board_W(found)
        read += [] if watts is None else [watts]
        found.backend.synchronize()
    yield {"state": "matrix products", "power_W": max(read)}


def board_W(found: Device) -> float | None:
    """What the board draws now, by the vendor's own tool; None where there is none. [W]"""
    if found.kind != "cuda" or shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=power.draw.instant", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return float(said.strip().splitlines()[0])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None


#: what can be measured, in order
KINDS: Mapping[str, Callable[[Device, bool], Iterator[Row]]] = {
    "power": _power,
    "launch": _launch,
    "copy": _copy,
    "gemm": _gemm,
    "attention_context": _context,
    "attention_generation": _generation,
}


def _write(rows: Sequence[Row], path: Path) -> None:
    import pandas as pd

    pd.DataFrame(list(rows)).to_parquet(path, index=False)
