"""Predicts a million matrix multiplications as `cmsim predict gemm` does, Parquet in and out: seconds and memory.

    python benchmarks/kernels.py [ROWS] [--same]

All rows differ; with --same they repeat some 20,000 shapes, as tables of models do. The whole process counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CALL = """
import sys, warnings
warnings.simplefilter("ignore")
from cmsim.calibration import predict
predict("gemm", sys.argv[1], out=sys.argv[2])
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def mixed_rows(count: int, *, same: bool, seed: int = 1) -> dict[str, np.ndarray]:
    """Shapes from one row to 32,768, widths and depths from 64 to 65,536, two formats on two accelerators."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 20_000, count) if same else np.arange(count)
    pool = 20_000 if same else count
    columns = {
        "system": np.array(["h100_sxm", "gb200"])[rng.integers(0, 2, pool)],
        "dtype": np.array(["bfloat16", "fp8"])[rng.integers(0, 2, pool)],
        "m": rng.integers(1, 32_768, pool),
        "n": 64 * rng.integers(1, 1024, pool),
        "k": 64 * rng.integers(1, 1024, pool),
    }
    return {name: values[which] for name, values in columns.items()}


def main() -> None:
    import pandas as pd

    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    count = int(words[0]) if words else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "rows.parquet", Path(folder) / "predicted.parquet"
        pd.DataFrame(mixed_rows(count, same="--same" in sys.argv)).to_parquet(table, index=False)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(table), str(out)], capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - start
    print(f"{count:,} rows: {seconds:.2f} s with start, reading and writing; peak {int(done.stdout) / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
