"""All-to-alls of unequal blocks in scenarios: from a matrix, or from tokens on their way to experts."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import api, engine
from cmsim.errors import InputError
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.ops import ProgramBuilder, assemble

SYSTEM = {"system": "cloudmatrix384", "accelerators": 8}


def one_of(workload, **changes):
    (one,) = load_scenario({"systems": [SYSTEM], "workload": {"kind": "collective", **workload}, **changes}).runs
    return one, api.system(one)


def programs(workload):
    one, system = one_of(workload)
    return generate.programs(one.spec, system)


def result(workload, **changes):
    one, system = one_of(workload, **changes)
    return api.run_one(one, system)


@pytest.fixture
def matrix_file(tmp_path):
    matrix = np.random.default_rng(1).gamma(0.5, 1e6, (16, 16)).round()
    path = tmp_path / "bytes.csv"
    np.savetxt(path, matrix, delimiter=",", fmt="%d")
    return path, matrix


def test_a_matrix_of_equal_blocks_is_the_uniform_exchange(tmp_path):
    path = tmp_path / "equal.csv"
    np.savetxt(path, np.full((16, 16), 1e6), delimiter=",", fmt="%d")
    for network in ("fluid", "flow"):
        uniform = result({"collective": "all_to_all", "message_bytes": 16e6}, network=network)
        given = result({"collective": "all_to_all", "matrix": str(path)}, network=network)
        assert given.metric("time_s") == pytest.approx(uniform.metric("time_s"), rel=1e-6)
        assert given.metric("bound_egress_s") == pytest.approx(uniform.metric("bound_egress_s"))


def test_the_busiest_rank_sets_the_pace(matrix_file):
    path, matrix = matrix_file
    np.fill_diagonal(matrix, 0)
    busiest_B = max(matrix.sum(0).max(), matrix.sum(1).max())
    for network in ("fluid", "flow"):
        found = result({"collective": "all_to_all", "matrix": str(path)}, network=network)
        assert found.metric("bound_egress_s") == pytest.approx(matrix.sum(1).max() / 196e9)
        assert found.metric("bound_ingress_s") == pytest.approx(matrix.sum(0).max() / 196e9)
        alone_s = busiest_B / 196e9 / 0.85
        assert alone_s < found.metric("time_s") < alone_s * 1.2 + 20e-6
        assert any("the busiest rank sends or receives" in note for note in found.warnings)


def test_links_carry_what_the_matrix_says(matrix_file):
    path, matrix = matrix_file
    np.fill_diagonal(matrix, 0)
    found = result({"collective": "all_to_all", "matrix": str(path)}, network="flow")
    links = found.links
    out = links[links["resource"].str.startswith("port.out")].groupby("rank_class")["bytes_B"].sum()
    sent = matrix.sum(1)
    assert out.to_numpy() / out.sum() == pytest.approx(sent / sent.sum(), rel=1e-3)


EXCHANGE = {
    "model": "deepseek-r1",
    "tokens": 64,
    "precision": "int8",
    "balance": {"model": "zipf", "zipf_exponent": 0.5},
}


def test_tokens_become_bytes():
    made = programs({"collective": "dispatch", "exchange": EXCHANGE})
    shares = made.traffic[0]
    size_B = made.facts.size_B
    # every rank sends 64 tokens to 8 experts each, some of them its own
    message_B = 7168 + 512
    sent = (shares.sum(1) * size_B).round() / message_B
    assert np.all(sent <= 64 * 8)
    assert sent.mean() == pytest.approx(64 * 8 * 15 / 16, rel=0.05)
    assert np.allclose(sent, sent.round())
    back = programs({"collective": "combine", "exchange": EXCHANGE})
    there, again = shares * size_B / message_B, back.traffic[0] * back.facts.size_B / (7168 * 2)
    assert again == pytest.approx(there.T, rel=1e-9, abs=1e-6)


def test_the_same_draw_gives_the_same_bytes_and_another_does_not():
    def bytes_of(draw):
        made = programs(
            {"collective": "dispatch", "exchange": {**EXCHANGE, "balance": {"model": "multinomial", "draw": draw}}}
        )
        return made.traffic[0] * made.facts.size_B

    assert np.array_equal(bytes_of(0), bytes_of(0))
    assert not np.array_equal(bytes_of(0), bytes_of(1))


def layers(*traffic):
    """An all-to-all a layer, one after the other, each with its own traffic."""
    build = ProgramBuilder()
    for shares in traffic:
        build.collective("a2a", stream="comm", collective="all_to_all", size_B=1e8, slot="all", traffic=shares)
    return assemble([build], program=np.zeros(16, np.int64), groups={"all": np.zeros(16, np.int64)})


def test_layers_may_differ_in_who_sends_to_whom():
    _, system = one_of({"collective": "barrier"})
    options = engine.Options(network="flow")

    def time_ps(*traffic):
        return engine.play(engine.plan(layers(*traffic), system, options)).makespan_ps

    even = np.full((16, 16), 1 / 16)
    to_one = np.zeros((16, 16))
    to_one[1:, 0] = 1 / 4
    alone = [time_ps(one) for one in (even, to_one, None)]
    assert alone[0] == alone[2] and alone[1] > 3 * alone[0]
    # a call by itself ends when its layer in the chain does
    assert time_ps(even, to_one, even, None) == 2 * alone[0] + alone[1] + alone[2]
    with pytest.raises(InputError, match="all_to_all among 16 ranks has the traffic of 4"):
        time_ps(np.ones((4, 4)))


def test_skew_costs_time_and_sending_once_saves_it():
    def time_s(**changes):
        return result({"collective": "dispatch", "exchange": {**EXCHANGE, **changes}}, network="flow").metric("time_s")

    even = time_s(balance={"model": "multinomial"})
    skewed = time_s(balance={"model": "zipf", "zipf_exponent": 1.0})
    copied = time_s(balance={"model": "zipf", "zipf_exponent": 1.0}, expert_slots={"redundant": 64})
    assert even < copied < skewed
    assert time_s(once="rank") < time_s()


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"collective": "all_to_all"}, "message_bytes: the key is required"),
        ({"collective": "all_to_all", "message_bytes": 1e6, "matrix": "m.csv"}, "message_bytes or matrix, not both"),
        (
            {"collective": "all_reduce", "matrix": "m.csv"},
            "a all_reduce has none. Allowed: all_to_all, dispatch, combine",
        ),
        ({"collective": "all_to_all", "exchange": EXCHANGE}, "moves no tokens. Allowed: dispatch, combine"),
        ({"collective": "all_to_all", "matrix": "none.csv"}, "no such file: none.csv"),
        ({"collective": "dispatch", "exchange": {**EXCHANGE, "model": "llama-3.1-405b"}}, "has no experts"),
        ({"collective": "dispatch", "exchange": {**EXCHANGE, "balance": {"model": "balanced"}}}, "drawn one by one"),
        (
            {"collective": "dispatch", "exchange": {**EXCHANGE, "balance": {**EXCHANGE["balance"], "drift_steps": 9}}},
            "an exchange is one call",
        ),
        ({"collective": "dispatch", "exchange": {**EXCHANGE, "tokens": 0}}, "tokens"),
    ],
)
def test_what_cannot_be_is_named(workload, said):
    with pytest.raises(InputError, match=said):
        programs(workload)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n3,4\n", "has 2 columns; the group has 16 ranks"),
        (",".join("1" * 16) + "\n", "has 1 rows; the group has 16 ranks"),
        (
            "\n".join([",".join("1" * 16)] * 3 + ["1,x" + ",1" * 14] + [",".join("1" * 16)] * 12),
            "4: column 2: .* got 'x'",
        ),
        ("\n".join([",".join(["-1"] * 16)] * 16), "1: column 1: bytes are 0 or more and finite, got '-1'"),
        ("\n".join([",".join("0" * 16)] * 16), "no rank sends anything"),
    ],
)
def test_a_matrix_that_cannot_be_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "bytes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        programs({"collective": "all_to_all", "matrix": str(path)})
