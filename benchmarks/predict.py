"""Predicts a million rows of a table, as a user does: `cmsim predict KIND TABLE --out FILE`, Parquet in and out.

    python benchmarks/predict.py collective|deepep|moe_alltoall [ROWS]

Prints the seconds of that process alone; the table is made before.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LARGE = {"hidden_size": 7168, "num_topk": 8, "num_experts": 256}


def columns(kind: str, count: int, *, seed: int = 1) -> dict[str, Any]:
    """Rows that repeat as measured tables do, in a mixed order."""
    rng = np.random.default_rng(seed)
    tokens = 2 ** rng.integers(0, 13, count)
    if kind == "collective":
        return {
            "system": rng.choice(["hgx_h100", "gb200_nvl72", "hgx_a100"], count),
            "collective": rng.choice(["all_reduce", "all_gather", "reduce_scatter", "alltoall"], count),
            "n_ranks": rng.choice([2, 4, 8], count),
            "message_bytes": rng.integers(1 << 10, 1 << 30, count),
        }
    if kind == "deepep":
        return {
            "system": np.full(count, "h100_sxm"),
            "mode": rng.choice(["low_latency", "normal"], count),
            "node_num": rng.choice([1, 2, 4], count),
            "num_token": tokens,
            **LARGE,
            "sms": np.full(count, 20.0),
        }
    return {
        "system": np.full(count, "gb200"),
        "op_name": rng.choice(["alltoall_dispatch", "alltoall_combine"], count),
        "kernel_source": np.full(count, "NVLinkTwoSided"),
        "moe_dtype": np.full(count, "bfloat16"),
        "num_tokens": tokens,
        "hidden_size": 7168,
        "topk": 8,
        "num_experts": 256,
        "moe_ep_size": rng.choice([4, 8, 16, 32], count),
        "distribution": np.full(count, "balanced"),
    }


def main() -> None:
    kind = sys.argv[1]
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "rows.parquet", Path(folder) / "predicted.parquet"
        pd.DataFrame(columns(kind, rows)).to_parquet(table)
        start = time.perf_counter()
        command = [sys.executable, "-m", "cmsim", "predict", kind, str(table), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"{rows} rows: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
