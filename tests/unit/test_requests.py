"""Request traces: counts established by another parser, arrivals drawn from rates, and files that are damaged."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from cmsim.errors import InputError
from cmsim.reading.formats import sniffed
from cmsim.requests import (
    IMPORTERS,
    RateWindows,
    Requests,
    draw_arrivals,
    load_requests,
    open_requests,
)
from cmsim.requests.llmservingsim import token_blocks

Damage = Callable[[bytes, random.Random], bytes]
ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "workloads" / "requests"
SHARED = ROOT.parent / "shared" / "traces"  # the full collection, where it stands beside the checkout

FULL = (
    "serving/AzureLLMInferenceTrace_code.csv.gz",
    "serving/llmservingsim_sharegpt_llama31_8b.jsonl.gz",
    "serving/mooncake_conversation_trace.jsonl.gz",
    "serving/servegen_m-large_chunk-0-trace.csv.gz",
    "serving/vidur_splitwise_code.csv.gz",
)

#: of the samples here; those that are whole files have the counts of the collection
SAMPLE_TRUTH: dict[str, dict[str, Any]] = {
    "azure/AzureLLMInferenceTrace_code.csv.gz": {
        "context_tokens": 18059974,
        "first_timestamp": "2023-11-16 18:17:03.9799600",
        "format": "azure-llm-2023",
        "generated_tokens": 245896,
        "header": ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
        "monotonic": True,
        "requests": 8819,
        "span_s": 3435.948056,
        "zero_output": 0,
    },
    "vidur/splitwise_code.csv.gz": {
        "decode_tokens": 245896,
        "format": "vidur",
        "header": ["arrived_at", "num_prefill_tokens", "num_decode_tokens"],
        "monotonic": True,
        "prefill_tokens": 18059974,
        "requests": 8819,
        "span_s": 3435.948056,
    },
    "servegen/m-large_chunk-0-trace.csv.gz": {
        "columns": 6,
        "first_window_s": 0.0,
        "format": "servegen",
        "last_window_s": 1209000.0,
        "patterns": {"": 715, "Gamma": 230, "Weibull": 1071},
        "rate_sum": 1125.645,
        "rows": 2016,
    },
    "llmservingsim/sharegpt-llama-3.1-8b-300-sps10_lengths.jsonl.gz": {
        "format": "llmservingsim",
        "input_tokens": 257239,
        "keys": ["arrival_time_ns", "input_toks", "output_toks"],
        "lines": 300,
        "output_tokens": 195753,
        "span_ns": 29136836395,
        "with_arrival": 300,
    },
}

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:17:03.9799600,4808,10\r
2023-11-16 18:17:04.0319600,3180,8\r
2023-11-16 18:17:04.0319600,110,27"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,0,1087,API log
118,GPT-4,417,276,693,Conversation log
"""
BURSTGPT_SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,s1,1.5,ChatGPT,472,18,490,Conversation log
45,,2,GPT-4,1087,7,1094,API log
118,s1,0.5,ChatGPT,417,276,693,Conversation log
"""
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,4808,10\n1.552,3180,8\n2,110,27\n"
VIDUR_LENGTHS = """num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio
3772,54,3826,69.85185185185185
2015,156,2171,12.916666666666666
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1024, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 0, "input_length": 1025, "output_length": 490, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 1, "output_length": 1, "hash_ids": [7]}
"""
BAILIAN = """{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 16, "output_length": 5, \
"type": "text", "turn": 1, "hash_ids": [10]}
{"chat_id": 2, "parent_chat_id": -1, "timestamp": 1.0, "input_length": 17, "output_length": 6, "type": "search", \
"turn": 1, "hash_ids": [10, 11]}
{"chat_id": 3, "parent_chat_id": 1, "timestamp": 61.114, "input_length": 33, "output_length": 132, "type": "text", \
"turn": 2, "hash_ids": [10, 12, 13]}
{"chat_id": 4, "parent_chat_id": 3, "timestamp": 70, "input_length": 48, "output_length": 2, "type": "text", \
"turn": 3, "hash_ids": [10, 12, 14]}
{"chat_id": 5, "parent_chat_id": 99, "timestamp": 71, "input_length": 3, "output_length": 2, "type": "text", \
"turn": 2, "hash_ids": [15]}
"""
LLMSERVINGSIM = """{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 46926808, "input_tok_ids": [5, 6, 7], \
"output_tok_ids": [1, 2]}
{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 347938951, "input_tok_ids": [5, 6], "output_tok_ids": [3]}
"""
LENGTHS = '{"input_toks": 12, "output_toks": 1}\n{"output_toks": 3, "input_toks": 9}\n'
SERVEGEN = """0,0.05,2.0,Gamma,0.25,80.0\r
600,0,0,,0,0\r
1200,0.1,8.5,Weibull,0.4,0.4\r
"""
SHAREGPT = '[{"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}]'
TINY = {
    "azure": ("azure-llm-2023", AZURE),
    "burstgpt": ("burstgpt", BURSTGPT),
    "burstgpt-sessions": ("burstgpt", BURSTGPT_SESSIONS),
    "vidur": ("vidur", VIDUR),
    "vidur-lengths": ("vidur", VIDUR_LENGTHS),
    "mooncake": ("mooncake", MOONCAKE),
    "bailian": ("qwen-bailian", BAILIAN),
    "llmservingsim": ("llmservingsim", LLMSERVINGSIM),
    "lengths": ("llmservingsim", LENGTHS),
    "servegen": ("servegen", SERVEGEN),
    "sharegpt": ("sharegpt", SHAREGPT),
}


def write(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(tmp_path: Path, text: str | bytes) -> Requests:
    return load_requests(write(tmp_path, text))


def refused(tmp_path: Path, text: str | bytes) -> str:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        open_requests(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "trace")


def sound(found: Requests | RateWindows) -> None:
    """What must hold of every file that is read."""
    assert len(found) > 0
    if isinstance(found, RateWindows):
        assert (np.diff(found.start_s) > 0).all() and np.isfinite(found.rate_rps).all() and (found.rate_rps >= 0).all()
        return
    assert (found.input_tokens > 0).all() and (found.output_tokens > 0).all()
    assert len(found.arrival_s) == len(found.output_tokens) == len(found.session) == len(found)
    if found.has_arrivals:
        assert found.arrival_s[0] == 0 and (np.diff(found.arrival_s) >= 0).all()
    else:
        assert np.isnan(found.arrival_s).all()
    assert len(found.prefix.ptr) == len(found) + 1 and found.prefix.ptr[-1] == len(found.prefix.block)
    assert all(len(codes) == len(found) for _, codes in found.labels.values())


# counts that were established by another parser


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full trace collection is not beside the checkout")
@pytest.mark.parametrize("name", FULL)
def test_collection_matches_its_counts(name: str) -> None:
    truth = json.loads((SHARED / "TRUTH.json").read_text())[name]
    found = open_requests(SHARED / name)
    sound(found)
    assert {key: found.counts()[key] for key in truth} == truth
    assert sniffed(SHARED / name, IMPORTERS) == truth["format"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full trace collection is not beside the checkout")
def test_every_file_of_the_collection_is_tested() -> None:
    truth = json.loads((SHARED / "TRUTH.json").read_text())
    assert {name for name in truth if name.startswith("serving/")} == set(FULL)


@pytest.mark.parametrize("name", SAMPLE_TRUTH)
def test_sample_matches_its_counts(name: str) -> None:
    found = open_requests(SAMPLES / name)
    sound(found)
    assert {key: found.counts()[key] for key in SAMPLE_TRUTH[name]} == SAMPLE_TRUTH[name]
    assert not found.notes


def test_mooncake_sample_matches_what_json_says() -> None:
    path = SAMPLES / "mooncake" / "conversation_trace_first_1000.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    found = load_requests(path)
    sound(found)
    assert found.arrival_s.tolist() == [row["timestamp"] / 1e3 for row in rows]
    assert found.input_tokens.tolist() == [row["input_length"] for row in rows]
    assert found.output_tokens.tolist() == [row["output_length"] for row in rows]
    ptr, block = found.prefix.ptr, found.prefix.block.tolist()
    assert [block[a:b] for a, b in itertools.pairwise(ptr)] == [row["hash_ids"] for row in rows]
    ids = [block for row in rows for block in row["hash_ids"]]
    counts = found.counts()
    assert (counts["requests"], counts["hash_blocks"], counts["unique_hash_ids"]) == (1000, len(ids), len(set(ids)))


def test_azure_and_vidur_are_the_same_requests() -> None:
    azure, vidur = (load_requests(SAMPLES / name) for name in list(SAMPLE_TRUTH)[:2])
    assert azure.input_tokens.tolist() == vidur.input_tokens.tolist()
    assert azure.output_tokens.tolist() == vidur.output_tokens.tolist()
    assert azure.arrival_s == pytest.approx(vidur.arrival_s, abs=1e-6)


def test_samples_are_the_files_that_the_attribution_names() -> None:
    page = (SAMPLES / "ATTRIBUTION.md").read_text()
    paths = sorted(path for path in SAMPLES.rglob("*.gz"))
    assert len(paths) == 6
    for path in paths:
        assert f"`{path.name}` {hashlib.sha256(path.read_bytes()).hexdigest()}" in page, path


# what is made of a file


@pytest.mark.parametrize("case", TINY)
def test_formats_are_known_by_what_they_hold(tmp_path: Path, case: str) -> None:
    name, text = TINY[case]
    assert set(IMPORTERS) == {name for name, _ in TINY.values()}
    path = write(tmp_path, gzip.compress(text.encode()), "other.txt")
    starts = [other for other, importer in IMPORTERS.items() if importer.sniff(text.encode()[:4096], path)]
    assert starts == [name]
    found = open_requests(path)
    assert found.format == name == found.counts()["format"] and found.source == str(path)
    sound(found)


def test_azure(tmp_path: Path) -> None:
    found = load(tmp_path, AZURE)
    assert found.arrival_s == pytest.approx([0, 0.052, 0.052], abs=1e-9)
    assert (found.input_tokens.tolist(), found.output_tokens.tolist()) == ([4808, 3180, 110], [10, 8, 27])
    assert found.block_tokens == 0 and found.session.tolist() == [-1, -1, -1] and not found.notes


def test_azure_times_with_a_zone(tmp_path: Path) -> None:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", "2024-05-10 00:00:00.009930+00:00,2162,5"]
    lines += ["2024-05-10 00:00:01+00:00,1,5", "2024-05-10 05:30:02.5+05:30,1,5", "2024-05-10T00:00:03Z,1,5"]
    found = load(tmp_path, "\n".join(lines))
    assert found.arrival_s == pytest.approx([0, 0.99007, 2.49007, 2.99007], abs=1e-9) and not found.notes
    found = load(tmp_path, "\n".join([*lines, "2024-05-10 00:00:04.0099300,1,5"]))
    assert found.arrival_s[-1] == 4.0
    assert found.notes == ("1 of 5 times do not say their zone: taken as UTC",)


def test_times_across_a_leap_day(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 23:59:59,1,1\n2024-03-01 00:00:00,1,1\n"
    assert load(tmp_path, text).arrival_s.tolist() == [0, 86401]


def test_requests_without_output_are_dropped_and_counted(tmp_path: Path) -> None:
    found = load(tmp_path, BURSTGPT)
    assert found.arrival_s.tolist() == [0, 113] and found.output_tokens.tolist() == [18, 276]
    assert found.notes == ("1 of 3 requests made no token: dropped as failed",)
    assert found.labels["Model"][0] == ("ChatGPT", "GPT-4") and found.labels["Model"][1].tolist() == [0, 1]
    counts = found.counts()
    assert (counts["requests"], counts["zero_output"], counts["request_tokens"]) == (3, 1, 1976)
    assert counts["Model"] == {"ChatGPT": 1, "GPT-4": 2}
    assert "none of the 1 requests made a token" in refused(tmp_path, "\n".join(BURSTGPT.split("\n")[:3:2]))
    assert load(tmp_path, AZURE.replace("3180,8", "0,0")).input_tokens.tolist() == [4808, 110]


def test_sessions_of_burstgpt(tmp_path: Path) -> None:
    found = load(tmp_path, BURSTGPT_SESSIONS)
    assert found.session.tolist() == [0, -1, 0] and found.counts()["sessions"] == 1
    assert found.notes == ("columns not used: Elapsed time",)


def test_totals_that_are_no_sums_are_said(tmp_path: Path) -> None:
    notes = load(tmp_path, BURSTGPT.replace("490", "491")).notes
    assert notes[0] == "'Total tokens' of 1 requests is not the sum of the other two: not used"
    notes = load(tmp_path, VIDUR_LENGTHS.replace("3826", "1")).notes
    assert notes[0] == "'num_total_tokens' of 1 requests is not the sum of the other two: not used"


def test_vidur_lengths_have_no_arrivals(tmp_path: Path) -> None:
    found = load(tmp_path, VIDUR_LENGTHS)
    assert not found.has_arrivals and found.notes == ("the format has no arrivals",)
    assert "span_s" not in found.counts() and found.counts()["prefill_tokens"] == 5787


def test_columns_stand_in_any_order(tmp_path: Path) -> None:
    text = 'more,num_decode_tokens,"arrived_at",num_prefill_tokens\n"a,b",10,1.5,4808\n\n,8,1.75,3180\n\n'
    found = load(tmp_path, "\ufeff" + text)
    assert (found.input_tokens.tolist(), found.output_tokens.tolist()) == ([4808, 3180], [10, 8])
    assert found.arrival_s.tolist() == [0, 0.25] and found.notes == ("columns not used: more",)


def test_numbers_as_other_tools_write_them(tmp_path: Path) -> None:
    found = load(tmp_path, VIDUR.replace("4808", "4808.0").replace("1.552", "1.552e0"))
    assert found.input_tokens.tolist() == [4808, 3180, 110]


def test_late_rows_are_sorted_and_counted(tmp_path: Path) -> None:
    lines = [MOONCAKE.split("\n")[row] for row in (2, 0, 1)]
    found = load(tmp_path, "\n".join(lines))
    assert found.arrival_s.tolist() == [0, 0, 3] and found.input_tokens.tolist() == [1024, 1025, 1]
    assert found.prefix.block.tolist() == [0, 1, 0, 1, 2, 7] and found.prefix.ptr.tolist() == [0, 2, 5, 6]
    assert found.notes == ("1 of 3 requests arrive before the one above them: sorted by arrival",)
    assert found.counts()["monotonic"] is False and found.counts()["span_ms"] == 3000
    rows = [f"{5 - row % 2},{row + 1},1" for row in range(100)]
    found = load(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows))
    assert found.input_tokens.tolist() == [*range(2, 101, 2), *range(1, 101, 2)]


def test_conversations_of_bailian(tmp_path: Path) -> None:
    found = load(tmp_path, BAILIAN)
    assert found.session.tolist() == [0, 1, 0, 0, 2] and found.block_tokens == 16
    assert found.notes == ("the earlier turn of 1 of 5 requests is not above them: they begin a session",)
    assert found.counts()["types"] == {"search": 1, "text": 4} and found.counts()["sessions"] == 3
    turned = "\n".join([BAILIAN.split("\n")[row] for row in (3, 2, 0)])  # a turn before the one it follows
    assert load(tmp_path, turned).session.tolist() == [2, 1, 0]
    odd = load(tmp_path, BAILIAN.replace("[10, 12, 13]", "[10]"))
    assert odd.notes[1] == "1 of 5 requests do not have one hash for each 16 tokens"


def test_blocks_from_token_ids(tmp_path: Path) -> None:
    found = load(tmp_path, LLMSERVINGSIM)
    assert found.block_tokens == 16 and found.prefix.block.tolist() == [0, 1]
    assert found.arrival_s.tolist() == [0, 0.301012143]
    assert found.notes == ("blocks of 16 tokens are made from the token ids",)
    rng = np.random.default_rng(3)
    stems = [rng.integers(0, 3, size).tolist() for size in (64, 40)]
    prompts = [stems[row % 2][: rng.integers(1, 60)] + rng.integers(0, 2, row % 5).tolist() for row in range(200)]
    seen: dict[tuple[int, ...], int] = {}
    expected = []
    for prompt in prompts:
        ends = [*range(4, len(prompt), 4), len(prompt)]
        expected.append([seen.setdefault(tuple(prompt[:end]), len(seen)) for end in ends])
    ids = np.array([token for prompt in prompts for token in prompt])
    made = token_blocks(ids, np.array([len(prompt) for prompt in prompts]), tokens=4)
    assert [made.block[a:b].tolist() for a, b in itertools.pairwise(made.ptr)] == expected
    assert len(seen) < sum(map(len, expected))


def test_lengths_only(tmp_path: Path) -> None:
    found = load(tmp_path, LENGTHS)
    assert not found.has_arrivals and found.block_tokens == 0 and found.counts()["with_arrival"] == 0
    assert (found.input_tokens.tolist(), found.output_tokens.tolist()) == ([12, 9], [1, 3])
    some = load(tmp_path, LLMSERVINGSIM.replace(', "input_tok_ids": [5, 6]', ""))
    assert some.block_tokens == 0 and len(some.prefix.block) == 0
    assert some.notes == ("1 of 2 requests have token ids: what prompts share is not known",)


# rates


def windows(rate: float, distribution: str, shape: float, many: int = 1) -> str:
    return "".join(f"{600 * row},{rate},1,{distribution},{shape},1\n" for row in range(many))


def test_servegen(tmp_path: Path) -> None:
    found = open_requests(write(tmp_path, SERVEGEN))
    assert isinstance(found, RateWindows)
    assert found.start_s.tolist() == [0, 600, 1200] and found.width_s == 600
    assert found.distribution.tolist() == [0, -1, 1] and found.shape.tolist() == [0.25, 0, 0.4]
    assert found.rate_rps.tolist() == [0.05, 0, 0.1] and found.scale_s.tolist() == [80, 0, 0.4]
    assert not found.notes and len(draw_arrivals(found, seed=1)) == 90
    with pytest.raises(InputError, match="holds rates of arrival"):
        load_requests(tmp_path / "trace")


def test_draws_have_the_rates_of_the_windows() -> None:
    found = open_requests(SAMPLES / "servegen" / "m-large_chunk-0-trace.csv.gz")
    assert isinstance(found, RateWindows)
    arrival = draw_arrivals(found, seed=7)
    assert (np.diff(arrival) >= 0).all()
    drawn = np.bincount((arrival // 600).astype(int), minlength=len(found))
    assert drawn.tolist() == np.rint(found.rate_rps * 600).astype(int).tolist()
    assert drawn.sum() == 675387
    assert (draw_arrivals(found, seed=7) == arrival).all()
    assert not (draw_arrivals(found, seed=8) == arrival).all()
    assert len(draw_arrivals(found, seed=7, rate_scale=0.1)) == 67539


@pytest.mark.parametrize(
    ("distribution", "shape", "cv"), [("Gamma", 0.25, 2.0), ("Weibull", 0.5, 5**0.5), ("Exponential", 3.0, 1.0)]
)
def test_draws_are_as_bursty_as_the_distribution(tmp_path: Path, distribution: str, shape: float, cv: float) -> None:
    found = open_requests(write(tmp_path, windows(200, distribution, shape)))
    assert isinstance(found, RateWindows)
    gaps = np.diff(draw_arrivals(found, seed=1))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    assert len(gaps) == 200 * 600 - 1


def test_draws_of_odd_rates(tmp_path: Path) -> None:
    found = open_requests(write(tmp_path, windows(0.3 / 600, "Gamma", 1, many=100)))
    assert isinstance(found, RateWindows)
    assert len(draw_arrivals(found, seed=1)) == 30  # none a window, were each rounded on its own
    found = open_requests(write(tmp_path, windows(0.1, "Gamma", 1e-6, many=20)))
    assert isinstance(found, RateWindows)
    arrival = draw_arrivals(found, seed=1)  # nearly all gaps are 0
    assert np.bincount((arrival // 600).astype(int)).sum() == 1200 and (np.diff(arrival) >= 0).all()
    text = "0,1,1,Weibull,0.0001,1\n600,1,1,Weibull,0.02,1\n1200,1,1,Exponential,1,1\n"
    wild = open_requests(write(tmp_path, text))
    assert isinstance(wild, RateWindows)
    arrival = draw_arrivals(wild, seed=1)  # what is beyond all floats does not spoil the windows below
    assert np.bincount((arrival // 600).astype(int)).tolist() == [600, 600, 600]
    assert len(np.unique(arrival[1200:])) == 600 and arrival[1200] < 1210 and arrival[-1] > 1790
    none = open_requests(write(tmp_path, "0,0,0,,0,0\n"))
    assert isinstance(none, RateWindows) and len(draw_arrivals(none, seed=1)) == 0
    with pytest.raises(InputError, match="requests to draw"):
        draw_arrivals(found, seed=1, rate_scale=1e12)
    with pytest.raises(InputError, match="requests to draw"):
        draw_arrivals(found, seed=1, rate_scale=float("nan"))


def test_windows_that_are_not_usual_are_said(tmp_path: Path) -> None:
    found = open_requests(write(tmp_path, "0,1,1,,0,0\n60,1,1,Gamma,1,1\n180,0,0,,0,0\n"))
    assert isinstance(found, RateWindows) and found.width_s == 60
    assert [note.split(";")[0] for note in found.notes] == [
        "windows of 60 s, by the nearest two",
        "no window for 60 s in 1 gaps: no requests there",
        "1 windows have a rate and no distribution: drawn as exponential",
    ]


# files that are wrong


WRONG = {
    "no number": (
        AZURE.replace("3180", "many"),
        "trace:3: column 'ContextTokens': got 'many'; allowed: a whole number",
    ),
    "no date": (AZURE.replace("11-16 18:17:04", "02-30 18:17:04"), "trace:3: column 'TIMESTAMP': got '2023-02-30"),
    "no time": (AZURE.replace("18:17:03", "24:17:03"), "trace:2: column 'TIMESTAMP'"),
    "fraction of ten digits": (AZURE.replace("9799600", "9799600123"), "trace:2: column 'TIMESTAMP'"),
    "cut short": (AZURE[:-20], "trace:4: got 1 fields, allowed: 3 (TIMESTAMP, ContextTokens, GeneratedTokens)"),
    "one field more": (AZURE.replace("3180,8", "3180,8,9"), "trace:3: got 4 fields"),
    "no prompt": (AZURE.replace("3180", "0"), "trace:3: column 'ContextTokens': got '0'; allowed: at least 1"),
    "fewer than none": (BURSTGPT.replace("472", "-472"), "trace:2: column 'Request tokens': got '-472'"),
    "far too many": (BURSTGPT.replace("472", "1" + "0" * 30), "trace:2: column 'Request tokens'"),
    "a very long number": (BURSTGPT.replace("472", "4" * 5000), "(5000 characters)"),
    "no prompt of a good request": (BURSTGPT.replace("417", "0"), "trace:4: column 'Request tokens': got '0'"),
    "a time that is none": (BURSTGPT.replace("118,", "nan,"), "trace:4: column 'Timestamp': got 'nan'"),
    "infinite": (VIDUR.replace("1.552", "inf"), "trace:3: column 'arrived_at': got 'inf'; allowed: a number from 0"),
    "before 0": (VIDUR.replace("1.552", "-1.552"), "trace:3: column 'arrived_at'"),
    "half a token": (VIDUR.replace("3180", "3180.5"), "trace:3: column 'num_prefill_tokens': got '3180.5'"),
    "digits Python would take": (VIDUR.replace("3180", "3_180"), "trace:3: column 'num_prefill_tokens': got '3_180'"),
    "digits of another script": (VIDUR.replace("3180", "\uff13180"), "trace:3: column 'num_prefill_tokens': got"),
    "no output": (VIDUR.replace("3180,8", "3180,0"), "trace:3: column 'num_decode_tokens': got '0'"),
    "blank": (VIDUR.replace("3180", ""), "trace:3: column 'num_prefill_tokens': got ''"),
    "nothing but a header": (VIDUR.split("\n")[0], "trace: has no rows"),
    "twice the same": (VIDUR.replace("\n", ",arrived_at\n", 1), "trace:1: column 'arrived_at' stands 2 times"),
    "an open quote": (VIDUR.replace("3180", '"3180'), "trace:4: got 2 fields"),
    "too few blocks": (MOONCAKE.replace("[0, 1, 2]", "[0, 1]"), "trace:2: 'hash_ids': got 2 ids; allowed: 3 ids, one"),
    "no blocks": (MOONCAKE.replace('"hash_ids": [0, 1, 2]', '"x": 1'), "trace:2: 'hash_ids': got nothing; allowed: 3"),
    "blocks that are none": (MOONCAKE.replace("[0, 1, 2]", "[0, 1, 2.5]"), "trace:2: 'hash_ids': allowed: a list of"),
    "blocks beyond": (MOONCAKE.replace("[0, 1, 2]", f"[0, 1, {2**63}]"), "trace:2: 'hash_ids': allowed: a list of"),
    "no JSON": (MOONCAKE[:100], "trace:2: is no JSON, or cut short"),
    "no object": (MOONCAKE + "[1]\n", "trace:4: got a list; allowed: one JSON object a line"),
    "text for a number": (MOONCAKE.replace("1025", '"1025"'), "trace:2: 'input_length': got '1025'; allowed: a whole"),
    "true for a number": (MOONCAKE.replace("490", "true"), "trace:2: 'output_length': got True"),
    "nothing for a number": (MOONCAKE.replace('"timestamp": 3000, ', ""), "trace:3: 'timestamp': got nothing"),
    "no tokens": (MOONCAKE.replace("490", "0"), "trace:2: 'output_length': got 0; allowed: a whole number from 1"),
    "a type that is none": (BAILIAN.replace('"search"', "7"), "trace:2: 'type': got 7; allowed: any text"),
    "some arrivals": (LLMSERVINGSIM + LENGTHS, "trace:3: 'arrival_time_ns': got nothing; allowed: arrivals in all"),
    "a rate below 0": (SERVEGEN.replace("0.1,", "-0.1,"), "trace:3: column 'rate_rps': got '-0.1'"),
    "a distribution": (
        SERVEGEN.replace("Weibull", "Pareto"),
        "trace:3: column 'distribution': got 'Pareto'; allowed: G",
    ),
    "no shape": (SERVEGEN.replace("0.25", "0"), "trace:1: column 'shape': got '0'; allowed: a number above 0"),
    "windows back": (SERVEGEN.replace("1200", "600"), "trace:3: column 'start_s': got '600'; allowed: later than"),
    "five fields": (SERVEGEN.replace("0.4,0.4", "0.4"), "trace:3: got 5 fields, allowed: 6"),
    "empty": ("", "trace: is empty"),
    "another format": ("a,b\n1,2\n", "trace: no known format of requests (azure-llm-2023, burstgpt"),
    "nobody answers": ('[{"conversations": [{"from": "human", "value": "hi"}]}]', "none of its 1 conversations has a"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:4bb\nsize 5\n", "is a pointer of Git LFS"),
    "a line without end": (AZURE + "\n" + "1" * (2**20 + 1) + "\n", "trace:5: a line of more than 1048576 bytes"),
    "broken gzip": (gzip.compress(AZURE.encode())[:60], "trace: broken gzip data"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_by_line(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    assert message in refused(tmp_path, text)


def test_the_line_is_right_far_down_the_file(tmp_path: Path) -> None:
    rows = [f"{row},5,5" for row in range(5000)]
    rows[4321] = "4321,5,five"
    text = "arrived_at,num_prefill_tokens,num_decode_tokens\n\n" + "\n".join(rows)
    assert refused(tmp_path, text).startswith("trace:4324: column 'num_decode_tokens': got 'five'")
    rows[4321] = "4321,5,0"
    text = "Timestamp,Request tokens,Response tokens\n\n" + "\n".join(rows).replace("4322,5,5", "4322,0,5")
    assert refused(tmp_path, text).startswith("trace:4325: column 'Request tokens': got '0'")
    lines = [LENGTHS.split("\n")[0]] * 5000
    lines[4321] = "{}"
    assert refused(tmp_path, "\n\n".join(lines)).startswith("trace:8643: 'input_toks': got nothing")


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, AZURE.replace("ContextTokens", "ContextToken"))
    with pytest.raises(InputError, match=r"trace:1: no column 'ContextTokens'\. Did you mean 'ContextToken'"):
        open_requests(path, format="azure-llm-2023")
    with pytest.raises(InputError, match=r"no format of requests is named 'mooncak'\. Did you mean 'mooncake'"):
        open_requests(path, format="mooncak")
    with pytest.raises(InputError, match="is a folder"):
        open_requests(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_requests(tmp_path / "other")


def test_expanded_size_is_limited(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress((VIDUR + "3,5,5\n" * 100_000).encode()))
    with pytest.raises(InputError, match="larger than 100000 bytes"):
        open_requests(path, limit_B=100_000)


@pytest.mark.parametrize("case", TINY)
def test_damaged_files_are_read_or_refused(tmp_path: Path, case: str, damaged: Damage) -> None:
    name, text = TINY[case]
    rng = random.Random(f"requests {case}")
    path = tmp_path / "trace"
    outcomes = {"read": 0, "refused": 0}
    for round_ in range(4 * settings.default.max_examples):
        path.write_bytes(damaged(text.encode(), rng))
        try:
            found = open_requests(path, format=name if round_ % 2 else None)
        except InputError as error:
            outcomes["refused"] += 1
            assert str(path) in str(error)
        else:
            outcomes["read"] += 1
            sound(found)
            json.dumps(found.counts())
            if isinstance(found, RateWindows) and found.rate_rps.sum() < 1e3:
                draw_arrivals(found, seed=1)
    assert min(outcomes.values()) >= 4, outcomes
