"""A launch file as plans: what it starts, with which tool, and what its settings mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.launch import guesses, jobs
from cmsim.launch.config_files import Tree, read_tree
from cmsim.launch.containers import command_lists
from cmsim.launch.jobs import StartedJob
from cmsim.launch.meant import filled, negated, plainly, switched
from cmsim.launch.plan import LaunchPlan, check
from cmsim.launch.python import Thing, Values
from cmsim.launch.python.configs import configs, docstrings, sizes_of_names
from cmsim.launch.service import ServicePlan, ServiceReader
from cmsim.launch.service.commands import Command, find
from cmsim.launch.service.machine import words_of_values
from cmsim.launch.settings import LaunchSetting, Settings, from_tree, from_words, leaves, unknown_problems
from cmsim.launch.shell import Shell, is_unknown, shown
from cmsim.launch.sizes import JobSizes, count, defaults, is_directive, of_comments, of_words
from cmsim.launch.sources import KINDS, Sources, kind_of
from cmsim.launch.tools import deepspeed, megatron, mindformers, torchtitan
from cmsim.launch.vocabulary import NameMeaning, data, environment, plain, script_vocabulary, vocabulary

_RESOLVE = {
    "megatron": megatron.resolve,
    "mindspeed": megatron.resolve,
    "bridge": megatron.resolve,
    "primus": megatron.resolve,
    "megatron_deepspeed": megatron.resolve,
    "torchtitan": torchtitan.resolve,
    "deepspeed": deepspeed.resolve,
    "mindformers": mindformers.resolve,
}
#: jobs of one file that are read
_MOST_JOBS = 64


class Reader:
    """Reads one file. ``args`` are the script's own arguments, ``given`` environment variables."""

    def __init__(self, path: Path, *, args: tuple[str, ...] = (), given: Mapping[str, str] | None = None):
        self.sources = Sources(path)
        self.path = path
        self.args = args
        self.given = dict(given or {})
        self.text = self.sources.text()
        self.kind = kind_of(path, self.text)
        self.notes: list[str] = []
        self.assume: str | None = None
        #: (text, where it stands): what may name the machine, the surest first
        self.said: list[tuple[str, str]] = []
        self.comments: dict[int, str] = {}
        self.tool = ""

    def plans(self) -> list[LaunchPlan | ServicePlan]:
        """Every job of the file. InputError where there is none, or the file cannot be read."""
        read = {"shell": self._shell, "python": self._python}.get(self.kind, self._document)
        try:
            return read()
        except RecursionError:
            raise InputError(Problem("lies too deep in itself to be read", str(self.path))) from None

    # a script

    def _shell(self) -> list[LaunchPlan | ServicePlan]:
        shell = Shell(str(self.path), path=self.path.name, args=self.args, given=self.given, read=self.sources.beside)
        self._slurm(shell)
        shell.script(self.text)
        found, shells = jobs.find(shell, self.sources.beside)
        for inner in shells:
            self.notes += [
                f"line {line}: {message}" for message, line in inner.notes if message != "the script ends here"
            ]
            self.comments |= inner.comments if inner is shell else {}
        needed = [f"{name} (line {line}{': ' + why if why else ''})" for name, (why, line) in shell.needed.items()]
        if needed:
            self.notes.append(f"needs {', '.join(needed)}; give it with --env NAME=VALUE")
        if shell.asks:
            self.assume = "no environment variable of the script is set"
            if not self.args and re.search(r"\$\{?[1-9@]", self.text):
                self.assume += ", no arguments"
        services = self._services().of_shells(shells)
        unique: dict[tuple[Any, ...], StartedJob] = {}
        for job in found:
            unique.setdefault((job.tool, job.script, tuple(_without_rank(job.words)), job.sizes.world), job)
        if not unique and not services:
            raise InputError(self._nothing(shell))
        if len(unique) > _MOST_JOBS:
            raise InputError(Problem(f"starts {len(unique)} jobs; allowed: up to {_MOST_JOBS}", str(self.path)))
        return [*(self._of_job(job, shell) for job in unique.values()), *self._named(services)]

    def _services(self, texts: Iterable[tuple[str, str]] = ()) -> ServiceReader:
        """Who reads what serves and what asks it."""
        said = [(text, "comment") for text in self.comments.values() if not is_directive(text)]
        said += [(text, "batch line") for text in self.comments.values() if is_directive(text)]
        said += [*texts, (self.path.name, "file name")]
        return ServiceReader(self.path, self.sources.beside, said, self.given, notes=self.notes, assume=self.assume)

    def _named(self, plans: list[ServicePlan]) -> list[LaunchPlan | ServicePlan]:
        for plan in plans:
            plan.values["files"] = list(self.sources.read)
        return list(plans)

    def _slurm(self, shell: Shell) -> None:
        """Slurm's own variables, from its lines; what has a default in the script keeps that."""
        comments = {n: line[1:].strip() for n, line in enumerate(self.text.splitlines(), 1) if line.startswith("#")}
        sizes = JobSizes()
        of_comments(comments, sizes)
        values = {
            "SLURM_NNODES": sizes.nodes,
            "SLURM_JOB_NUM_NODES": sizes.nodes,
            "SLURM_NTASKS_PER_NODE": sizes.per_node,
        }
        values |= {
            "SLURM_GPUS_ON_NODE": sizes.per_node,
            "SLURM_GPUS_PER_NODE": sizes.per_node,
            "SLURM_NTASKS": sizes.world,
        }
        for name, value in values.items():
            if value and not re.search(rf"\$\{{{name}:?[-=]", self.text):
                shell.variables.setdefault(name, str(value))
                shell.exports.add(name)

    def _nothing(self, shell: Shell) -> Problem:
        """Why a script has no job: what it starts instead, and where it ends."""
        started = list(dict.fromkeys(shown(str(one.argv[0])) for one in shell.started))[:8]
        ends = [line for message, line in shell.notes if message == "the script ends here"]
        tools = ", ".join(vocabulary(name).tool for name in data("programs")["tools"])
        what = f"starts {', '.join(started)}" if started else "starts no program"
        where = f" and ends on line {ends[0]}; give its arguments with --arg, its variables with --env" if ends else ""
        return Problem(
            f"{what}{where}; known are training jobs of {tools}, and servers and clients of "
            "vLLM, SGLang, TensorRT-LLM and Dynamo",
            str(self.path),
        )

    def _of_job(self, job: StartedJob, shell: Shell) -> LaunchPlan:
        settings = Settings()
        plan = self._begin(job.tool)
        recipe = self._settings_of(job, settings, shell, plan)
        self._environment(job, settings)
        sizes = job.sizes
        for key, text in sizes.unknown.items():
            if getattr(sizes, key) is None:
                what = f"is '{shown(text)}', which only a run would tell" if text else "is not set"
                self.notes.append(f"line {job.line}: {key} of {job.launcher or 'the job'} {what}")
        of_comments(self.comments, sizes)
        if not job.launcher:  # a script of the tool, which asks its environment
            for key, names in data("programs")["variables"].items():
                found = next((job.exported[name] for name in names if job.exported.get(name)), "")
                sizes.put(key, count(found) if found else None, "environment")
        texts = [(text, "comment") for text in self.comments.values() if not is_directive(text)]
        flag = settings.text("gpu") if settings.has("gpu") else None
        self._machine(plan, settings, sizes, texts, job.environment, job.words, flag)
        if sizes.nodes is None or sizes.per_node is None:
            plan.defaults |= defaults(sizes, job.launcher)
        return self._end(plan, settings, sizes, job.tool, recipe=recipe)

    def _settings_of(self, job: StartedJob, settings: Settings, shell: Shell, plan: LaunchPlan) -> bool:
        """Settings of a job's words and of the file they name; whether a recipe that is not here says the rest."""
        words = from_words(job.words, vocabulary(job.tool), job.file)
        found, strays = words
        recipe = job.tool == "bridge"
        config = self._config_name(job, found)
        if config is not None:
            text = shell.files.get(config, self.sources.beside(config)) if not is_unknown(config) else None
            if text is None or is_unknown(text):
                self.notes.append(
                    f"line {job.line}: the file '{shown(config)}' is not there; what it says is not known"
                )
                recipe = True
            else:
                kind = KINDS.get(Path(config).suffix.lower(), "yaml")
                tool = "deepspeed" if job.tool == "megatron_deepspeed" else job.tool
                if kind == "toml" and job.tool == "torchtitan":
                    plan.tool_version_basis = vocabulary(job.tool).data["old_basis"]
                self._tree(read_tree(text, Path(config).name, kind=kind), tool, Path(config).name, settings, plan)
        elif job.tool == "torchtitan":
            recipe = True
        if job.tool == "deepspeed":
            found, strays = from_words(job.words, script_vocabulary("deepspeed"), job.file)
            ignored = vocabulary("deepspeed").data["launcher_ignored"]
            for one in from_words(job.launcher_words, vocabulary("deepspeed"), job.file)[0]:
                if plain(one.name) in ignored:
                    settings.ignored[one.name] = None
        for one in found:
            if not self._config_flag(job.tool, one):
                settings.add(negated(one, job.tool))
        self._strays(job, strays, settings)
        return recipe

    def _config_name(self, job: StartedJob, found: list[LaunchSetting]) -> str | None:
        for one in found:
            if self._config_flag(job.tool, one) and one.values:
                return str(one.values[0])
        names = {"torchtitan": ("CONFIG_FILE",), "primus": ("EXP",)}.get(job.tool, ())
        return next((job.exported[name] for name in names if job.exported.get(name)), None)

    def _config_flag(self, tool: str, one: LaunchSetting) -> bool:
        if plain(one.name) not in [plain(name) for name in data("programs")["config_flags"].get(tool, [])]:
            return False
        return not one.values or tool != "torchtitan" or "." in str(one.values[0])

    def _strays(self, job: StartedJob, strays: list[str], settings: Settings) -> None:
        """Words that belong to no flag: ``key=value`` as Hydra takes it, else a note."""
        for word in strays:
            name, equals, value = str(word).lstrip("+~").partition("=")
            if equals and re.fullmatch(r"[A-Za-z_][\w.]*", name):
                for one, shown_as in from_tree(
                    [(name, value, getattr(word, "line", job.line))], vocabulary(job.tool), job.file, last=True
                ):
                    settings.add(one, shown_as)

    def _environment(self, job: StartedJob, settings: Settings) -> None:
        whole, starts = environment([job.tool])
        for name in job.exported:
            if name not in self.given and (name in whole or name.startswith(starts)):
                settings.unread[name] = None

    # a file of settings

    def _document(self) -> list[LaunchPlan | ServicePlan]:
        tree = read_tree(self.text, str(self.path), kind=self.kind)
        tool = _tool_of(tree.data)
        if tool is None:
            self.comments = dict(tree.comments)
            if services := self._services(words_of_values(tree.data)).of_document(tree, self._split):
                return self._named(services)
            if self.kind == "yaml" and (found := self._commands(tree)):
                return found
            keys = ", ".join(list(map(str, tree.data))[:8])
            known = "; ".join(
                f"{vocabulary(one['tool']).tool} ({', '.join(one['keys'])})" for one in data("programs")["documents"]
            )
            raise InputError(
                Problem(
                    f"has the keys {keys}, which are of no tool that is known. Known: {known}; and servers of "
                    "vLLM, SGLang, TensorRT-LLM, Dynamo and MindIE",
                    str(self.path),
                )
            )
        settings = Settings()
        plan = self._begin(tool)
        self._tree(tree, tool, str(self.path), settings, plan)
        if tool == "torchtitan" and self.kind == "toml":
            plan.tool_version_basis = vocabulary(tool).data["old_basis"]
        sizes = JobSizes()
        self.comments = dict(tree.comments)
        texts = [(text, "comment") for text in tree.comments.values()]
        self._machine(plan, settings, sizes, texts, {}, (), None)
        return [self._end(plan, settings, sizes, tool, recipe=tool == "bridge")]

    def _tree(self, tree: Tree, tool: str, file: str, settings: Settings, plan: LaunchPlan) -> None:
        names = tree.data
        path: tuple[str | int, ...] = ()
        if tool == "primus":
            names, tool, path = self._primus(tree, plan)
            plan.details["framework"] = tool
        found = leaves(names, lambda at: tree.line((*path, *at)))
        last = tool in ("bridge", "megatron", "primus", "mindspeed")
        for one, shown_as in from_tree(found, vocabulary(tool), file, last=last):
            if one.value is None and one.meaning.sort != "ignored":
                continue
            if one.meaning.sort == "unknown" and plan.tool == vocabulary("primus").tool:  # the wrapper's own
                one = replace(one, meaning=vocabulary("primus").meaning(one.name.rpartition(".")[2]))
            kept = switched(one) if last else one
            if kept is not None:
                settings.add(kept, shown_as)

    def _primus(self, tree: Tree, plan: LaunchPlan) -> tuple[Mapping[str, Any], str, tuple[str | int, ...]]:
        """Settings below ``modules``, with ``${NAME:default}`` put in, and where they stand; the model's file is only
        named."""
        modules = tree.data.get("modules")
        found = modules.items() if isinstance(modules, dict) else ()
        name, module = next(((name, one) for name, one in found if isinstance(one, dict)), ("", {}))
        module = filled(module, self.given)
        if "${" in self.text:
            self.assume = "no environment variable of the file is set"
        framework = str(module.get("framework", "megatron"))
        plan.model = str(module.get("model", "")).removesuffix(".yaml") or None
        plan.from_recipe = [f"{key}: {module[key]}" for key in ("model", "config") if module.get(key)]
        overrides = module.get("overrides")
        tool = "torchtitan" if "titan" in framework else "primus"
        return (overrides if isinstance(overrides, dict) else {}), tool, ("modules", name, "overrides")

    def _commands(self, tree: Tree) -> list[LaunchPlan | ServicePlan]:
        """Jobs of commands in a file for containers: ``command`` and ``args`` of Kubernetes, compose and their like."""
        out: list[LaunchPlan | ServicePlan] = []
        started: list[Command] = []
        self.comments = dict(tree.comments)
        for one in command_lists(tree):
            shell = Shell(
                str(self.path), path=self.path.name, given={**one.environment, **self.given}, read=self.sources.beside
            )
            shell.script(one.text(), line=one.line)
            found, shells = jobs.find(shell, self.sources.beside)
            if shell.asks:
                self.assume = "no environment variable of the file is set"
            out += [self._of_job(job, shell) for job in found]
            for command in find(shells):
                command.copies, command.image = one.copies, one.image
                command.role, command.name = one.role, one.name
                command.exported = {**one.environment, **command.exported}
                started.append(command)
        return [*out, *self._named(self._services(words_of_values(tree.data)).of_commands(started))]

    def _split(self, text: str, line: int) -> list[str]:
        """Words of one command, with their lines."""
        shell = Shell(str(self.path), path=self.path.name, given=self.given, read=self.sources.beside)
        shell.script(text, line=line)
        return list(shell.started[-1].argv) if shell.started else []

    # a Python file

    def _python(self) -> list[LaunchPlan | ServicePlan]:
        values = Values(str(self.path), self.given)
        top = values.module(self.text)
        tool = next((one["tool"] for one in data("programs")["modules"] if re.search(one["pattern"], self.text)), None)
        if tool is None:
            known = ", ".join(one["pattern"].partition("|")[0].replace("\\", "") for one in data("programs")["modules"])
            raise InputError(Problem(f"imports no training tool that is known; known: {known}", str(self.path)))
        docs = [(text, "docstring") for text in docstrings(self.text)]
        self.comments = {
            n: found[1].strip()
            for n, line in enumerate(self.text.splitlines(), 1)
            if (found := re.search(r"(?:^|\s)#(.*)", line[:2_000]))
        }
        comments = [(text, "comment") for text in self.comments.values()]
        plans: list[LaunchPlan | ServicePlan] = []
        for name, thing in configs(values, top)[:_MOST_JOBS]:
            settings = Settings()
            plan = self._begin(tool)
            plan.details |= {"name": name, "model_words": [name]}
            sizes = sizes_of_names(top)
            own = [(text, "docstring") for text in docstrings(self.text, name)]
            name_only = [(name, "name of the configuration")]
            self._thing(thing, tool, settings, plan)
            if tool == "torchtitan" and not settings.has("model_name"):
                settings.add(LaunchSetting("function", (name,), 0, str(self.path), NameMeaning("model", "model_name")))
            self._machine(
                plan,
                settings,
                sizes,
                [*own, *docs, *comments, *name_only],
                {},
                (),
                settings.text("gpu") if settings.has("gpu") else None,
            )
            made_here = thing.name.rpartition(".")[2] in (
                "Config",
                "JobConfig",
            )  # made here, and not by a recipe elsewhere
            plans.append(self._end(plan, settings, sizes, tool, recipe=not (made_here and tool == "torchtitan")))
        if not plans:
            message = (
                "makes no configuration that can be read without running it: no function returns one, nor does its top"
            )
            raise InputError(Problem(message, str(self.path)))
        return plans

    def _thing(self, thing: Thing, tool: str, settings: Settings, plan: LaunchPlan) -> None:
        name = thing.name.rpartition(".")[2]
        if tool == "bridge":
            for end in data("bridge")["recipe_names"]:
                name = name.removesuffix(end)
            if name and name != thing.name.rpartition(".")[2] and not name[0].isupper():
                plan.model = name
        found = [(path, plainly(value), line) for path, value, line in thing.leaves()]
        for one, shown_as in from_tree(found, vocabulary(tool), str(self.path), last=True):
            kept = switched(one)
            if kept is not None:
                settings.add(kept, shown_as)

    # all of them

    def _begin(self, tool: str) -> LaunchPlan:
        self.tool = tool
        words = vocabulary(tool)
        basis = str(words.data["basis"])
        if tool == "bridge" and self.kind == "shell":
            basis = words.data["command_basis"].format(basis=basis)
        return LaunchPlan(tool=words.tool, tool_version_basis=basis, file=str(self.path))

    def _machine(
        self,
        plan: LaunchPlan,
        settings: Settings,
        sizes: JobSizes,
        texts: list[tuple[str, str]],
        variables: Mapping[str, str],
        words: Iterable[str],
        flag: str | None,
    ) -> None:
        """The machine in words, and how many there are of it where only words say so."""
        if flag and "nodes_of" in vocabulary(self.tool).data and not settings.has("per_node"):
            # the tool's own: a node of this machine has so many
            sizes.put("per_node", data(self.tool)["nodes_of"].get(flag.lower()), "the tool's default")
        for key in ("total", "per_node"):
            if (count := settings.whole({"total": "world"}.get(key, key))) is not None:
                sizes.put(key, count, "flag")
        sizes.settle()
        others = [(self.path.name, "file name")]
        others += [(shown(value), f"variable {name}") for name, value in variables.items() if len(value) < 200]
        others += [(shown(str(word)), "argument") for word in words]
        flags = [(flag, "flag")] if flag else []
        found = guesses.system_of([*flags, *texts, *others], plan.tool)
        if found:
            word, text, where = found
            plan.system_name = word["system"]
            plan.system = flag if where == "flag" else f"{text} ({where})"
            plan.details["chip"] = word["chip"]
        words_only = JobSizes()
        for text, where in texts:
            if found is None or text == found[1] or re.search(r"\d+ (?:GPU|NPU|device|die|node)", text):
                of_words(text, words_only, guesses.chips(), where, found[0]["per_node"] if found else 0)
        words_only.settle()
        # words fill what nothing else says, where they agree with what something says
        if sizes.world is None or (sizes.nodes is None and words_only.world == sizes.world):
            for key in ("nodes", "per_node", "total"):
                sizes.put(key, getattr(words_only, key), words_only.where.get(key, ""))
            sizes.settle()
        counted = next(((text, where) for text, where in texts if re.search(r"\d+ (?:GPU|NPU|device|die)", text)), None)
        if plan.system is None and counted:
            plan.system = f"{counted[0]} ({counted[1]})"

    def _end(self, plan: LaunchPlan, settings: Settings, sizes: JobSizes, tool: str, *, recipe: bool) -> LaunchPlan:
        words = vocabulary(tool)
        said = next((key for key in ("model_word", "model_family") if settings.has(key)), None)
        if said and plan.model is None:
            plan.model = settings.text(said)
            for end in words.data.get("recipe_names") or ():
                plan.model = (plan.model or "").removesuffix(end)
        _RESOLVE[plan.details.get("framework", tool)](settings, sizes, words, plan, recipe=recipe)
        if settings.deprecated and words.table("old") and words.data.get("old_basis") is None and words.parent:
            words = words.parent
        if settings.deprecated and "{flags}" in str(words.data.get("old_basis", "")):
            plan.tool_version_basis = words.data["old_basis"].format(flags=" and ".join(settings.deprecated))
        plan.files = list(self.sources.read)
        plan.assume = self.assume
        if recipe and tool == "bridge":
            plan.from_recipe = _left_to_recipe(plan)
        plan.details["said"] = settings.said
        self._guess(plan)
        check(plan, lambda key: settings.by_key[key].line if key in settings.by_key else None)
        plan.unread, plan.ignored = list(settings.unread), list(settings.ignored)
        plan.deprecated, plan.unknown = list(settings.deprecated), list(settings.unknown)
        plan.warn += [*settings.notes, *self.notes, *unknown_problems(settings, vocabulary(tool))]
        plan.problems += [one for one in settings.problems if one not in plan.problems]
        return plan

    def _guess(self, plan: LaunchPlan) -> None:
        dims = dict(plan.model_dims or {})
        if "model_dims.ffn" in plan.defaults and dims.get("hidden"):
            dims["ffn"] = 4 * dims["hidden"]
        model = guesses.model_of_dims(dims)
        words = [*plan.details.get("model_words", []), plan.model]
        by_words = guesses.model_of_words(*words)
        plan.details["known"] = model or (by_words if not (plan.model_dims or {}).get("layers") else None)
        if plan.model is not None:
            best = model or by_words
            if best is not None and "/" not in plan.model:
                plan.model_guess = best["hf"] or best["guess"]
        elif model is not None or by_words is not None:
            plan.model_guess = (model or by_words or {})["guess"]


def _without_rank(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if not re.search(r"rank|master", word)]


def _tool_of(tree: Mapping[str, Any]) -> str | None:
    for one in data("programs")["documents"]:
        if all(key in tree for key in one["keys"]):
            return str(one["tool"])
    return None


def _left_to_recipe(plan: LaunchPlan) -> list[str]:
    left = {
        "model dimensions": plan.model_dims is None,
        "tp, pp, cp": None in (plan.tp, plan.pp, plan.cp),
        "zero": plan.zero is None,
        "sequence_parallel": plan.sequence_parallel is None,
        "recompute": plan.recompute is None,
        "precision": plan.precision is None,
        "batches": None in (plan.micro_batch, plan.global_batch, plan.seq_len),
        "optimizer": True,
        "overlap settings": True,
    }
    return [name for name, is_left in left.items() if is_left]
