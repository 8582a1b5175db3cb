"""What holds the rooms apart: imports point one way, hardware is data, only the command line prints."""

from __future__ import annotations

import ast
import functools
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from cmsim.reading import read_yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cmsim"

#: what every room may import
BASE = frozenset({"arrays", "collector", "errors", "reading", "units", "version"})

#: room -> rooms it may import beside BASE. Fewer is better; a new room gets a line here and a reason.
#: "workload/generate" is a room of its own inside a room; its parent needs its permission like any other.
PERMITTED: dict[str, frozenset[str]] = {
    # the ground: nothing below it but each other's errors
    "arrays": frozenset(),
    "collector": frozenset(),
    "errors": frozenset(),
    # its clock ends, and says so
    "units": frozenset({"errors"}),
    # numbers as people read them, for whoever shows some; HTML, for what notebooks show
    "numbers": frozenset(),
    "markup": frozenset(),
    "version": frozenset(),
    # reads what users write and tools leave: YAML with lines, tables, JSON in blocks; what it means is for others
    "reading": frozenset({"arrays", "errors", "units"}),
    # what a kind of workload is, from scenario to figure; names code of rooms above by its place, and imports none
    "kinds": frozenset(),
    # a stretch of time that comes again: the engine finds one, energy adds it up
    "repeats": frozenset(),
    # scenarios make the names of runs, results and tables read them
    "identity": frozenset(),
    # reads system files and nothing else, so that any room may ask what the hardware is
    "hardware": frozenset({"markup"}),
    # places, routes and capacities follow from the hardware alone
    "topology": frozenset({"hardware"}),
    # costs of kernels are functions of numbers
    "compute": frozenset(),
    # what kernels take on an accelerator, as measured: pages of numbers, constants as data
    "kernels": frozenset({"compute", "hardware"}),
    # costs and phases of algorithms are functions of numbers
    "collectives": frozenset(),
    # what libraries take on a system: their constants are data, their pages those of collectives
    "libraries": frozenset({"collectives", "hardware", "topology"}),
    # shares of resources are functions of numbers
    "network": frozenset(),
    # messages of a collective on the links they cross
    "messages": frozenset({"hardware", "topology", "collectives", "network"}),
    # ops say which kernel they are, never on which machine
    "workload": frozenset({"compute", "kinds"}),
    # recorded runs as ops: what a file says, in the words of ops
    "traces": frozenset({"compute", "kinds", "workload"}),
    # model files as graphs of operators with their work
    "graphs": frozenset({"compute", "workload"}),
    # how other tools start jobs, as plans; scenarios of them need keys of kinds and ranks of systems
    "launch": frozenset({"hardware", "kinds"}),
    # how other tools describe clusters, as system files; and systems so, from their graphs
    "clusters": frozenset({"hardware", "topology"}),
    # what users ask of a service, and what clusters ran: columns of a file, no ops
    "requests": frozenset(),
    "jobs": frozenset(),
    # what a file holds, whatever it is of
    "describe": frozenset({"graphs", "jobs", "requests", "traces", "workload"}),
    # generators turn a scenario's numbers into ops; of the machine they ask how many ranks it has
    "workload/generate": frozenset({"workload", "compute", "graphs", "traces", "kinds", "hardware"}),
    # a scenario names systems and workloads, and knows how neither is run; what it says of money is cost's
    "scenario": frozenset({"cost", "identity", "kinds", "markup"}),
    # the one place where workload and machine meet
    "engine": frozenset(
        {"hardware", "topology", "compute", "kernels", "collectives", "libraries", "network", "messages", "workload"}
        | {"repeats"}
    ),
    # measured tables in, predictions and fits out: needs the machine and what libraries do on it, runs nothing
    "calibration": frozenset({"hardware", "topology", "collectives", "libraries", "compute", "kernels"}),
    # power follows from parts and their use over time, which comes as a frame; what a kernel draws is with its costs
    "energy": frozenset({"hardware", "topology", "compute", "repeats"}),
    # price and rent are numbers of the system file; a bill is made of counts, and of prices in files of its own
    "cost": frozenset({"hardware"}),
    # draws of what is assumed, in columns, from data that a result carries
    "uncertainty": frozenset(),
    # frames in, frames out; what a million tokens cost is a formula of cost's, and an interval one of uncertainty's
    "results": frozenset({"cost", "uncertainty", "identity", "kinds", "markup", "numbers"}),
    # a figure draws saved results, or a system as topology sketches it, and runs nothing; which runs are one line
    # follows from what tells them apart
    "plots": frozenset({"identity", "numbers", "results", "topology"}),
    # published training runs become scenarios and are played: reads tables as calibration does, stands on the flow;
    # some benchmarks derive limits of an engine from the size of a model
    "published": frozenset({"api", "calibration", "hardware", "kinds", "results", "side_by_side", "workload"}),
    # runs what was published or measured and compares; hosts of engines are fitted to services, served again and again
    "validation": frozenset(
        {"scenario", "hardware", "topology", "collectives", "messages", "workload", "workload/generate", "engine"}
        | {"cost", "energy", "results", "api", "calibration", "published", "serving"}
    ),
    # how a run comes about: the programs of most kinds, played and measured, or the function of a kind
    "execution": frozenset(
        {"hardware", "topology", "collectives", "messages", "kinds", "workload", "workload/generate", "scenario"}
        | {"engine", "energy", "cost", "results", "uncertainty"}
    ),
    # a run at several clocks, as any run is, and what its machine draws while it waits for a deadline
    "pace": frozenset({"api", "energy", "execution", "kinds", "results", "scenario"}),
    # what a result follows from: a run, its system, and what files they name say
    "digest": frozenset({"hardware", "kinds", "scenario"}),
    # work of any kind over processes
    "side_by_side": frozenset(),
    # the whole flow on one page
    "api": frozenset(
        {"hardware", "traces", "workload", "workload/generate", "scenario", "engine", "execution", "cost", "results"}
        | {"digest", "side_by_side"}
    ),
    # plays points of a run and answers between them: stands on the whole flow, and takes no part in it. Products of
    # thousands of sizes are priced by the engine, without a run
    "steps": frozenset(
        {"api", "kinds", "results", "scenario"}
        | {"compute", "engine", "execution", "hardware", "kernels", "workload", "workload/generate"}
    ),
    # results as one page for people, with their figures: runs nothing
    "report": frozenset({"numbers", "plots", "results"}),
    # a page that asks: a scenario from a form, answered from what was played, shown and written down as reports are
    "ui": frozenset({"api", "kinds", "numbers", "plots", "report", "results", "scenario", "steps"}),
    # results in the form of other people's tools, recorded runs beside them: runs nothing
    "export": frozenset({"results", "traces"}),
    # points of a scenario over processes and clusters, into a store
    "sweep": frozenset({"api", "execution", "kinds", "results", "scenario", "side_by_side"}),
    # plans of a question: settled and weighed by what makes programs, priced by the engine, the best run as any run is;
    # those of a service by what serving says of its pools before it serves
    "search": frozenset(
        {"api", "cost", "identity", "kinds", "results", "scenario", "serving", "side_by_side"}
        | {"engine", "execution", "graphs", "hardware", "workload", "workload/generate"}
    ),
    # requests on one clock: what a step costs it asks of steps, what comes of traces; of the machine it knows memory
    # and links, of results what a token costs; caches are demands on a network, over levels of the fabric; what a
    # perfect machine would need are the least FLOPs and bytes of steps, at the machine's peaks
    "serving": frozenset(
        {"api", "cost", "energy", "hardware", "kinds", "requests", "results", "scenario", "steps", "workload"}
        | {"network", "topology", "engine", "workload/generate"}
    ),
    # a step of reinforcement learning is put together of what others play: answers by a service, updates and passes as
    # runs, weights as messages on the engine; of the plan of who trains it asks which ranks hold the model between them
    "reinforcement": frozenset(
        {"api", "cost", "energy", "engine", "execution", "hardware", "kinds", "requests", "results", "scenario"}
        | {"serving", "workload", "workload/generate"}
    ),
    # a job whose parts fail: what fails it asks of the machine, what a step takes of a run of it, as any run is
    "reliability": frozenset({"api", "execution", "hardware", "kinds", "results", "scenario", "topology", "workload"}),
    # jobs on several machines: what a job does is a run as any run is, what it draws and costs follows from machines;
    # parts fail as those of one job do; machines that wait draw what those of a service do
    "scheduling": frozenset(
        {"api", "cost", "energy", "hardware", "jobs", "kinds", "numbers", "reliability", "results", "scenario"}
        | {"serving"}
    ),
    # the front door: names what is public
    "__init__": frozenset({"api", "hardware", "results", "scenario", "validation"}),
    # the command line may call anything
    "cli": frozenset(
        {"hardware", "topology", "compute", "collectives", "network", "workload", "workload/generate", "scenario"}
        | {"traces", "graphs", "requests", "jobs", "describe", "launch", "clusters"}
        | {"identity", "kinds", "numbers", "calibration", "engine", "energy", "results", "plots", "validation"}
        | {"cost", "execution", "pace", "published", "search", "sweep", "export", "report", "reliability", "ui"}
        | {"api", "__init__"}
    ),
    "__main__": frozenset({"cli"}),
}

