"""Commands in files for containers: ``command`` and ``args`` of Kubernetes, compose and their like."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from cmsim.launch.config_files import Tree
from cmsim.launch.service.commands import in_image

#: commands of one file
_MOST = 64


#: what a text that starts a server or a client holds
_STARTS = re.compile(
    r"\b(vllm\s+(bench\s+)?serve|vllm\.entrypoints|sglang\.(launch_server|bench_serving)|trtllm-serve|dynamo\.\w+|"
    r"genai-perf|aiperf)\s"
)


@dataclass
class ContainerCommand:
    """What one container runs. ``copies``: how many of it; ``role``: prefill or decode, where the file says so."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    line: int = 1
    image: str = ""
    copies: int = 1
    role: str = ""
    name: str = ""
    #: of a file whose ``${NAME:-default}`` is put in before anything starts
    filled: bool = False

    def text(self) -> str:
        """The command as a line of a shell."""
        if len(self.words) == 1:
            return self.words[0]
        return " ".join(_filled(word) if self.filled else quoted(word) for word in self.words)


def command_lists(tree: Tree) -> list[ContainerCommand]:
    """Every command of a file for containers."""
    out: list[ContainerCommand] = []
    services = tree.data.get("services")
    group: dict[str, str] = {}  # what a controller of several nodes sets
    compose = isinstance(services, dict) and any(isinstance(one, dict) and "image" in one for one in services.values())

    def walk(value: Any, path: tuple[str | int, ...], copies: int, role: str, name: str) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("leaderTemplate") or value.get("workerTemplate"), dict):
                group.update(LWS_GROUP_SIZE=str(value.get("size", 1)), LWS_LEADER_ADDRESS="leader")
            for holder in (value, value.get("spec"), value.get("deploy")):
                if isinstance(holder, dict) and isinstance(holder.get("replicas"), int) and "image" not in holder:
                    copies = max(int(holder["replicas"]), 0)
            if compose and isinstance(value.get("scale"), int):
                copies = int(value["scale"])
            role = _role(value) or role
            meta = value.get("metadata")
            if isinstance(meta, dict) and isinstance(meta.get("name"), str):
                name = meta["name"]
            found = _command(value, compose)
            if found and copies:
                line = next(
                    (tree.line((*path, key)) for key in ("command", "entrypoint", "args") if key in value), None
                )
                variables = env_of(value.get("env") or value.get("environment"))
                if group:
                    variables = {**group, "LWS_WORKER_INDEX": str(int("workerTemplate" in path)), **variables}
                image = str(value.get("image") or "")
                out.append(ContainerCommand(found, variables, line or 1, image, copies, role, name, compose))
            for key, one in value.items():
                if isinstance(one, str) and key not in ("command", "args", "entrypoint") and _STARTS.search(one):
                    here = (tree.line((*path, key)) or 0) + ("\n" in one)
                    variables = env_of(value.get("envs") or value.get("env"))
                    out.append(ContainerCommand([one], variables, here, copies=copies, role=role, name=name))
                below = str(key) if key in ("prefill", "decode") and isinstance(one, dict) else role
                walk(one, (*path, key), copies, below, str(key) if path and path[-1] == "services" else name)
        elif isinstance(value, list):
            for n, one in enumerate(value):
                walk(one, (*path, n), copies, role, name)

    walk(tree.data, (), 1, "", "")
    return out[:_MOST]


def _command(value: dict[str, Any], compose: bool) -> list[str]:
    """Words of one container, those of its image in front."""

    def words(said: Any) -> list[str]:
        if isinstance(said, str):
            return [said]
        return [str(one) for one in said] if isinstance(said, list) else []

    def split(said: Any) -> list[str]:
        if not isinstance(said, str):
            return words(said)
        try:
            return shlex.split(said)
        except ValueError:
            return [said]

    command, args = words(value.get("command") or value.get("entrypoint")), words(value.get("args"))
    image = str(value.get("image") or "")
    entry = value.get("entrypoint")
    if isinstance(entry, list | str) and value.get("command"):
        command, args = words(entry), words(value.get("command"))
    if compose and value.get("command"):  # a text is split, and goes behind the entry point
        command, args = split(entry) if entry else [], split(value["command"])
        return [*command, *args] if entry else in_image(image, None, args)
    if args and not command:
        return in_image(image, None, args)
    return [*command, *args]


def _role(value: dict[str, Any]) -> str:
    """Which part of a service the file says that something does."""
    for key in ("subComponentType", "role", "component"):
        if value.get(key) in ("prefill", "decode"):
            return str(value[key])
    return ""


def env_of(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(one) for key, one in value.items() if one is not None}
    out = {}
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict) and "name" in one and one.get("value") is not None:
            out[str(one["name"])] = str(one["value"])
        elif isinstance(one, str) and "=" in one:
            out[one.partition("=")[0]] = one.partition("=")[2]
    return out


def _filled(word: str) -> str:
    """A word of a compose file: variables are put in, two dollars are one."""
    inner = re.sub(r'([\\"`])', r"\\\1", word).replace("$$", "\\$")
    return f'"{inner}"'


def quoted(word: str) -> str:
    r"""A word as it stands, but for ``$(NAME)``, which Kubernetes puts in.

    >>> quoted("--tp=$(TP) $x")
    '\'--tp=\'"${TP}"\' $x\''
    """
    return re.sub(r"\$\((\w+)\)", lambda found: f"'\"${{{found[1]}}}\"'", shlex.quote(word))
