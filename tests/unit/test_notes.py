"""Warnings of ours are one line for whoever sits at the command line."""

from __future__ import annotations

import subprocess
import sys


def test_a_guess_says_so_on_stderr():
    command = [
        sys.executable,
        "-m",
        "cmsim",
        "explain",
        "collective",
        "tpu_v4_pod",
        "all_reduce",
        "1M",
        "--ranks",
        "16",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "note: tpu_v4_pod: no measured rows of its links; constants common to all of nccl stand in"
    ]