#: libraries that take long to import; they are imported where they are used, so that the command line starts fast
HEAVY = ("jinja2", "matplotlib", "onnx", "pandas", "panel", "pyarrow", "scipy")


def sources() -> list[Path]:
    """Modules of the package that people wrote."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.name.endswith("_pb2.py") and "data" not in path.relative_to(PACKAGE).parts
    ]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a module, read once whatever looks at it."""
    return tuple(ast.walk(tree(path)))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 1)}"


def room_of(path: Path, package: Path = PACKAGE) -> str:
    return room_at(path.relative_to(package).with_suffix("").parts)


def room_at(parts: tuple[str, ...]) -> str:
    inner = "/".join(parts[:2])
    return inner if inner in PERMITTED else parts[0]


def imports(path: Path, package: Path = PACKAGE) -> Iterator[tuple[str, ast.AST]]:
    """(room, node) of every import from the package, wherever it stands in the file, relative ones too."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    for node in nodes(path):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # one dot is the folder of the file, for a module and for __init__ alike
            start = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, (start, node.module or "")))
            targets = [f"{module}.{alias.name}" for alias in node.names]
        for target in targets:
            first, *rest = target.split(".")
            if first == package.name:
                known = rest and ((package / rest[0]).is_dir() or (package / f"{rest[0]}.py").is_file())
                yield (room_at(tuple(rest)) if known else "__init__"), node


def edges() -> dict[tuple[str, str], str]:
    """(importing room, imported room) -> first place where it happens."""
    found: dict[tuple[str, str], str] = {}
    for path in sources():
        for room, node in imports(path):
            if room != room_of(path):
                found.setdefault((room_of(path), room), place(path, node))
    return found


def test_every_room_has_a_line():
    unknown = {room_of(path) for path in sources()} - set(PERMITTED)
    assert not unknown, f"rooms without a line in PERMITTED: {sorted(unknown)}"


def test_imports_point_one_way():
    wrong = []
    for path in sources():
        room = room_of(path)
        allowed = PERMITTED[room] | (BASE if room not in BASE else set())
        wrong += [
            f"{place(path, node)}: {room} imports {other}; it may import {', '.join(sorted(allowed)) or 'nothing'}"
            for other, node in imports(path)
            if other != room and other not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_no_circles():
    found = edges()
    following: dict[str, set[str]] = {}
    for one, other in found:
        following.setdefault(one, set()).add(other)
    circle = find_circle(following)
    steps = [f"{one} imports {other}: {found[one, other]}" for one, other in itertools.pairwise(circle)]
    assert not circle, "a circle of rooms:\n" + "\n".join(steps)


def find_circle(following: dict[str, set[str]]) -> list[str]:
    """Rooms along a circle, the first again at the end, or nothing."""
    done: set[str] = set()

    def walk(room: str, trail: list[str]) -> list[str]:
        if room in trail:
            return [*trail[trail.index(room) :], room]
        if room not in done:
            for other in sorted(following.get(room, ())):
                if circle := walk(other, [*trail, room]):
                    return circle
            done.add(room)
        return []

    for room in sorted(following):
        if circle := walk(room, []):
            return circle
    return []


def test_the_tests_above_see_what_they_should(tmp_path):
    package = tmp_path / "cmsim"
    for room in ("engine", "plots", "cli"):
        (package / room).mkdir(parents=True)
    page = package / "engine" / "page.py"
    page.write_text(
        "import cmsim.plots.page\n"
        "from cmsim import cli, __version__\n"
        "from ..plots import page\n"
        "from . import other\n"
        "from .. import cli\n"
        "import numpy\n"
        "def late():\n"
        "    from cmsim.plots.page import draw\n"
    )
    seen = [(node.lineno, room) for room, node in imports(page, package)]
    assert seen == [
        (1, "plots"),
        (2, "cli"),
        (2, "__init__"),
        (3, "plots"),
        (4, "engine"),
        (5, "cli"),
        (8, "plots"),
    ]
    (package / "workload" / "generate").mkdir(parents=True)
    page = package / "workload" / "generate" / "page.py"
    page.write_text(
        "from cmsim.workload import generate, ops\nfrom cmsim.workload.ops import X\nfrom ..generate import y\n"
    )
    inner = "workload/generate"
    assert room_of(page, package) == inner
    assert [room for room, _ in imports(page, package)] == [inner, "workload", "workload", inner]
    start = package / "engine" / "__init__.py"
    start.write_text("from .page import late\nfrom ..cli import main\n")
    assert [room for room, _ in imports(start, package)] == ["engine", "cli"]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}}) == []


#: words of another library's interface, which a page cannot but use
API_WORDS = {
    "calibration/measure.py": {"cuda", "torch_npu"},
}


def data_names() -> dict[str, str]:
    """Names of hardware, stacks and models, lower case -> the file that has them."""
    names: dict[str, str] = {}
    for path in sorted((ROOT / "topologies").rglob("*.yaml")) + sorted((ROOT / "workloads" / "models").glob("*.*")):
        if path.suffix not in (".yaml", ".json"):
            continue
        data = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else read_yaml(path).data
        aliases = data.get("aliases") or [] if isinstance(data, dict) else []
        for name in (path.stem, *aliases):
            if len(str(name)) > 3:
                names.setdefault(str(name).lower(), str(path.relative_to(ROOT)))
    return names


def test_hardware_and_models_are_data():
    names = data_names()
    if not names:
        return
    wrong = []
    for path in sources():
        text = path.read_text(encoding="utf-8").lower()
        # a search for each name is quicker by far than one for any of them; few names are found even as parts of words
        found = sorted((name for name in names if name in text), key=lambda name: (-len(name), name))
        allowed = API_WORDS.get(str(path.relative_to(PACKAGE)), ())
        for match in re.finditer(rf"(?<![\w-])({'|'.join(map(re.escape, found))})(?![\w-])", text) if found else ():
            if match[0] not in allowed:
                number = text.count("\n", 0, match.start()) + 1
                at = f"{path.relative_to(ROOT)}:{number}"
                wrong.append(f"{at}: names '{match[0]}', which is data ({names[match[0]]})")
    assert not wrong, "\n".join(wrong)


#: numbers of data files that mean something else in a page
OTHER_NUMBERS = {
    "cli/app.py": {141},  # a shell's exit code
    "hardware/power.py": {1.25},  # the far end of an assumed range
    "reading/json_blocks.py": {125},  # a character
    "traces/chakra/wire.py": {104},  # bits of a tag
    "traces/goal/binary.py": {104},  # bytes of a head
    "calibration/measure.py": {192, 384},  # lengths between powers of two
}


def data_numbers() -> dict[float, str]:
    """Numbers of hardware and models that say whose they are: three digits or more, and no power of two."""
    found: dict[float, str] = {}

    def walk(value: object, file: str) -> None:
        if isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                walk(one, file)
        elif isinstance(value, int | float) and not isinstance(value, bool) and _digits(value) > 2:
            found.setdefault(float(value), file)

    for path in sorted((ROOT / "topologies").rglob("*.yaml")) + sorted((ROOT / "workloads" / "models").glob("*.json")):
        walk(json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else yaml_data(path), path.name)
    return {value: file for value, file in found.items() if value != int(value) or int(value) & (int(value) - 1)}


def yaml_data(path: Path) -> object:
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _digits(value: float) -> int:
    return len(f"{value:.15g}".partition("e")[0].replace(".", "").strip("-0"))


def test_numbers_of_hardware_and_models_are_data():
    numbers = data_numbers()
    assert 7168.0 in numbers, "the test sees no data"
    wrong = [
        f"{place(path, node)}: {node.value!r} is data ({numbers[float(node.value)]})"
        for path in sources()
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and float(node.value) in numbers
        and node.value not in OTHER_NUMBERS.get(str(path.relative_to(PACKAGE)), ())
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints_or_exits():
    wrong = []
    for path in sources():
        if room_of(path) in ("cli", "__main__"):
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write"):
                    wrong.append(f"{place(path, node)}: {called}")
            elif isinstance(node, ast.Raise) and node.exc and "SystemExit" in ast.unparse(node.exc):
                wrong.append(f"{place(path, node)}: SystemExit")
    assert not wrong, "\n".join(wrong)


def test_html_is_made_in_one_place():
    wrong = [
        f"{place(path, node)}: {node.value[:40]!r}"
        for path in sources()
        if path != PACKAGE / "markup.py"
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"</\w+>", node.value)
    ]
    assert not wrong, "HTML outside markup.py, where texts are escaped:\n" + "\n".join(wrong)


#: calls functions that users wrote, which may raise anything
STRANGERS = "scheduling/own.py"


def test_exceptions_are_caught_by_name():
    wrong = []
    for path in sources():
        if path == PACKAGE / STRANGERS:
            continue
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                if not caught or re.search(r"\b(Base)?Exception\b", caught):
                    wrong.append(f"{place(path, node)}: except {caught or 'everything'}")
    assert not wrong, "\n".join(wrong)


#: the public interface; everything else may change
PUBLIC = {
    "CmsimError",
    "Results",
    "Scenario",
    "System",
    "__version__",
    "compare",
    "load_scenario",
    "load_system",
    "run",
    "validate",
}


def test_public_names():
    import cmsim

    names = set(cmsim.__all__)
    assert len(names) == len(cmsim.__all__), "a name stands twice"
    assert names == PUBLIC, f"differs: {sorted(names ^ PUBLIC)}"
    for name in names:
        assert getattr(cmsim, name) is not None
    present = {name for name in vars(cmsim) if not name.startswith("_")}
    modules = {room_of(path).partition("/")[0] for path in sources()}
    assert present <= names | modules | {"annotations", "TYPE_CHECKING"}, (
        f"public by accident: {sorted(present - names - modules)}"
    )


LIGHT = """
import importlib, json, pkgutil, sys
import cmsim, cmsim.cli
for info in pkgutil.walk_packages(getattr(cmsim.cli, "__path__", []), "cmsim.cli."):
    importlib.import_module(info.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_command_line_starts_light():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    heavy = set(json.loads(done.stdout)) & set(HEAVY)
    assert not heavy, f"imported at the start, should be imported where they are used: {sorted(heavy)}"


def test_a_long_page_says_why():
    pages = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "cmsim").rglob("*.py"))}
    long = [path for path, text in pages.items() if len(text.splitlines()) > 500]
    assert not [path for path in long if "One page of more than 500 lines: " not in str(ast.get_docstring(tree(path)))]


def test_no_two_classes_of_one_name():
    """A name says one thing in the whole package; names with an underscore stay inside their page."""
    found: dict[str, list[str]] = {}
    for path in sources():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(place(path, node))
    twice = [f"{name}: {', '.join(places)}" for name, places in sorted(found.items()) if len(places) > 1]
    assert not twice, "\n".join(twice)
