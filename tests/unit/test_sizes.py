"""Bytes and tokens as people write them, wherever they are asked."""

from __future__ import annotations

import pytest

import cmsim
from cmsim import kinds, units
from cmsim.errors import InputError
from cmsim.reading import size_at

KIB, MIB = 2**10, 2**20
COLLECTIVE = {"kind": "collective", "collective": "all_reduce"}
MODEL = {"model": "llama-3.1-8b"}


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("4096", 4096),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("1 KiB", KIB),
        ("1Ki", KIB),
        ("256 MiB", 256 * MIB),
        ("256 MB", 256e6),
        ("1kB", 1000),
        ("1.5G", 1.5 * 2**30),
        ("2 TB", 2e12),
        ("1e3 B", 1000),
        (" 8 M ", 8 * MIB),
    ],
)
def test_bytes(text, bytes_):
    assert units.size(text) == bytes_


def test_whole_numbers_stay_exact():
    assert units.size(str(2**63 + 1)) == 2**63 + 1 and isinstance(units.size("1.5K"), int)


@pytest.mark.parametrize(
    "text", ["", "K", "1Q", "1 Kb", "1Mb", "-1K", "nan", "inf", "1e999", "1,024", "0x10", "٣", "1  K"]
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="must be a number of bytes, or one with K, M, G or T"):
        units.size(text)


def test_tokens_have_no_bytes():
    assert units.size("64K", of="tokens") == units.size("64Ki", of="tokens") == 65_536
    for text in ("64KB", "64 KiB", "1B"):
        with pytest.raises(ValueError, match="number of tokens"):
            units.size(text, of="tokens")


def test_every_key_of_bytes_or_tokens_is_a_size():
    """Of all kinds: a key that counts them and takes a plain number would refuse ``64K``."""
    asked = []
    for kind in kinds.every():
        asked += [
            (kind.spec, path) for path in _paths(kind.spec) if path[-1].endswith(("bytes", "tokens", "sequence_length"))
        ]
    assert len(asked) >= 7
    for spec, path in asked:
        assert size_at(spec, path) is not None, (spec.__name__, path)


def _paths(spec, above=()):
    import typing

    for name, field in spec.model_fields.items():
        yield (*above, name)
        for inner in (field.annotation, *typing.get_args(field.annotation)):
            if hasattr(inner, "model_fields"):
                yield from _paths(inner, (*above, name))


@pytest.mark.parametrize(
    ("workload", "path", "value"),
    [
        ({**COLLECTIVE, "message_bytes": "1 KiB"}, "message_bytes", 1024),
        ({"kind": "decode", **MODEL, "batch_per_accelerator": 8, "context_tokens": "4K"}, "context_tokens", 4096),
        ({"kind": "prefill", **MODEL, "batch_per_accelerator": 1, "prompt_tokens": "2k"}, "prompt_tokens", 2048),
        ({"kind": "training", **MODEL, "global_batch": 8, "sequence_length": "8K"}, "sequence_length", 8192),
    ],
)
def test_keys_of_scenarios(workload, path, value):
    scenario = cmsim.load_scenario({"systems": ["hgx_h100"], "workload": workload})
    assert getattr(scenario.runs[0].spec, path) == value


def test_lists_sweeps_and_best_are_numbers_too():
    """64K and 65536 are one point, called alike, whoever wrote it."""
    base = {"systems": ["hgx_h100"], "workload": {**COLLECTIVE, "message_bytes": 1}}
    plain = [65536, 1048576]
    for given in (
        {"workload.message_bytes": ["64K", "1 MiB"]},
        {"sweep": {"workload.message_bytes": ["64K", "1 MiB"]}},
        {"sweep": {"workload.message_bytes": {"from": "64K", "to": "1M", "steps": 2}}},
    ):
        runs = cmsim.load_scenario(base, set=given).runs
        assert [one.spec.message_bytes for one in runs] == plain
        assert [list(one.point.values()) for one in runs] == [[one] for one in plain]
    left = cmsim.load_scenario(base, set={"workload.message_bytes": {"best": ["64K", "1 MiB"]}}).runs[0]
    assert left.open[0].values == tuple(plain)
    with pytest.raises(InputError, match="1024 stands here twice"):
        cmsim.load_scenario(base, set={"workload.message_bytes": ["1K", 1024]})


def test_what_is_no_size_names_its_line():
    text = "systems: [hgx_h100]\nworkload:\n  kind: collective\n  collective: all_reduce\n  message_bytes: 64Q\n"
    with pytest.raises(InputError) as caught:
        cmsim.load_scenario(text)
    [problem] = caught.value.problems
    assert (problem.line, problem.key) == (5, "workload.message_bytes") and "got '64Q'" in problem.message
    with pytest.raises(InputError, match="whole number"):
        cmsim.load_scenario(
            {
                "systems": ["hgx_h100"],
                "workload": {"kind": "prefill", **MODEL, "batch_per_accelerator": 1, "prompt_tokens": "0.3K"},
            }
        )
