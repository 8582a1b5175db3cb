"""Reading files: every message names the file, the line, the key, what was got and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cmsim import reading
from cmsim.errors import CmsimError, InfeasibleError, InputError, Problem, did_you_mean, nearest
from cmsim.reading import Spec, names


class Link(Spec):
    bandwidth_GBps: PositiveFloat
    latency_ns: float = Field(default=0.0, ge=0)


class Ring(Spec):
    wiring: Literal["ring"]
    hops: PositiveInt


class Mesh(Spec):
    wiring: Literal["mesh"]
    links_per_pair: PositiveInt = 1
    link: Link | None = None


class Guess(Spec):
    assumed: tuple[float, float]
    why: str


class Machine(Spec):
    name: str
    accelerators: PositiveInt
    per_node: PositiveInt = 8
    rank: Literal["die", "package"] = "die"
    fabric: Annotated[Ring | Mesh, Field(discriminator="wiring")]
    links: tuple[Link, ...] = ()
    peak: dict[Literal["fp8", "bf16"], PositiveFloat] = {}
    sources: dict[str, str | Guess] = {}

    @model_validator(mode="after")
    def _whole_nodes(self) -> Machine:
        if self.accelerators % self.per_node:
            raise ValueError(f"accelerators: {self.accelerators} does not fill nodes of {self.per_node}")
        return self


GOOD = """\
name: example
accelerators: 16
fabric: {wiring: mesh}
"""


def complaints(text: str, *, data: object = None) -> list[str]:
    with pytest.raises(InputError) as raised:
        reading.validate(Machine, reading.parse_yaml(text, "m.yaml"), data=data)
    assert str(raised.value) == "\n".join(map(str, raised.value.problems))
    return [str(problem) for problem in raised.value.problems]


def refused(text: str | bytes, tmp_path: Path) -> list[str]:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as raised:
        reading.read_yaml(path)
    return [str(problem).replace(str(path), "x.yaml") for problem in raised.value.problems]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_lines_of_keys_and_entries():
    document = reading.parse_yaml("# head\na: 1\nb:\n  c: [1, 2]\n  d:\n    - e: 5\n    - e: 6\n", "x.yaml")
    assert document.data == {"a": 1, "b": {"c": [1, 2], "d": [{"e": 5}, {"e": 6}]}}
    assert document.line(("a",)) == 2
    assert document.line(("b", "c")) == 4
    assert document.line(("b", "d", 1, "e")) == 7
    assert document.line(("b", "d", 1, "absent")) == 7, "an absent key stands where its parent does"
    assert document.line(("absent",)) == 2
    assert str(document.problem(("b", "d", 1, "e"), "is wrong")) == "x.yaml:7: b.d[1].e: is wrong"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e9", 1e9),
        ("1E-6", 1e-6),
        ("-2e3", -2e3),
        (".5e3", 500.0),
        ("1.5", 1.5),
        ("12", 12),
        ("1_000", 1000),
        ("'1e9'", "1e9"),
        ('"1e9"', "1e9"),
        ("e9", "e9"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1.2.3", "1.2.3"),
        ("8:30", "8:30"),
        ("2026-11-01", "2026-11-01"),
        ("2024-13-45", "2024-13-45"),
        ("true", True),
        ("~", None),
        ("", None),
        ("a b", "a b"),
    ],
)
def test_scalars(written, read):
    value = reading.parse_yaml(f"key: {written}\n", "x.yaml").data["key"]
    assert value == read
    assert type(value) is type(read)


def test_byte_order_mark(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert reading.read_yaml(tmp_path / "x.yaml").data == {"a": 1}


def test_anchor_and_alias():
    assert reading.parse_yaml("a: &x {b: 1}\nc: *x\n", "x.yaml").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        reading.read_yaml(tmp_path / "absent.yaml")


def test_folder_instead_of_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        reading.read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: \xff\n", "x.yaml: is not UTF-8 text (byte 3)"),
        ("", "x.yaml:1: expected a mapping of keys to values, got nothing"),
        ("- a\n- b\n", "x.yaml:1: expected a mapping of keys to values, got a list"),
        ("hello\n", "x.yaml:1: expected a mapping of keys to values, got 'hello'"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2: not valid YAML: "),
        ("a: b: c\n", "x.yaml:1: not valid YAML: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: "),
        ("a: *nothing\n", "x.yaml:1: not valid YAML: "),
        ("a: !!python/object:os.system {}\n", "x.yaml:1: a: the tag 'tag:yaml.org,2002:python/object:os.system' "),
        ("a: \x07\n", "x.yaml"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: a: the key stands twice (first on line 1)"),
        ("a:\n  b: 1\n  b: 2\n", "x.yaml:3: a.b: the key stands twice (first on line 2)"),
        ("a: 1\non: 2\n", "x.yaml:2: a key must be text or a whole number, got 'on' (put it in quotes: "),
        ("a:\n  1.5: 2\n", "x.yaml:2: a: a key must be text or a whole number, got '1.5'"),
        ("? [a, b]\n: 1\n", "x.yaml:1: a key must be text or a whole number, got a list"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "x.yaml:3: c: '<<' is not read; write the keys out"),
        ("a: &x {b: *x}\n", "x.yaml:1: a.b: the alias contains itself"),
        ("a: !!int word\n", "x.yaml:1: a: not valid YAML: "),
    ],
)
def test_malformed(text, message, tmp_path):
    (got,) = refused(text, tmp_path)
    assert got.startswith(message)
    assert "\n" not in got


def test_all_malformed_keys_at_once(tmp_path):
    assert len(refused("a: 1\na: 2\noff: 3\nb: {c: 1, c: 2}\n", tmp_path)) == 3


# --- validating ------------------------------------------------------------------------------------------------------


def test_good():
    machine = reading.validate(Machine, reading.parse_yaml(GOOD, "m.yaml"))
    assert machine.fabric == Mesh(wiring="mesh")
    with pytest.raises(ValueError, match="frozen"):
        machine.name = "other"  # type: ignore[misc]


def test_unknown_key_with_nearest_name():
    assert complaints(GOOD + "links:\n  - bandwidth_GBps: 1\n    latency: 2\n") == [
        "m.yaml:6: links[0].latency: unknown key 'latency'. Did you mean 'latency_ns'? "
        "Allowed: bandwidth_GBps, latency_ns."
    ]


def test_unknown_key_without_a_near_one():
    (got,) = complaints(GOOD + "zzz: 1\n")
    assert got.startswith("m.yaml:4: zzz: unknown key 'zzz'. Allowed: accelerators, fabric, links, ")


def test_missing_keys():
    assert complaints("name: x\nfabric:\n  wiring: ring\nlinks:\n  - {latency_ns: 1}\n") == [
        "m.yaml:1: accelerators: the key is required",
        "m.yaml:2: fabric.hops: the key is required",
        "m.yaml:5: links[0].bandwidth_GBps: the key is required",
    ]


def test_several_at_once_in_file_order():
    text = "rank: chip\naccelerators: -1\nname: 5\nfabric: {wiring: ring, hops: 0}\nlinkz: []\n"
    assert [line.split(":")[1] for line in complaints(text)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank: packge", "m.yaml:4: rank: got 'packge'. Did you mean 'package'? Allowed: die, package."),
        ("rank: Die", "m.yaml:4: rank: got 'Die'. Did you mean 'die'? Allowed: die, package."),
        ("rank: [die]", "m.yaml:4: rank: must be one of die, package, got a list"),
        ("per_node: 0", "m.yaml:4: per_node: must be greater than 0, got 0"),
        ("per_node: four", "m.yaml:4: per_node: must be a whole number, got 'four'"),
        ("per_node: 1.5", "m.yaml:4: per_node: must be a whole number, got 1.5"),
        ("links: 3", "m.yaml:4: links: must be a list, got 3"),
        ("links: [3]", "m.yaml:4: links[0]: must be a mapping of keys to values, got 3"),
        ("links: [{bandwidth_GBps: .inf}]", "m.yaml:4: links[0].bandwidth_GBps: must be a finite number, got inf"),
        ("links: [{bandwidth_GBps: .nan}]", "m.yaml:4: links[0].bandwidth_GBps: must be a finite number, got nan"),
        ("peak: {fp88: 1}", "m.yaml:4: peak.fp88: got 'fp88'. Did you mean 'fp8'? Allowed: bf16, fp8."),
        ("per_node: 3", "m.yaml:2: accelerators: 16 does not fill nodes of 3"),
    ],
)
def test_wrong_values(text, message):
    assert complaints(GOOD + text + "\n") == [message]


# --- unions ----------------------------------------------------------------------------------------------------------


def test_unknown_key_in_a_union_lists_the_chosen_member():
    assert complaints("name: x\naccelerators: 8\nfabric:\n  wiring: mesh\n  links_per_pear: 2\n") == [
        "m.yaml:5: fabric.links_per_pear: unknown key 'links_per_pear'. Did you mean 'links_per_pair'? "
        "Allowed: link, links_per_pair, wiring."
    ]


def test_unknown_key_below_a_union():
    text = "name: x\naccelerators: 8\nfabric:\n  wiring: mesh\n  link: {bandwith_GBps: 2, bandwidth_GBps: 1}\n"
    assert complaints(text) == [
        "m.yaml:5: fabric.link.bandwith_GBps: unknown key 'bandwith_GBps'. Did you mean 'bandwidth_GBps'? "
        "Allowed: bandwidth_GBps, latency_ns."
    ]


def test_wrong_tag():
    assert complaints("name: x\naccelerators: 8\nfabric:\n  wiring: mash\n") == [
        "m.yaml:4: fabric.wiring: got 'mash'. Did you mean 'mesh'? Allowed: mesh, ring."
    ]


def test_absent_tag():
    assert complaints("name: x\naccelerators: 8\nfabric:\n  hops: 3\n") == [
        "m.yaml:3: fabric.wiring: the key is required"
    ]


def test_value_that_fits_no_member_is_one_problem():
    assert complaints(GOOD + "sources:\n  name: 3\n") == [
        "m.yaml:5: sources.name: must be text or a mapping of keys to values, got 3"
    ]


def test_only_the_member_that_was_meant_complains():
    assert complaints(GOOD + "sources:\n  name: {assumed: [1, 2], wy: because}\n") == [
        "m.yaml:5: sources.name.why: the key is required",
        "m.yaml:5: sources.name.wy: unknown key 'wy'. Did you mean 'why'? Allowed: assumed, why.",
    ]


# --- overrides -------------------------------------------------------------------------------------------------------


def test_override_is_not_blamed_on_the_files_line():
    document = reading.parse_yaml(GOOD, "m.yaml")
    data = reading.merge(document.data, {"accelerators": -8, "per_nod": 4})
    with pytest.raises(InputError) as raised:
        reading.validate(Machine, document, data=data)
    first, second = map(str, raised.value.problems)
    assert first == "m.yaml: accelerators: must be greater than 0, got -8 (set over the file)"
    assert second.startswith("m.yaml: per_nod: unknown key 'per_nod'. Did you mean 'per_node'?")


def test_part_of_a_document():
    document = reading.parse_yaml("systems:\n  - name: x\n    accelerators: 8\n    fabric: {wiring: ring}\n", "s.yaml")
    with pytest.raises(InputError) as raised:
        reading.validate(Machine, document, at=("systems", 0))
    assert str(raised.value) == "s.yaml:4: systems[0].fabric.hops: the key is required"


def test_set_dotted():
    data = {"a": {"b": [{"c": 1}, {"c": 2}]}, "steps": {8: "x"}, "empty": None}
    reading.set_dotted(data, "a.b.1.c", 3, where="--set")
    reading.set_dotted(data, "a.b[0].c", 4, where="--set")
    reading.set_dotted(data, "a.new.deep", 5, where="--set")
    reading.set_dotted(data, "steps.8", "y", where="--set")
    reading.set_dotted(data, "empty.key", 6, where="--set")
    reading.set_dotted(data, "a.b.0", {"c": 7}, where="--set")
    assert data == {
        "a": {"b": [{"c": 7}, {"c": 3}], "new": {"deep": 5}},
        "steps": {8: "y"},
        "empty": {"key": 6},
    }


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("name.first", "--set: name.first: 'name' is 'x' and has no keys below it"),
        ("links.2", "--set: links.2: no entry '2' in a list of 1"),
        ("links.2.GBps", "--set: links.2.GBps: no entry '2' in a list of 1"),
        ("links.first.GBps", "--set: links.first.GBps: no entry 'first' in a list of 1"),
        ("links[0].GBps.x", "--set: links[0].GBps.x: 'links.0.GBps' is 50 and has no keys below it"),
        ("a..b", "--set: a..b: a key has names joined by dots, none of them empty"),
        ("", "--set: a key has names joined by dots, none of them empty"),
    ],
)
def test_set_dotted_errors(key, message):
    data = {"name": "x", "links": [{"GBps": 50}]}
    with pytest.raises(InputError) as raised:
        reading.set_dotted(data, key, 1, where="--set")
    assert str(raised.value) == message


def test_merge_changes_neither():
    base, over = {"a": 1, "b": {"c": 2, "d": [1]}}, {"b": {"c": {"e": 1}, "d": [2]}, "f": None}
    assert reading.merge(base, over) == {"a": 1, "b": {"c": {"e": 1}, "d": [2]}, "f": None}
    assert base == {"a": 1, "b": {"c": 2, "d": [1]}}
    assert over == {"b": {"c": {"e": 1}, "d": [2]}, "f": None}
    assert reading.merge({"a": 1}, [1]) == [1]


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def built_in(tmp_path, monkeypatch):
    data, work = tmp_path / "data", tmp_path / "work"
    (data / "topologies").mkdir(parents=True)
    work.mkdir()
    for name in ("ring8", "mesh16", "v1.5"):
        (data / "topologies" / f"{name}.yaml").write_text("name: x\n")
    monkeypatch.setattr(names, "DATA", data)
    monkeypatch.chdir(work)
    return data / "topologies"


def test_find_built_in(built_in):
    assert list(reading.builtin_files("topologies")) == ["mesh16", "ring8", "v1.5"]
    assert reading.find("ring8", "topologies", "system") == built_in / "ring8.yaml"
    assert reading.find("v1.5", "topologies", "system") == built_in / "v1.5.yaml"
    assert reading.find("topologies/ring8.yaml", "topologies", "system") == built_in / "ring8.yaml"


def test_find_by_alias(built_in):
    text = "# head\nname: x\naliases: [r8, 'ring of 8']  # of tables\ntopology: {}\naliases: [no]\n"
    (built_in / "ring8.yaml").write_text(text)
    assert reading.aliases_of(built_in / "ring8.yaml") == ["r8", "ring of 8"]
    assert reading.aliases_of(built_in / "mesh16.yaml") == []
    (Path.cwd() / "r8").write_text("")
    (built_in / "v1.5.yaml").write_text("aliases: [ring8]\n")
    assert reading.find("r8", "topologies", "system") == built_in / "ring8.yaml", "an alias is built in too"
    assert reading.find("ring8", "topologies", "system") == built_in / "ring8.yaml", "names come before aliases"


def test_locate_asks_in_order(built_in, tmp_path):
    base, data = tmp_path / "base", tmp_path / "data"
    ask = {"base": base, "built_in": ("topologies", "")}
    assert reading.locate("one/x.csv", **ask) is None
    for root in (data, data / "topologies", Path.cwd(), base):
        (root / "one").mkdir(parents=True)
        (root / "one" / "x.csv").write_text("")
        assert reading.locate("one/x.csv", **ask) == root / "one" / "x.csv"
    assert reading.locate("one", **ask) is None
    assert reading.locate("one", **ask, folders=True) == base / "one"
    assert reading.locate("", **ask, folders=True) is None
    assert reading.locate("one/x.csv") == Path.cwd() / "one" / "x.csv"


def test_find_users_path(built_in, tmp_path):
    base = tmp_path / "elsewhere"
    base.mkdir()
    (base / "own.yaml").write_text("")
    (Path.cwd() / "own.yaml").write_text("")
    (Path.cwd() / "short.yml").write_text("")
    (Path.cwd() / "ring8").write_text("")
    assert reading.find("own.yaml", "topologies", "system") == Path.cwd() / "own.yaml"
    assert reading.find("own.yaml", "topologies", "system", base=base) == base / "own.yaml"
    assert reading.find(str(base / "own.yaml"), "topologies", "system") == base / "own.yaml"
    assert reading.find("short.yml", "topologies", "system") == Path.cwd() / "short.yml"
    assert reading.find("ring8", "topologies", "system") == built_in / "ring8.yaml", (
        "a bare name is a built-in one first"
    )


def test_find_nearest(built_in):
    with pytest.raises(InputError) as raised:
        reading.find("rng8", "topologies", "system")
    assert str(raised.value) == "no system named 'rng8'. Did you mean 'ring8'? Allowed: mesh16, ring8, v1.5."
    with pytest.raises(InputError) as raised:
        reading.find("my/rng8.yaml", "topologies", "system")
    assert str(raised.value) == "no such system file: my/rng8.yaml. Built in is 'ring8'"
    with pytest.raises(InputError) as raised:
        reading.find("my/qqq.yaml", "topologies", "system")
    assert str(raised.value) == "no such system file: my/qqq.yaml"


def test_data_of_the_checkout():
    assert (reading.DATA / "topologies").is_dir()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_problem_text():
    assert str(Problem("bad", "f.yaml", 3, "a.b")) == "f.yaml:3: a.b: bad"
    assert str(Problem("bad", "f.yaml")) == "f.yaml: bad"
    assert str(Problem("bad", line=3, key="a")) == "a: bad", "a line without a file says nothing"
    assert str(Problem("bad")) == "bad"


def test_error_tree():
    assert InputError("x").exit_code == 2
    assert InfeasibleError("x").exit_code == 1
    assert issubclass(InputError, CmsimError)
    assert issubclass(InfeasibleError, CmsimError)
    assert InputError("x").problems == (Problem("x"),)
    assert InputError(Problem("x")).problems == InputError([Problem("x")]).problems


def test_did_you_mean():
    assert did_you_mean("RING", ["direct", "ring"]) == "Did you mean 'ring'? Allowed: direct, ring."
    assert did_you_mean("x", []) == "Allowed: nothing."
    assert did_you_mean("x", [f"n{i:02}" for i in range(20)]).endswith("n11, ... (20 in all).")
    assert nearest("zzz", ["ring"]) is None


def test_a_file_is_written_into_a_folder_that_is_made(tmp_path):
    reading.write_text(tmp_path / "deep" / "down" / "x.txt", "a\n")
    assert (tmp_path / "deep" / "down" / "x.txt").read_bytes() == b"a\n"
    with pytest.raises(InputError, match=r"x\.txt/y: cannot be written \("):
        reading.write_text(tmp_path / "deep" / "down" / "x.txt" / "y", "a")
