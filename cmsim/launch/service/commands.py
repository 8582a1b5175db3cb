"""Servers and clients among the commands that a script starts, whatever stands in front of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cmsim.launch.shell import Said, Shell, Started, is_unknown
from cmsim.launch.vocabulary import data

#: options of `docker run` that take no value
_ALONE = frozenset(
    [
        "--rm",
        "-d",
        "-i",
        "-t",
        "-it",
        "-ti",
        "-dit",
        "-itd",
        "-td",
        "-di",
        "-id",
        "--detach",
        "--interactive",
        "--tty",
        "--privileged",
        "--init",
        "--read-only",
        "-P",
        "--publish-all",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--sig-proxy",
        "--disable-content-trust",
        "-q",
        "--quiet",
    ]
)
_DOCKERS = ("docker", "podman", "nerdctl")
#: programs that name another one, and start none
_OTHERS = frozenset(
    [
        "pkill",
        "pgrep",
        "killall",
        "kill",
        "ps",
        "grep",
        "which",
        "whereis",
        "pip",
        "pip3",
        "uv-pip",
        "curl",
        "wget",
        "apt-get",
        "conda",
        "tail",
        "cat",
    ]
)


@dataclass
class Command:
    """One command of a known tool. ``words``: what stands behind its name; ``exported``: what it finds set."""

    tool: str
    words: list[str]
    line: int
    file: str
    exported: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: str = ""
    image: str = ""
    #: programs in front whose flags are none of the tool's
    fronts: list[str] = field(default_factory=list)
    devices: int | None = None
    copies: int = 1
    nodes: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    name: str = ""


def find(shells: Iterable[Shell]) -> list[Command]:
    """Commands of known tools, in the order they are started."""
    out: list[Command] = []
    around: list[tuple[int, int, _Inside]] = []
    for n, shell in enumerate(shells):
        for started in shell.started:
            if (inside := _around_a_text(started)) is not None:
                lines = sum(str(word).count("\n") for word in started.argv)
                around.append((started.line, started.line + lines, inside))
            found = of_words(list(started.argv), started, shell.file)
            if found is None:
                continue
            found.files = shell.files
            holder = next((one for first, last, one in around if n and first <= found.line <= last), None)
            if holder is not None:
                found.exported = {**holder.exported, **found.exported}
                found.image, found.devices = found.image or holder.image, found.devices or holder.devices
                found.fronts = [*found.fronts, "docker"]
            out.append(found)
    return out


def _around_a_text(started: Started) -> _Inside | None:
    """The container of a command such as ``docker run IMAGE bash -c TEXT``."""
    words = list(started.argv)
    if posixpath.basename(words[0]) not in _DOCKERS or words[1:2] != ["run"]:
        return None
    inside = _container(words[2:])
    return inside if inside.words and posixpath.basename(inside.words[0]) in data("programs")["shells"] else None


def of_words(words: list[str], started: Started, file: str) -> Command | None:
    """The command of a tool in a command line, wherever it begins."""
    programs = data("programs")
    exported = dict(started.exported)
    if words and posixpath.basename(words[0]) in _OTHERS:
        return None
    fronts: list[str] = []
    image, devices = "", None
    nodes = None
    at = 0
    while at < len(words):
        name = posixpath.basename(words[at])
        if name in programs["shells"] or name in programs["texts"]:
            return None  # what they start is found in the text
        if name in _DOCKERS and words[at + 1 : at + 2] == ["run"]:
            inside = _container(words[at + 2 :])
            fronts.append("docker")
            image, devices = inside.image, inside.devices
            exported |= inside.exported
            words, at = inside.words, 0
            continue
        if name in ("mpirun", "mpiexec") and words[at + 1 : at + 2] and words[at + 1].startswith("-"):
            fronts.append("mpirun")
        if name == "srun" and words[at + 1 : at + 2] and words[at + 1].startswith("-"):
            fronts.append("srun")
            nodes = _nodes(words[at + 1 :])
        if (found := _tool(words, at)) is not None:
            tool, rest, wrapper = found
            out = Command(
                tool, rest, started.line, file, exported, started.environment, wrapper, image, fronts, devices
            )
            out.nodes = nodes
            return out
        at += 1
    return None


def _nodes(words: list[str]) -> int | None:
    for at, word in enumerate(words):
        if found := re.fullmatch(r"(?:-N|--nodes=?)(\d{1,5})?", word):
            text = found[1] or (words[at + 1] if at + 1 < len(words) else "")
            return int(text) if text.isdigit() and len(text) < 6 else None
    return None


def _tool(words: list[str], at: int) -> tuple[str, list[str], str] | None:
    """(tool, words behind it, wrapper) where a known tool begins."""
    programs = data("serving")["programs"]
    name = posixpath.basename(words[at])
    before = posixpath.basename(words[at - 1]) if at else ""
    for one in programs["commands"]:
        many = len(one["words"])
        if name == one["words"][0] and [str(word) for word in words[at + 1 : at + many]] == one["words"][1:]:
            if many == 1 and before in ("--name", "--container-name", "--job-name", "-J", "--hostname", "-f"):
                return None
            return one["tool"], words[at + many :], ""
    module = ""
    if words[at] == "-m" and re.match(r"(python|torchrun|ray|trtllm-llmapi-launch|nsys|coverage)", before or "python"):
        module, rest = (words[at + 1] if at + 1 < len(words) else ""), words[at + 2 :]
    elif name.endswith(".py") and (at == 0 or re.match(r"(python|uv|run)", before) or before.startswith("-u")):
        module, rest = str(words[at]), words[at + 1 :]
    if not module:
        return None
    if rest[:2] == ["bench", "serve"] and module.startswith("vllm"):
        return "vllm_bench", rest[2:], ""
    if rest[:1] == ["serve"] and module.startswith("vllm"):
        rest = rest[1:]
    for one in programs["modules"]:
        if re.search(one["pattern"], module):
            return one["tool"], rest, one.get("wrapper", "")
    return None


@dataclass
class _Inside:
    image: str
    words: list[str]
    exported: dict[str, str]
    devices: int | None = None


def _container(words: list[str]) -> _Inside:
    """What `docker run` starts inside: words behind the image, with its entry point in front."""
    exported: dict[str, str] = {}
    entry: str | None = None
    devices: int | None = None
    at = 0
    while at < len(words) and words[at].startswith("-"):
        word, equals, value = words[at].partition("=")
        if not equals and word not in _ALONE and at + 1 < len(words):
            at += 1
            value = words[at]
        if word in ("-e", "--env"):
            name, _, said = value.partition("=")
            exported[name] = said
        elif word == "--entrypoint":
            entry = value
        elif word == "--gpus":
            devices = of_devices(value.replace("device=", "").strip("'\""), counts=True)
        at += 1
    image = words[at] if at < len(words) else ""
    rest = words[at + 1 :]
    return _Inside(image, in_image(image, [entry] if entry else None, rest), exported, devices)


def in_image(image: str, entry: list[str] | None, rest: list[str]) -> list[str]:
    """A container's whole command; an image of a server has one of its own."""
    if entry:
        return [*entry, *rest]
    line = next((word.line for word in rest if isinstance(word, Said)), 0)
    for one in data("serving")["programs"]["images"]:
        if (
            re.search(one["pattern"], image)
            and rest
            and rest[0] not in ("vllm", "bash", "sh", "/bin/sh", "/bin/bash", "python3", "python")
        ):
            return [*(Said(word, line) for word in one["words"]), *rest]
    return rest


def of_devices(text: str, *, counts: bool = False) -> int | None:
    """How many devices a list such as ``0,1,2,3`` names."""
    text = text.strip().strip("'\"")
    if not text or is_unknown(text) or text in ("all", "-1", "none", "void"):
        return None
    if counts and re.fullmatch(r"\d{1,3}", text):
        return int(text)
    listed = [one for one in text.split(",") if one.strip()]
    return len(listed) if all(re.fullmatch(r"\s*(\d{1,4}|[\w:.-]+)\s*", one) for one in listed) else None
