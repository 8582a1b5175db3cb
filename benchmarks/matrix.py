"""Draws the matrix of an exchange among 1,024 ranks, for the benchmark ``flow_random_1024``.

    python benchmarks/matrix.py

Writes benchmarks/scenarios/random_1024.csv, bytes from row to column: up to a mebibyte each, the same ones every time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

RANKS, MOST_B, SEED = 1024, 1 << 20, 1


def main() -> None:
    drawn = np.random.default_rng(SEED).integers(1, MOST_B, (RANKS, RANKS)).tolist()
    path = Path(__file__).parent / "scenarios" / "random_1024.csv"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
