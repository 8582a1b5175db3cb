"""Summaries of a service in the forms that other tools print, to be held against theirs line by line."""

from __future__ import annotations

from collections.abc import Iterable

from cmsim.results import Result

#: forms by name
NAMES = ("vllm",)
_WIDE = 50
#: sections of times: metric, what it is called, and its abbreviation
_TIMES = (
    ("ttft", "Time to First Token", "TTFT"),
    ("tpot", "Time per Output Token (excl. 1st token)", "TPOT"),
    ("itl", "Inter-token Latency", "ITL"),
    ("e2e", "End-to-end Latency", "E2EL"),
)


def vllm(results: Iterable[Result]) -> str:
    """As `vllm bench serve` ends; nothing of runs of other kinds.

    Source: vllm-project/vllm, vllm/benchmarks/serve.py: the same lines in the same order. What an unstable service
    makes of times to the first token is left out here too.
    """
    return "\n".join("\n".join(_of(one)) for one in results if one.kind == "serving")


def _of(one: Result) -> list[str]:
    metrics, facts = one.metrics, one.facts.named()
    run_s = float(metrics["makespan_s"])
    tokens = round(float(metrics["output_tokens_per_s"]) * run_s)
    lines = [one.run, " Serving Benchmark Result ".center(_WIDE, "=")]
    lines += [
        _line("Successful requests:", f"{round(float(metrics['requests_done']))}"),
        _line(
            "Failed requests:",
            f"{round(float(metrics['requests_timed_out']) + float(metrics['requests_refused']))}",
        ),
    ]
    if users := facts.get("users"):
        lines.append(_line("Maximum request concurrency:", f"{users:.0f}"))
    lines += [
        _line("Benchmark duration (s):", f"{run_s:.2f}"),
        _line("Total input tokens:", f"{round(float(metrics['total_tokens_per_s']) * run_s) - tokens}"),
        _line("Total generated tokens:", f"{tokens}"),
        _line("Request throughput (req/s):", f"{float(metrics['requests_per_s']):.2f}"),
        _line("Output token throughput (tok/s):", f"{float(metrics['output_tokens_per_s']):.2f}"),
        _line("Total Token throughput (tok/s):", f"{float(metrics['total_tokens_per_s']):.2f}"),
    ]
    for name, title, short in _TIMES:
        if f"{name}_mean_s" in metrics:
            lines.append(title.center(_WIDE, "-"))
            for words, metric in (("Mean", "mean_s"), ("Median", "s_p50"), ("P99", "s_p99")):
                lines.append(_line(f"{words} {short} (ms):", f"{1e3 * float(metrics[f'{name}_{metric}']):.2f}"))
    return [*lines, "=" * _WIDE]


def _line(what: str, value: str) -> str:
    return f"{what:<40} {value:<10}".rstrip()
