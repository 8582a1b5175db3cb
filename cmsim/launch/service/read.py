"""Launch files of serving tools and of benchmark clients as plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.launch.config_files import Tree, read_tree
from cmsim.launch.service import assemble, clients, documents, machine, mindie, sglang, trt, vllm
from cmsim.launch.service.commands import Command, find, of_devices
from cmsim.launch.service.flags import environment, of_tree, of_words
from cmsim.launch.service.plan import ORDER, Engine, ServicePlan, guess_of_path
from cmsim.launch.settings import Settings
from cmsim.launch.shell import Shell, is_unknown, shown
from cmsim.launch.sources import KINDS
from cmsim.launch.vocabulary import data, vocabulary

_RESOLVE = {
    "vllm": vllm.resolve,
    "vllm_ascend": vllm.resolve,
    "sglang": sglang.resolve,
    "trt": trt.resolve,
    "mindie": mindie.resolve,
}
#: plans of one file
_MOST = 64


class ServiceReader:
    """Reads what one file starts. ``texts``: (text, where it stands), the words that may name the machine."""

    def __init__(
        self,
        path: Path,
        read: Callable[[str], str | None],
        texts: list[tuple[str, str]],
        given: Mapping[str, str],
        *,
        notes: Iterable[str] = (),
        assume: str | None = None,
    ):
        self.path = path
        self.read = read
        self.texts = texts
        self.given = given
        self.notes = list(notes)
        self.assume = assume
        self.variables: dict[str, str] = {}

    # what is started

    def of_shells(self, shells: Iterable[Shell]) -> list[ServicePlan]:
        """Plans of the servers and clients that a script starts; none where it starts none."""
        shells = list(shells)
        for shell in shells[:1]:
            self.variables = {name: value for name, value in shell.variables.items() if isinstance(value, str)}
        return self.of_commands(find(shells))

    def of_commands(self, found: list[Command]) -> list[ServicePlan]:
        programs = data("serving")["programs"]
        servers = [one for one in found if one.tool in _RESOLVE]
        others = [one for one in found if one.tool in programs["clients"]]
        proxies = [one for one in found if one.tool == "proxy"]
        roles = [one for one in found if one.tool == "trt_disagg"]
        plans = self._services(servers, proxies)
        for one in roles:
            plans += self._roles(one)
        runs = self._clients(others)
        if plans:
            for plan in plans:
                own = [one for one in runs if len(plans) > 1 and one.values.get("model") == plan.values.get("model")]
                if own or runs:
                    self._workload(plan, own or runs)
        else:
            plans = [self._benchmark(one) for one in runs]
        if len(plans) > _MOST:
            raise InputError(Problem(f"starts {len(plans)} services; allowed: up to {_MOST}", str(self.path)))
        return plans

    def _services(self, servers: list[Command], proxies: list[Command]) -> list[ServicePlan]:
        engines: list[Engine] = []
        for command in servers:
            engine = self._engine(command)
            engine.instances = command.copies
            if command.nodes and engine.nodes is None and engine.world % command.nodes == 0:
                engine.nodes, engine.per_node = command.nodes, engine.world // command.nodes
            if command.role:
                engine.role = command.role
                if engine.transfer is None and command.wrapper:
                    engine.transfer = "nixl"
                    engine.defaults["disaggregated.transfer"] = "nixl"
            engines.append(engine)
        _ask_proxies(engines, proxies)
        if len(engines) == 1 or all(one.role == "both" for one in engines):
            for one in engines:
                if one.role == "both":  # a cache beside it, or one of two that nothing tells apart
                    one.role = ""
                    one.settings.unread[one.settings.by_key["kv_transfer"].name] = None
        different = assemble.copies(engines)
        groups: list[list[Engine]] = []
        for one in different:
            if one.role and groups and groups[-1][0].role:
                groups[-1].append(one)
            else:
                groups.append([one])
        plans = []
        for n, group in enumerate(groups, 1):
            plan = self._begin()
            first = group[0]
            plan.values["model"] = first.values.get("model")
            documents.finish(plan, group, style=_style(first))
            for one in group:
                assemble.sets(plan, one.settings, one.page)
            if len(groups) > 1:
                plan.details["name"] = first.name or f"server {n}"
            plans.append(self._end(plan, first))
        return plans

    def _roles(self, command: Command) -> list[ServicePlan]:
        """``trtllm-serve disaggregated -c FILE``."""
        named = next(
            (
                command.words[n + 1]
                for n, word in enumerate(command.words[:-1])
                if word in ("-c", "--config_file", "--config-file")
            ),
            None,
        )
        text = self._file(named, command.files) if named else None
        if text is None:
            raise InputError(
                Problem(f"the file '{shown(named or '-c')}' with the servers is not there", command.file, command.line)
            )
        tree = read_tree(text, Path(named or "").name, kind="yaml")
        plan = self._begin()
        documents.roles(tree, Path(named or "").name, plan, self._resolver())
        return [self._end(plan, plan.details["engines"]["prefill"])]

    def _engine(self, command: Command) -> Engine:
        name = "vllm_ascend" if command.tool == "vllm" and self._is_npu(command) else command.tool
        words = vocabulary(name)
        settings = Settings()
        rest = list(command.words)
        config, rest = self._config(name, rest, settings)
        first = Settings()
        alone = of_words(rest, words, command.file, first)
        if name == "trt":  # its file counts more than its flags
            first.unread = {key.lstrip("-"): None for key in first.unread}  # as the file has them
            _over(settings, first)
            if config is not None:
                self._settings_file(name, config, command, settings)
        else:
            if config is not None:
                self._settings_file(name, config, command, settings)
            _over(settings, first)
        environment(command.exported, self.given, settings)
        for front in command.fronts:
            settings.ignored[f"{front} flags"] = None
        model = settings.text("model") if settings.has("model") else None
        if alone and name in ("vllm", "vllm_ascend", "trt") and not model:
            model = alone.pop(0)
        for word in alone:
            settings.notes.append(f"line {getattr(word, 'line', command.line)}: '{shown(word)}' belongs to no flag")
        self._container_flags(command, settings)
        engine = self._resolver()(name, settings, model, wrapper=command.wrapper)
        engine.name = command.name
        version = re.search(r":v?(\d+\.\d+(?:\.\d+)?)", command.image)
        tags = data("serving")["programs"]["tags"]
        if version and command.wrapper:
            engine.basis = f"{command.wrapper.capitalize()} {version[1]} (image tag); meanings of {engine.basis}"
        elif version and command.tool in tags and not engine.settings.deprecated.keys() - {"deepseek_mtp"}:
            engine.basis = str(tags[command.tool]).format(version=version[1])
        port = command.words[command.words.index("--port") + 1 :][:1] if "--port" in command.words else []
        engine.port = (
            port[0] if port else next((w.partition("=")[2] for w in command.words if w.startswith("--port=")), "")
        )
        self._devices(command, engine)
        return engine

    def _container_flags(self, command: Command, settings: Settings) -> None:
        """Flags of workers that are started by a wrapper."""
        for name in list(settings.unknown):
            plainly = name.lstrip("-").replace("_", "-")
            if plainly in ("is-prefill-worker", "is-decode-worker"):
                command.role = "prefill" if "prefill" in plainly else "decode"
                settings.unknown.pop(name)
            elif command.wrapper == "dynamo" and plainly == "disaggregation-mode":
                command.role = str(settings.unknown[name].value)
                command.role = command.role if command.role in ("prefill", "decode") else ""
                settings.unknown.pop(name)
            elif command.wrapper == "dynamo" and plainly in (
                *(
                    "connector",
                    "endpoint",
                    "migration-limit",
                    "dyn-tool-call-parser",
                    "dyn-reasoning-parser",
                    "discovery-backend",
                ),
                *(
                    "publish-events-and-metrics",
                    "store-kv",
                    "request-plane",
                    "event-plane",
                    "component",
                    "namespace",
                    "kv-events",
                ),
            ):
                settings.ignored[name] = None
                settings.unknown.pop(name)

    def _devices(self, command: Command, engine: Engine) -> None:
        names = data("serving")["devices"]
        seen = next((of_devices(command.exported[name]) for name in names if command.exported.get(name)), None)
        seen = seen if seen is not None else command.devices
        local = engine.per_node or engine.world
        if seen is not None and seen < local:
            engine.notes.append(f"line {command.line}: {local} accelerators are asked for, and {seen} can be seen")

    def _config(self, tool: str, words: list[str], settings: Settings) -> tuple[str | None, list[str]]:
        """The file of settings that a command names, and its other words."""
        meanings = vocabulary(tool)
        out: list[str] = []
        named: str | None = None
        at = 0
        while at < len(words):
            flag, equals, value = words[at].partition("=")
            if words[at].startswith("--") and meanings.meaning(flag).key == "config":
                if equals and tool in ("vllm", "vllm_ascend"):
                    settings.notes.append(
                        f"{words[at]}: the file is not read; the tool reads it only where a blank stands for ="
                    )
                elif equals:
                    named = value
                elif at + 1 < len(words):
                    at += 1
                    named = words[at]
            else:
                out.append(words[at])
            at += 1
        return named, out

    def _file(self, name: str | None, files: Mapping[str, str]) -> str | None:
        if not name or is_unknown(name):
            return files.get(name or "")
        text = files.get(name)
        return text if text is not None else self.read(name)

    def _settings_file(self, tool: str, name: str, command: Command, settings: Settings) -> None:
        text = self._file(name, command.files)
        if text is None or is_unknown(text):
            settings.notes.append(
                f"line {command.line}: the file '{shown(name)}' is not there; what it says is not known"
            )
            return
        short = shown(name).rpartition("/")[2]
        kind = KINDS.get(Path(short).suffix.lower(), "yaml")
        tree = read_tree(text, short, kind=kind if kind in ("yaml", "json", "toml") else "yaml")
        if tool == "trt":
            trt.of_options(tree.data, vocabulary(tool), short, settings, lambda key: tree.line((key,)))
        else:
            of_tree(tree.data, vocabulary(tool), short, settings, lambda key: tree.line((key,)))

    def _resolver(self) -> Callable[..., Engine]:
        def resolve(tool: str, settings: Settings, model: str | None, *, wrapper: str = "") -> Engine:
            words = vocabulary(tool)
            engine = Engine(words.tool, str(words.data["basis"]), settings, wrapper=wrapper, page=tool)
            if model is not None and is_unknown(model):
                settings.notes.append(f"the model, '{shown(model)}', is only known when the script runs")
                model = None
            engine.values["model"] = model
            _RESOLVE[tool](settings, words, engine, chip=machine.chip_of(self.texts, words.tool))
            return engine

        return resolve

    def _is_npu(self, command: Command) -> bool:
        starts = tuple(data("serving")["npu"])
        if any(name.startswith(starts) for name in command.exported) or "ascend" in command.image:
            return True
        said = " ".join(command.words)
        return bool(re.search(r"(--quantization|-q)[= ]ascend\b", said))

    # clients

    def _clients(self, found: list[Command]) -> list[ServicePlan]:
        """Runs of each client and model together."""
        grouped: dict[tuple[str, Any], list[tuple[Command, Settings, dict[str, Any], dict[str, Any]]]] = {}
        for one in found:
            settings, values, defaults = clients.read(one.words, vocabulary(one.tool), one.file)
            for front in one.fronts:
                settings.ignored[f"{front} flags"] = None
            grouped.setdefault((one.tool, values.get("model")), []).append((one, settings, values, defaults))
        plans = []
        for (tool, _), listed in grouped.items():
            plan = self._begin(kind="benchmark")
            values, defaults = assemble.runs([(values, defaults) for _, _, values, defaults in listed])
            words = vocabulary(tool)
            plan.values |= {"tool": words.tool, "tool_version_basis": str(words.data["basis"]), **values}
            plan.defaults = defaults
            for _, settings, _, _ in listed:
                assemble.sets(plan, settings, tool)
            plan.details["metadata"] = [
                str(word) for one, _, _, _ in listed for word in _behind(one.words, "--metadata")
            ]
            plans.append(plan)
        return plans

    def _workload(self, plan: ServicePlan, runs: list[ServicePlan]) -> None:
        """The clients of a file that starts a service too."""
        out = []
        for one in runs:
            load = {
                key: value
                for key, value in one.values.items()
                if key not in ("files", "tool_version_basis", "model", "assume")
            }
            load = {key: load[key] for key in ORDER if load.get(key) is not None}
            out.append(load)
            for key in ("unread", "ignored", "deprecated", "unknown"):
                listed = getattr(plan, key)
                listed += [name for name in getattr(one, key) if name not in listed]
            plan.warn += [note for note in one.warn if note not in plan.warn]
            plan.problems += [bad for bad in one.problems if bad not in plan.problems]
            if one.defaults.get("request_rate") is not None:
                plan.defaults["workload.request_rate"] = one.defaults["request_rate"]
        plan.values["workload"] = out[0] if len(out) == 1 else out

    def _benchmark(self, plan: ServicePlan) -> ServicePlan:
        said = [(word, "metadata") for word in plan.details.get("metadata", ())]
        texts = [*self.texts, *said]
        count = next(
            (
                (name, value)
                for name, value in self.variables.items()
                if re.fullmatch(r"(N_?|NUM_|TOTAL_)?(GPUS?|NPUS?)(_N|_COUNT)?", name) and value.isdigit()
            ),
            None,
        )
        if count and int(count[1]) > 0:
            plan.values["accelerators_used"] = int(count[1])
            plan.values["system"] = f"{count[1]} {_device(count[0])} (variable of the script)"
        found = machine.chip_of(texts, plan.tool)
        if found and "system" not in plan.values:
            machine.describe(plan, texts, plan.tool, None)
            for key in ("nodes", "accelerators_per_node"):
                if not re.search(r"\d", plan.values.get("system", "")):
                    plan.values.pop(key, None)
        return self._finished(plan)

    # files of settings

    def of_document(self, tree: Tree, split: Callable[[str, int], list[str]]) -> list[ServicePlan]:
        """Plans of a file of settings; none where it is of no tool that serves."""
        kind = documents.kind_of(tree.data)
        if kind is None:
            return []
        file = str(self.path)
        resolve = self._resolver()
        if kind == "nightly":
            made = documents.nightly(tree, file, self._begin, resolve, split)
            return [self._end(plan, next(iter(plan.details["engines"].values()))) for plan in made]
        if kind in ("stack", "ray"):
            made = documents.several(tree, file, self._begin, resolve, kind)
            if len(made) == 1:
                made[0].details.pop("name")
            return [self._end(plan, next(iter(plan.details["engines"].values()))) for plan in made]
        plan = self._begin()
        if kind in ("vllm", "sglang", "options"):
            documents.options(tree, file, plan, resolve, "trt" if kind == "options" else kind)
        else:
            {"cluster": documents.cluster, "roles": documents.roles, "mindie": documents.config}[kind](
                tree, file, plan, resolve
            )
        if not plan.details.get("engines"):
            raise InputError(Problem("says of no server how it is started", file))
        return [self._end(plan, next(iter(plan.details["engines"].values())))]

    # all of them

    def _begin(self, kind: str = "serving") -> ServicePlan:
        return ServicePlan(kind=kind, file=str(self.path))

    def _end(self, plan: ServicePlan, engine: Engine) -> ServicePlan:
        values = plan.values
        values["tool"] = engine.wrapper or engine.tool
        if engine.wrapper:
            values["engine"] = vocabulary(engine.page).data.get("engine", engine.tool)
        values["tool_version_basis"] = plan.details.get("basis") or engine.basis
        texts = [*plan.details.get("texts", ()), *self.texts]
        machine.describe(plan, texts, engine.tool, values.get("accelerators_used"))
        return self._finished(plan)

    def _finished(self, plan: ServicePlan) -> ServicePlan:
        guess = guess_of_path(plan.values.get("model") if isinstance(plan.values.get("model"), str) else None)
        if guess:
            plan.values["model_guess"] = guess
        if self.assume:
            plan.values["assume"] = self.assume
        plan.warn += [one for one in self.notes if one not in plan.warn]
        return plan


def _device(name: str) -> str:
    return "NPUs" if "NPU" in name else "GPUs"


def _behind(words: list[str], flag: str) -> list[str]:
    """Values behind a flag."""
    if flag not in words:
        return []
    out = []
    for word in words[words.index(flag) + 1 :]:
        if word.startswith("--"):
            break
        out.append(word)
    return out


def _over(settings: Settings, later: Settings) -> None:
    """Put settings over others."""
    settings.by_key |= later.by_key
    settings.said |= later.said
    assemble.merge(settings, later)


def _style(engine: Engine) -> str:
    """How roles of an engine are said."""
    return {"vllm_ascend": "vllm"}.get(engine.page, engine.page)


def _ask_proxies(engines: list[Engine], proxies: list[Command]) -> None:
    """Who makes caches where each may do both: a proxy names the ports of either."""
    if not any(one.role == "both" for one in engines):
        return
    ports: dict[str, str] = {}
    for proxy in proxies:
        role = ""
        for word in proxy.words:
            flag, equals, value = word.partition("=")
            if flag.startswith("-"):
                role = "prefill" if "prefill" in flag else "decode" if "decode" in flag else ""
                word = value if equals else ""
            if role:
                for port in re.findall(r"(?:^|[:,\s])(\d{2,5})(?=$|[/,\s])", word):
                    ports.setdefault(port, role)
    for one in engines:
        if one.role == "both" and one.port in ports:
            one.role = ports[one.port]
