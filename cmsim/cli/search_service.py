"""What ``cmsim search`` prints of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmsim.cli import say

if TYPE_CHECKING:
    from cmsim.results import Result
    from cmsim.search.services import ServiceResult

#: rows of the front that are printed
_MOST = 10
#: of runs side by side: metrics of the winner beside others
_SIDE = (
    *("utilization", "ttft_s_p50", "ttft_s_p99", "tpot_s_p50", "tpot_s_p99", "slo_attainment", "requests_per_s"),
    *("output_tokens_per_s_per_accelerator", "in_system_mean", "cache_peak_fraction", "preemptions", "power_avg_W"),
    *("energy_per_token_J", "cost_per_Mtoken_USD"),
)
#: of every run that was served
_COLUMNS = ("slo_attainment", "ttft_s_p99", "tpot_s_p99", "output_tokens_per_s_per_accelerator", "energy_per_token_J")


def document(found: ServiceResult) -> dict[str, Any]:
    """What ``--json`` prints."""
    best, other = found.best, found.runner_up
    return {
        **found.data(),
        "best": {
            "run": best.run,
            "plan": found.plan_of(best),
            "accelerators": best.accelerators,
            "kept": found.kept(best),
            "metrics": dict(best.metrics),
        },
        "runner_up": None if other is None else {"run": other.run, "plan": found.plan_of(other)},
        "gap": found.gap,
        "priced_error": found.priced_error.tolist(),
    }


def report(found: ServiceResult, width: int) -> list[Any]:
    """Tables and sentences of a search of a service."""
    return [
        _best(found),
        *_why(found),
        _least(found),
        _front(found),
        counted(found.counts, "served"),
        say.notes(_notes(found), say.prose(width)),
    ]


def _keys(found: ServiceResult) -> list[str]:
    """Keys that plans differ by, of those that were served."""
    plans = [found.plan_of(one) for one in found.results.results]
    keys = dict.fromkeys(key for plan in plans for key in plan)
    differ = [key for key in keys if len({plan.get(key) for plan in plans if plan}) > 1]
    return differ or [key for key in ("replicas", "accelerators", "parallel.tp") if key in keys]


def _heads(keys: list[str]) -> list[str]:
    short = [
        f"{key.split('.')[0]}_{key.rpartition('.')[2]}"
        if key.startswith(("prefill.", "decode."))
        else key.rpartition(".")[2]
        for key in keys
    ]
    return [say.broken(one) for one in short]


def _best(found: ServiceResult) -> Any:
    """The plans that were served, the best first, and the scenario's own."""
    from cmsim.numbers import quantity

    keys = _keys(found)
    metric = found.objective.metric
    columns = [*([metric] if metric not in (*_COLUMNS, "accelerators") else []), *_COLUMNS]
    rows = []
    for one in found.results.results:
        own = found.plan_of(one)
        name = "as given" if one.run == found.given and not own else ""
        cells = [str(own.get(key, "")) for key in keys]
        numbers = [quantity(key, one.metrics[key]) if key in one.metrics else "-" for key in columns]
        rows.append([name, *cells, str(one.accelerators), "yes" if found.kept(one) else "no", *numbers])
    heads = ["", *_heads(keys), "accel-\nerators", "kept", *(say.broken(key) for key in columns)]
    return say.table(heads, rows, title=f"{found.question}: best by {found.objective.what}")


def _why(found: ServiceResult) -> list[Any]:
    """The winner beside the runner-up, and the plan as given."""
    from cmsim.numbers import quantity

    given = next((one for one in found.results.results if one.run == found.given), None)
    second = found.runner_up
    asked = (("runner-up", second), ("as given", None if given in (found.best, second) else given))
    others: list[tuple[str, Result]] = [(name, one) for name, one in asked if one is not None]
    if not others:
        return []
    runs = [found.best, *(one for _, one in others)]
    rows = [["accelerators", *(str(one.accelerators) for one in runs)]]
    for name in _SIDE:
        if any(name in one.metrics for one in runs):
            rows.append([name, *(quantity(name, one.metrics[name]) if name in one.metrics else "-" for one in runs)])
    return [say.table(["", "best", *(name for name, _ in others)], rows, title="why it wins")]


def _least(found: ServiceResult) -> Any:
    """The least machine that could do it, beside the winner."""
    from cmsim.numbers import quantity

    least = found.least
    assert least is not None
    rows = [
        [name, f"{many:.3g}", f"{found.best.accelerators / many:.3g}" if many else "-"]
        for name, many in least.parts.items()
    ]
    at = quantity("token_s", least.token_s)
    title = f"a perfect system: {least.accelerators:.3g} accelerators at {at} a token, for {least.name}"
    return say.table(["what it needs", "accelerators", "best over it"], rows, title=title)


def _front(found: ServiceResult) -> Any:
    """Where a pool can be run, whatever the load: plans that no other beats in both tokens/s."""
    points = found.points
    rows = found.front().tolist()
    some = rows if len(rows) <= _MOST else [rows[round(i * (len(rows) - 1) / (_MOST - 1))] for i in range(_MOST)]
    numbers = ("user", "each", "megawatt")
    keys = [key for key in points if key not in numbers and len({str(points[key][row]) for row in rows}) > 1]
    lines = [
        [*(str(points[key][row]) for key in keys), *(f"{points[name][row]:,.0f}" for name in numbers)] for row in some
    ]
    heads = [*_heads(keys), "tokens/s\nof a user", "tokens/s per\naccelerator", "tokens/s per\nmegawatt"]
    more = f"{len(some)} of {len(rows)}" if len(some) < len(rows) else f"{len(rows)}"
    return say.table(heads, lines, title=f"front of what users and accelerators get, whatever the load: {more} points")


def counted(counts: Any, ran: str) -> Any:
    """Every plan of the space, by what became of it."""
    rows = [[f"refused: {reason}", f"{count:,}"] for reason, count in counts.refused.items()]
    rows += [
        [ran, f"{counts.simulated:,}"],
        ["priced, and pruned: their bound is no better than the best", f"{counts.pruned:,}"],
        [f"priced worse than those {ran}, not excluded by their bound", f"{counts.left:,}"],
        ["all", f"{counts.plans:,}"],
    ]
    return say.table(["plans", "count"], rows)


def _notes(found: ServiceResult) -> list[str]:
    best, out = found.best, []
    if not found.kept(best):
        out.append(
            f"no plan that was served keeps what is promised: these miss it least, of {found.counts.priced:,} that may "
            "go"
        )
    least = found.least
    if least is not None:
        out.append(
            f"a perfect system (peak rates, every byte once, one batch) takes {least.accelerators:.3g} accelerators "
            f"for {found.rate_per_s:.3g} requests/s: the best takes {found.gap:.3g} times as many"
        )
    error = found.priced_error
    if len(error):
        out.append(
            f"time of a token, priced against served: {abs(error).mean():.1%} off in the mean, {abs(error).max():.1%} "
            "at worst"
        )
    if found.given_why:
        out.append(f"the plan as the scenario has it does not run: {found.given_why}")
    return [*out, *found.notes]
