"""Kinds of bad input, each refused by name before work is done for it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from cmsim import api
from cmsim.cli import say
from cmsim.describe import describe
from cmsim.errors import FailedError, InputError
from cmsim.hardware import load_system
from cmsim.hardware.link_table import read_links
from cmsim.network.maxmin import duration_ps
from cmsim.reading import locate, parse_yaml, read_text, read_yaml, set_dotted, whole
from cmsim.reading.bytes_in import head, read_bytes
from cmsim.requests import open_requests
from cmsim.scenario import load_scenario
from cmsim.topology import shortest
from cmsim.traces import open_trace
from cmsim.units import to_ps

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "x.yaml: holds more than 200000 values, those of aliases counted wherever they stand"),
        ("a: " + "[" * 500 + "]" * 500, "x.yaml:1: values lie too deep in each other; allowed: 60 levels"),
        ("a: " + "[" * 50_000, "x.yaml:1: not valid YAML: exceeded maximum nesting depth"),
        ("a: !!bool foo", "x.yaml:1: a: not valid YAML: 'foo' is not true or false"),
        ("a: !!int ''", "x.yaml:1: a: not valid YAML: '' is not a whole number"),
        ("a: !!timestamp foo", "x.yaml:1: a: the tag 'tag:yaml.org,2002:timestamp' is not read"),
        ("a: " + "9" * 5000, "x.yaml:1: a: not valid YAML: '9999999999999999999999999999999999999999' is not"),
        ("a: 0x" + "f" * 5000, "x.yaml:1: a: got a whole number of 20000 bits; allowed: 64"),
        ("a: \ud800", "x.yaml: is not UTF-8 text (character 3)"),
        ("a: 1\n" * 500_000, "x.yaml: has 2500000 characters of YAML; allowed: up to 2097152"),
    ],
)
def test_yaml_that_would_hang_or_break(text, said):
    with pytest.raises(InputError) as error:
        parse_yaml(text, "x.yaml")
    assert str(error.value).startswith(said)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device")):
        for read in (read_text, read_bytes, read_yaml, describe, open_trace, open_requests):
            with pytest.raises(InputError, match=f"is {what}; allowed: regular files"):
                read(type(tmp_path)(path))
        assert head(type(tmp_path)(path)) == b""
    with pytest.raises(InputError, match="is empty"):
        read_bytes(type(tmp_path)("/proc/self/maps"))
    assert locate("n" * 5000) is None
    assert locate("a\0b") is None
    (tmp_path / "large").write_bytes(b"a: 1\n" * 500_000)
    with pytest.raises(InputError, match="is 2500000 bytes; allowed: up to 2097152"):
        read_yaml(tmp_path / "large")


def test_chains_of_extends_end(tmp_path):
    for number in range(40):
        (tmp_path / f"s{number}.yaml").write_text(f"extends: s{number + 1}.yaml\n")
    with pytest.raises(InputError, match="more than 32 scenarios extend each other"):
        load_scenario(tmp_path / "s0.yaml")


def test_the_clock_ends():
    for seconds in (1e30, np.inf, np.nan):
        with pytest.raises(FailedError, match="ends after 106 days"):
            to_ps(seconds)
    with pytest.raises(FailedError, match="ends after 106 days"):
        duration_ps(1e18, 1e-3)
    call = {"kind": "collective", "collective": "all_reduce", "message_bytes": 2.0**60, "repeat": 10_000}
    (lost,) = api.run({"systems": ["hgx_h100"], "workload": call}).missing
    assert "the clock counts picoseconds, and ends after 106 days" in lost.message


def test_runs_are_counted_before_they_are_made():
    sweep = {"seed": {"from": 1, "to": 1000, "steps": 1000}, "workload.repeat": {"from": 1, "to": 1000, "steps": 1000}}
    call = {"kind": "collective", "collective": "all_reduce", "message_bytes": 1}
    with pytest.raises(InputError, match=r"sweep: asks for 1000000 runs: .*; allowed: up to 100000"):
        load_scenario({"systems": ["hgx_h100"], "workload": call, "sweep": sweep})
    with pytest.raises(InputError, match="asks for 1000000 steps; allowed: up to 100000"):
        load_scenario(
            {"systems": ["hgx_h100"], "workload": call, "sweep": {"seed": {"from": 1, "to": 9, "steps": 10**6}}}
        )


def test_more_ranks_than_there_can_be():
    with pytest.raises(InputError, match="33554432 accelerators of 1 dies are 33554432 ranks; allowed: up to 4194304"):
        load_system("hgx_h100", domains=2**22)


def test_numbers_in_keys_are_plain():
    assert not whole("\u00b2")
    assert not whole("\u0661")
    with pytest.raises(InputError, match="no entry '\u00b2' in a list of 1"):
        set_dotted({"a": [1]}, "a.\u00b2", 1, where="--set")
    with pytest.raises(InputError, match="a key of 5000 names"):
        set_dotted({}, ".".join("a" * 5000), 1, where="--set")


def test_tables_of_links_have_a_size():
    lines = "".join(f"rank/0,s{number},1,1\n" for number in range(5000))
    with pytest.raises(InputError, match="joins 5001 nodes; allowed: up to 4096"):
        read_links("from,to,GBps,latency_us\n" + lines, file="l.csv", ranks=1)
    with pytest.raises(InputError, match=r"l\.csv: has 200000 lines; allowed: up to 131072"):
        read_links("\n" * 200_000, file="l.csv", ranks=1)


def test_loads_of_links_are_sums_of_shares():
    cables = read_links(
        "from,to,GBps,latency_us\n" + "".join(f"rank/{i},rank/{(i + 1) % 12},{i + 1},1\n" for i in range(12)),
        file="l.csv",
        ranks=12,
    )
    links = shortest.graph(cables, 12)
    ways = shortest.Ways(links, links.capacity_Bps)
    everybody = np.arange(12)
    for to in range(12):
        shares = ways.shares(everybody, to)
        np.testing.assert_allclose(ways.load(everybody, to), shares.sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(ways.shares(everybody[:3], to), shares[:3])


def test_names_are_shown_and_not_obeyed(capsys):
    say.errors(InputError("no \x1b]0;x\x07 and \u202eabc"))
    say.message("\x9b31m")
    say.show(say.table(["\x1b[1m"], [["\x1b[2J"]], title="\x07"), "[/x] :smile: \x1b")
    told = capsys.readouterr()
    assert told.err == "error: no \\x1b]0;x\\x07 and \\u202eabc\n\\x9b31m\n"
    assert "\x1b" not in told.out
    assert "\x07" not in told.out
    assert "[/x] :smile: \\x1b" in told.out


def test_labels_of_figures_are_no_formulas(tmp_path):
    from cmsim.plots import style

    ax = style.axes(None)
    style.head(ax, "$\\frac{a_b^c$ and $x$ \x1b")
    ax.set_xticks([0, 1], labels=["$\\frac{a$", "b"])
    ax.get_figure().draw_without_rendering()
    assert ax.get_title(loc="left") == "$\\frac{a_b^c$ and $x$ \ufffd"
    style.save(ax, tmp_path / "x.png")


@pytest.mark.parametrize("wrong", ["x", "[1]", "{h100_sxm: 1}"])
def test_a_stack_by_accelerator_that_is_no_mapping(wrong, tmp_path):
    with pytest.raises(InputError, match="accelerators"):
        load_system("hgx_h100", set={"stack.accelerators": parse_yaml(f"a: {wrong}", "x").data["a"]})
    stack = tmp_path / "s.yaml"
    stack.write_text(f"extends: cuda_graph\nname: s\naccelerators: {wrong}\n")
    with pytest.raises(InputError, match="accelerators"):
        load_system("hgx_h100", stack=str(stack))
