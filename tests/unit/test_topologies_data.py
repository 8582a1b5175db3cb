"""The data files: all load, every number has a source, every assumed value lies in its range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from cmsim import cost, reading
from cmsim.hardware import (
    ACCELERATORS,
    STACKS,
    SYSTEMS,
    AcceleratorSpec,
    StackSpec,
    SystemSpec,
    band,
    board_watts,
    load_accelerator,
    load_stack,
    load_system,
    stack_data,
)
from cmsim.reliability import causes
from cmsim.topology import comparison, fabric

FOLDERS = {SYSTEMS: SystemSpec, ACCELERATORS: AcceleratorSpec, STACKS: StackSpec, causes.FOLDER: causes.FailuresSpec}
FOLDERS |= {cost.COSTS: cost.BookSpec, cost.REGIONS: cost.RegionSpec}
FILES = [(folder, name) for folder in FOLDERS for name in reading.builtin_files(folder)]
SYSTEM_NAMES = sorted(reading.builtin_files(SYSTEMS))
KERNELS = {
    *("gemm", "grouped_gemm", "attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "norm"),
    *("activation", "rope", "quantise", "embedding", "optimizer", "sampling", "generic"),
}


def _document(folder: str, name: str) -> reading.Document:
    return reading.read_yaml(reading.builtin_files(folder)[name])


def _leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield ".".join(path), data


def _source(sources: dict[str, Any], leaf: str) -> Any:
    """The most specific entry that covers a leaf."""
    parts = leaf.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in sources:
            return sources[".".join(parts[:end])]
    return None


def _numbers(folder: str, name: str) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    data = dict(_document(folder, name).data)
    sources = data.pop("sources")
    data.pop("published", None)  # each entry carries its own source
    return list(_leaves(data)), sources


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_file_loads_and_is_named_like_its_file(folder: str, name: str) -> None:
    document = _document(folder, name)
    data = stack_data(document) if folder == STACKS else document.data
    assert reading.validate(FOLDERS[folder], document, data=data).name == name


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_every_number_has_a_source(folder: str, name: str) -> None:
    leaves, sources = _numbers(folder, name)
    assert leaves or "extends" in _document(folder, name).data
    assert [leaf for leaf, _ in leaves if _source(sources, leaf) is None] == []


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_every_source_covers_something(folder: str, name: str) -> None:
    data = dict(_document(folder, name).data)
    for key in data.pop("sources"):
        here: Any = data
        for part in key.split("."):
            assert part in here, f"{name}: sources has '{key}', which the file does not"
            here = here[part]


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_assumed_values_lie_in_their_ranges(folder: str, name: str) -> None:
    leaves, sources = _numbers(folder, name)
    wrong = []
    for leaf, value in leaves:
        source = _source(sources, leaf)
        if isinstance(source, dict):
            low, high = source["assumed"]
            if not low <= value <= high:
                wrong.append((leaf, value, low, high))
    assert wrong == []


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_system_loads_with_each_of_its_stacks(name: str) -> None:
    system = load_system(name)
    assert system.ranks == system.packages * system.ranks_per_package
    for stack in (system.spec.stack, *system.spec.stacks):
        loaded = load_system(name, stack=stack).stack
        # a class that a stack does not name is priced as its like
        assert set(loaded.kernels) - {"recurrence"} == KERNELS


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_published_totals_are_derived(name: str) -> None:
    for row in comparison(load_system(name)):
        if row.unit == "kW" or "each" in row.basis:
            continue  # power is judged below; other people's per-chip figures differ by design
        assert abs(row.deviation) < 0.01, row


@pytest.mark.parametrize(
    ("name", "basis", "within"), [("cloudmatrix384", "all-in", 0.05), ("gb200_nvl72", "rack", 0.1)]
)
def test_power_at_full_use_is_near_the_published_figure(name: str, basis: str, within: float) -> None:
    rows = [row for row in comparison(load_system(name)) if basis in row.basis]
    assert rows
    assert all(abs(row.deviation) < within for row in rows), rows


@pytest.mark.parametrize("name", sorted(reading.builtin_files(ACCELERATORS)))
def test_full_use_reaches_the_board_limit(name: str) -> None:
    board = board_watts(load_accelerator(name))
    assert board.idle <= board.active < board.limit <= board.active + board.compute + board.memory


@pytest.mark.parametrize("name", sorted(reading.builtin_files(ACCELERATORS)))
def test_power_under_load_is_measured_or_has_a_band(name: str) -> None:
    chip = load_accelerator(name)
    ends = band(chip)
    assert (ends is None) == (chip.power.shares_of is None)
    if ends is not None:
        low, high = ends
        middle = board_watts(chip)
        assert low.compute < middle.compute < high.compute and low.memory < middle.memory < high.memory
        assert low.active <= middle.active <= high.active and low.limit <= middle.limit <= high.limit


@pytest.mark.parametrize("pair", [("cann_graph", "cann_eager"), ("cuda_graph", "cuda_eager")])
def test_graph_and_eager_stacks_share_what_does_not_depend_on_launch(pair: tuple[str, str]) -> None:
    graph, eager = (load_stack(name) for name in pair)
    assert (graph.host.launch, eager.host.launch) == ("graph", "eager")
    for field in ("collectives", "dispatch", "combine", "overlap", "accelerators"):
        assert getattr(graph, field) == getattr(eager, field)
    for name in KERNELS:
        assert graph.kernels[name].compute == eager.kernels[name].compute
        assert graph.kernels[name].memory == eager.kernels[name].memory


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        *(("cm384", "cloudmatrix384"), ("nvl72", "gb200_nvl72"), ("gb200", "gb200_nvl72"), ("h100", "hgx_h100")),
        *(("h100_sxm", "hgx_h100"), ("a100_sxm", "hgx_a100"), ("b200_sxm", "hgx_b200"), ("h800", "hgx_h800")),
        *(("h20", "hgx_h20"), ("h200", "hgx_h200"), ("gb300", "gb300_nvl72"), ("910b", "atlas_800_a2")),
    ],
)
def test_systems_answer_to_the_names_that_tables_use(alias: str, name: str) -> None:
    assert load_system(alias).spec.name == name


@pytest.mark.parametrize("folder", FOLDERS)
def test_aliases_are_unique_and_no_files_name(folder: str) -> None:
    names = set(reading.builtin_files(folder))
    aliases = [alias for name in sorted(names) for alias in _document(folder, name).data.get("aliases", [])]
    assert len(aliases) == len(set(aliases))
    assert not names & set(aliases)


EXPERT_FITS = [
    # system, kernel, bytes of a message, messages per token, ranks, published us
    *(("cloudmatrix384", "dispatch", 7680, 9, ranks, us) for ranks, us in ((8, 116), (32, 133), (128, 152))),
    *(("cloudmatrix384", "combine", 14336, 9, ranks, us) for ranks, us in ((8, 118), (32, 146), (128, 150))),
    *(
        ("hgx_h800", "dispatch", 7392, 8, ranks, us)
        for ranks, us in ((8, 77), (16, 118), (32, 155), (64, 173), (128, 192), (256, 194))
    ),
    *(
        ("hgx_h800", "combine", 14336, 8, ranks, us)
        for ranks, us in ((8, 114), (16, 195), (32, 273), (64, 314), (128, 369), (256, 360))
    ),
]


@pytest.mark.parametrize(("name", "kernel", "message_B", "messages", "ranks", "us"), EXPERT_FITS)
def test_expert_tuning_returns_the_rows_it_was_fitted_on(
    name: str, kernel: str, message_B: int, messages: int, ranks: int, us: float
) -> None:
    """The stack files claim residuals; here they are. 128 tokens per rank, the busier of port and NIC."""
    system = load_system(name)
    tuning, level = getattr(system.stack, kernel), fabric(system)
    size_B, near = 128 * messages * message_B, min(ranks, level.ranks_per_domain)
    crowding = 1 + tuning.crowd * math.log2(ranks)
    inside_s = size_B * (near - 1) / ranks / (level.port_Bps * tuning.scale_up_efficiency) * crowding
    outside_s = size_B * (ranks - near) / ranks / (level.nic_Bps * tuning.scale_out_efficiency)
    predicted_us = tuning.base_us + tuning.doubling_us * math.log2(ranks) + max(inside_s, outside_s) * 1e6
    assert predicted_us == pytest.approx(us, rel=0.06)
