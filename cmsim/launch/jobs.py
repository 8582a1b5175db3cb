"""Training jobs among the commands that a script starts: which tool, with which words, on how many machines."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cmsim.launch.settings import is_flag
from cmsim.launch.shell import Shell, Started, is_unknown
from cmsim.launch.sizes import JobSizes, of_flags
from cmsim.launch.vocabulary import data, plain, vocabulary

Read = Callable[[str], str | None]
#: how deep scripts may start scripts
_DEEPEST = 6


@dataclass
class StartedJob:
    """One command that starts a known tool. ``words``: what stands behind its script."""

    tool: str
    script: str
    words: tuple[str, ...]
    line: int
    file: str
    launcher: str = ""
    launcher_words: tuple[str, ...] = ()
    sizes: JobSizes = field(default_factory=JobSizes)
    environment: Mapping[str, str] = field(default_factory=dict)
    exported: Mapping[str, str] = field(default_factory=dict)


def find(shell: Shell, read: Read, depth: int = 0) -> tuple[list[StartedJob], list[Shell]]:
    """Jobs of a script that was walked through, and the shells that it starts within."""
    jobs: list[StartedJob] = []
    shells = [shell]
    for started in shell.started:
        if str(started.argv[0]).startswith("-"):
            message = f"'{started.argv[0]}' begins a command of its own: the line before it does not go on"
            shell.note(message, started.line)
            continue
        found, inner = _unwrapped(started, shell, read, depth)
        jobs += found
        shells += inner
    return jobs, shells


def _unwrapped(started: Started, shell: Shell, read: Read, depth: int) -> tuple[list[StartedJob], list[Shell]]:
    programs = data("programs")
    words = list(started.argv)
    sizes = JobSizes(line=started.line)
    at = 0
    while at < len(words):
        word = words[at]
        name = posixpath.basename(word)
        after_option = (
            at > 0 and is_flag(words[at - 1]) and "=" not in words[at - 1] and len(words[at - 1].lstrip("-")) > 1
        )
        if name in programs["wrappers"]:
            of_flags(words[at + 1 :], programs["wrappers"][name], name, sizes)
            if at + 1 == len(words) and started.given and depth < _DEEPEST:  # sbatch with a script on its input
                return _within(started.given, shell.file, (), dict(started.exported), shell, read, depth, sizes)
        elif name in programs["shells"] or name in programs["texts"]:
            return _shell(words[at:], started, shell, read, sizes, depth)
        elif name in programs["launchers"] or (name in programs["pythons"] and not after_option):
            return _program(words[at:], started, shell, sizes), []
        elif re.search(r"\.(sh|bash|slurm|sbatch)$", name) and not after_option:
            if (text := read(word)) is not None and depth < _DEEPEST and (at == 0 or words[at - 1] != word):
                return _within(text, name, tuple(words[at + 1 :]), dict(started.exported), shell, read, depth, sizes)
            if tool := tool_of_script(word):
                return [_job(tool, word, words[at + 1 :], started, shell, sizes)], []
        elif (tool := tool_of_script(word)) and name.endswith(".py") and at == 0:
            return [_job(tool, word, words[at + 1 :], started, shell, sizes)], []
        elif name.rpartition(".")[0] == "" and tool_of_script(name) and at == 0:
            return [_job(str(tool_of_script(name)), word, words[at + 1 :], started, shell, sizes)], []
        at += 1
    return [], []


def _shell(
    words: list[str], started: Started, shell: Shell, read: Read, sizes: JobSizes, depth: int
) -> tuple[list[StartedJob], list[Shell]]:
    """``bash -c TEXT``, ``bash FILE``, ``ssh HOST TEXT``."""
    rest = words[1:]
    if depth >= _DEEPEST:
        shell.note("scripts start scripts too deep in each other", started.line)
        return [], []
    if posixpath.basename(words[0]) in data("programs")["texts"]:
        if started.given and not is_unknown(started.given):
            return _within(started.given, shell.file, (), {}, shell, read, depth, sizes)
        texts = [word for word in rest if " " in word or "\n" in word] or (
            [" ".join(rest[1:])] if len(rest) > 1 else []
        )
        return _within(texts[-1], shell.file, (), {}, shell, read, depth, sizes) if texts else ([], [])
    while rest and re.match(r"[-+]", rest[0]):
        option = rest.pop(0)
        if re.fullmatch(r"-[a-z]*c[a-z]*", option) and rest:
            return _within(
                rest[0],
                shell.file,
                tuple(rest[2:]),
                dict(started.exported),
                shell,
                read,
                depth,
                sizes,
                line=started.line,
            )
        if option in ("-o", "-O", "+o") and rest:
            rest.pop(0)
    if not rest or rest == ["-s"]:
        given = started.given or ""
        return _within(given, shell.file, (), {}, shell, read, depth, sizes) if given else ([], [])
    text = read(rest[0]) if not is_unknown(rest[0]) else None
    text = shell.files.get(rest[0], text)
    if text is not None:
        name = posixpath.basename(rest[0])
        return _within(text, name, tuple(rest[1:]), dict(started.exported), shell, read, depth, sizes)
    if tool := tool_of_script(rest[0]):
        return [_job(tool, rest[0], rest[1:], started, shell, sizes)], []
    shell.note(f"the script '{rest[0]}' is not there; what it starts is not known", started.line)
    return [], []


def _within(
    text: str,
    file: str,
    args: tuple[str, ...],
    given: Mapping[str, str],
    shell: Shell,
    read: Read,
    depth: int,
    sizes: JobSizes,
    line: int = 1,
) -> tuple[list[StartedJob], list[Shell]]:
    inner = Shell(file, path=file, args=args, given=given, read=read)
    inner.files = shell.files
    inner.steps = shell.steps
    inner.script(text, line=line)
    shell.steps = inner.steps
    jobs, shells = find(inner, read, depth + 1)
    for job in jobs:
        for key in ("nodes", "per_node", "total"):
            job.sizes.put(key, getattr(sizes, key), sizes.where.get(key, ""))
        for key, value in sizes.unknown.items():
            job.sizes.unknown.setdefault(key, value)
    return jobs, shells


def _program(words: list[str], started: Started, shell: Shell, sizes: JobSizes) -> list[StartedJob]:
    """A launcher or an interpreter, and the script behind it."""
    programs = data("programs")
    launcher = ""
    at = 0
    launcher_words: list[str] = []
    while at < len(words):
        name = posixpath.basename(words[at])
        module = words[at + 1] if words[at] in ("-m", "--module") and at + 1 < len(words) else ""
        if at == 0 and name in programs["launchers"]:
            launcher = name
        elif module in programs["launchers"]:
            launcher = module
            at += 1
        elif module:
            return _started(module, words[at + 2 :], launcher, launcher_words, started, shell, sizes)
        elif name in programs["launchers"] and at == 1 and launcher == "":
            launcher = name
        elif words[at].endswith(".py") and not is_flag(words[at]):
            return _started(words[at], words[at + 1 :], launcher, launcher_words, started, shell, sizes)
        elif at and launcher and "mindformer" in words[at] and " " in words[at]:
            inner = words[at].split()
            return _started(inner[0], inner[1:], launcher, launcher_words, started, shell, sizes)
        elif at:
            launcher_words.append(words[at])
        at += 1
    return []


def _started(
    script: str,
    rest: list[str],
    launcher: str,
    launcher_words: list[str],
    started: Started,
    shell: Shell,
    sizes: JobSizes,
) -> list[StartedJob]:
    tool = tool_of_script(script)
    tool = _refined(tool, rest, launcher, started)
    if tool is None:
        return []
    inner = JobSizes(line=started.line)
    if launcher:
        of_flags(launcher_words, data("programs")["launchers"][launcher], launcher, inner)
    for key in ("nodes", "per_node", "total"):  # what stands closer to the program counts
        inner.put(key, getattr(sizes, key), sizes.where.get(key, ""))
    inner.unknown |= {key: value for key, value in sizes.unknown.items() if getattr(inner, key) is None}
    job = _job(tool, script, rest, started, shell, inner)
    job.launcher, job.launcher_words = launcher, tuple(launcher_words)
    return [job]


def _job(tool: str, script: str, rest: Iterable[str], started: Started, shell: Shell, sizes: JobSizes) -> StartedJob:
    words = list(rest)
    if (
        words and " " in words[0] and tool == data("programs")["tools"][0]
    ):  # a launcher that takes its command as a text
        for key, count in zip(("total", "per_node"), words[1:3], strict=False):
            sizes.put(key, int(count) if count.isdigit() and len(count) < 7 else None, script)
        words = words[0].split()[1:]
    return StartedJob(
        tool,
        script,
        tuple(words),
        started.line,
        shell.file,
        sizes=sizes,
        environment=started.environment,
        exported=started.exported,
    )


def tool_of_script(script: str) -> str | None:
    """The tool whose scripts are called so."""
    for one in data("programs")["scripts"]:
        if re.search(one["pattern"], script):
            return str(one["tool"])
    return None


def _refined(tool: str | None, rest: list[str], launcher: str, started: Started) -> str | None:
    """Which of the tools that share a script this is: by flags that only one of them has."""
    flags = [plain(word.partition("=")[0]) for word in rest if is_flag(word)]
    if tool == "megatron" and _only("mindspeed", flags):
        return "mindspeed"
    if tool == "megatron" and any("mindspeed" in word.lower() for word in rest):
        return "mindspeed"
    if tool == "megatron" and any(name.startswith(("HCCL_", "ASCEND_", "TASK_QUEUE")) for name in started.exported):
        return "mindspeed"
    if tool == "megatron" and (
        launcher == "deepspeed" or any(flag.startswith(("deepspeed", "zero-stage")) for flag in flags)
    ):
        return "megatron_deepspeed"
    if tool is not None:
        return tool
    if "tensor-model-parallel-size" in flags or "pipeline-model-parallel-size" in flags:
        if _only("mindspeed", flags):
            return "mindspeed"
        return "megatron_deepspeed" if any(flag.startswith("deepspeed") for flag in flags) else "megatron"
    if any(flag.startswith(("parallelism.", "job.config")) for flag in flags):
        return "torchtitan"
    if launcher == "deepspeed" or any(flag in ("deepspeed", "deepspeed-config", "ds-config") for flag in flags):
        return "deepspeed"
    return None


def _only(tool: str, flags: Iterable[str]) -> bool:
    """Whether one of the flags is this tool's, and not one of the tool it extends."""
    own = vocabulary(tool)
    assert own.parent is not None
    return any(flag in own.exact and own.parent.meaning(flag).sort == "unknown" for flag in flags)
