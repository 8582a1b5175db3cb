"""A first scenario, from three answers: which machines, which model, which question."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmsim.cli import say
from cmsim.errors import InputError, Problem, did_you_mean

#: what may be asked, and the workload that asks it; plans are left to `best`
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "training": (
        "How long is a step of training, and what limits it?",
        """\
  model: {model}
  global_batch: 128
  micro_batch: 1
  sequence_length: 4096
  parallel: {{tp: best, pp: best}}
  recompute: best
""",
    ),
    "prefill": (
        "How long does a first token take?",
        """\
  model: {model}
  prompt_tokens: 4096
  batch_per_accelerator: 1
  parallel: {{tp: best, ep: best}}
""",
    ),
    "decode": (
        "How quickly do tokens come, and how many of them, by batch?",
        """\
  model: {model}
  batch_per_accelerator: 16
  context_tokens: 4096
  parallel: {{tp: best, ep: best}}
sweep: {{workload.batch_per_accelerator: [1, 4, 16, 64]}}
""",
    ),
    "serving": (
        "What do users wait, at a request a second and more?",
        """\
  model: {model}
  arrivals: {{process: poisson, rate_per_s: 1, requests: 300}}
  lengths: {{prompt_tokens: 2048, output_tokens: 256}}
  parallel: {{tp: best, ep: best}}
  slo: {{ttft_s: 2, tpot_s: 0.05}}
sweep: {{workload.arrivals.rate_per_s: [1, 2, 4]}}
""",
    ),
    "collective": (
        "How long does an all-reduce take, by size?",
        """\
  collective: all_reduce
  message_bytes: [1048576, 67108864, 1073741824]
""",
    ),
}
_HEAD = """\
# {question}
name: {name}
systems: [{systems}]
workload:
  kind: {kind}
"""
_FOOT = "# next: cmsim run {file}; cmsim check {file}; `cmsim schema` prints all keys\n"


def first(systems: Sequence[str], model: str | None, kind: str | None) -> tuple[str, str]:
    """(name, text) of a scenario, what is not given asked for. Raises InputError where nobody can be asked."""
    from cmsim.cli.complete import builtin

    kind = _one("kind", "What is asked", kind, list(QUESTIONS), "decode")
    known = builtin("topologies")
    names = [_one("system", "Which machine", name, known, None) for name in systems] or [
        _one("system", "Which machine", None, known, known[0])
    ]
    if kind != "collective":
        model = _one("model", "Which model", model, builtin("workloads/models", pattern="*.json"), None)
    question, body = QUESTIONS[kind]
    name = " ".join(filter(None, (kind, "of" if model else "", model or "", "on", " and ".join(names))))
    head = _HEAD.format(question=question, name=name, systems=", ".join(names), kind=kind)
    return "-".join(filter(None, (kind, Path(model).name if model else ""))), head + body.format(model=model)


def foot(file: Path) -> str:
    """What comes next, as the last line of the file."""
    return _FOOT.format(file=file)


def _one(key: str, question: str, given: str | None, known: Sequence[str], usual: str | None) -> str:
    """An answer that is one of those known; a file for machines and models, too."""
    if given is None:
        if not _asks():
            raise InputError(Problem(f"is needed where nobody can be asked. {did_you_mean('', known)}", f"--{key}"))
        import typer

        say.message(f"{question}? One of {', '.join(known)}")
        given = str(typer.prompt(key, default=usual, err=True))
    if given in known or (key != "kind" and Path(given).suffix in (".yaml", ".json") and Path(given).is_file()):
        return given
    raise InputError(Problem(f"got '{given}'. {did_you_mean(given, known)}", f"--{key}"))


def _asks() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty()


__all__ = ["QUESTIONS", "first", "foot"]
