"""What results say, in words: who gives more, per what, how quickly, and what limits each.

Every sentence is computed. Systems are held against each other at equal points of the sweep only, one that no swept
key concerns at each of them. What a result does not have (racks, a latency, a second system) is not spoken of, and
where bands of power overlap that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cmsim.errors import InputError
from cmsim.numbers import scale
from cmsim.results.break_even import break_even
from cmsim.results.naming import named
from cmsim.results.outcome import Infeasible, Outcome
from cmsim.results.result import Result, per, rate_name
from cmsim.results.sure import chances

#: bases of a comparison: what it is called, and the name of `per`; "" is the whole machine
_BASES = {"in all": "", "per accelerator": "accelerator", "per rack": "rack", "per megawatt": "megawatt"}
#: where both have a price by the hour; a draw of one over a draw of the other
_DOLLARS = {"per dollar": "million_dollars"}
#: of a service, which takes as many accelerators as its plan says: whether it keeps up, share of users who have what is
#: promised, the most requests at which they do, and time of a token after the first
_STABLE, _KEPT, _GOODPUT, _TOKEN = "stable", "slo_attainment", "goodput_requests_per_s", "tpot_s_p50"
#: below this, two systems are alike
_ALIKE = 1.03

#: by point of the sweep, then by system
Points = Mapping[str, Mapping[str, Result]]


class Lead(NamedTuple):
    """Who leads at one point, over whom, how many times; None where bands overlap."""

    first: str
    second: str
    times: float | None


@dataclass(frozen=True)
class _Interval:
    """A rate, and what it may be at least and at most."""

    low: float
    middle: float
    high: float


def verdict(outcomes: Iterable[Outcome]) -> list[str]:
    """Two or three sentences for every workload that two systems ran, in the order of the runs."""
    by_workload: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_workload.setdefault(one.workload, []).append(one)
    told = [(workload, _of_workload(runs)) for workload, runs in by_workload.items()]
    return [f"{workload}: {' '.join(sentences)}" for workload, sentences in told if sentences]


def _of_workload(runs: Sequence[Outcome]) -> list[str]:
    if any(one.entry is None for one in runs):
        return []  # of older folders nothing tells at which points of the sweep systems ran
    results = [one for one in runs if isinstance(one, Result)]
    systems = list(dict.fromkeys(named(one)[0] for one in results))
    points = _shared(results, systems)
    if len(systems) < 2 or not points:
        return []
    told = (
        _most(points),
        _surely(points, systems),
        _quickest(results, systems, points),
        _behind(results, systems),
        _promised(results, systems),
        _price(results),
        _limits(results, systems),
        _unable(runs, systems),
    )
    return [f"{sentence}." for sentence in told if sentence]


def _shared(results: Sequence[Result], systems: Sequence[str]) -> dict[str, dict[str, Result]]:
    """Points that every system ran; one that no swept key concerns stands at all points of the others."""
    points: dict[str, dict[str, Result]] = {}
    alone: dict[str, Result] = {}
    for result in results:
        system, point = named(result)
        if point:
            points.setdefault(_label(point), {})[system] = result
        else:
            alone[system] = result
    points = {point: {**alone, **by} for point, by in points.items()} or {"": alone}
    return {point: by for point, by in points.items() if len(by) == len(systems)}


def _label(point: Mapping[str, str]) -> str:
    """A point of the sweep as a reader names it: the value alone where one key is swept."""
    return ", ".join(point.values()) if len(point) == 1 else ", ".join(f"{key} {value}" for key, value in point.items())


# who gives most


def _most(points: Points) -> str:
    """Who leads on each basis, and how many times."""
    some = next(iter(next(iter(points.values())).values()))
    rate, speed = rate_name(some), some.declared.speed
    if rate not in some.declared.rates:
        if not speed or any(speed not in result.metrics for by in points.values() for result in by.values()):
            return ""
        leads = [_lead({name: _speed(result, speed) for name, result in by.items()}) for by in points.values()]
        return _at_equal(points) + _faster(leads, points)
    of = some.declared.metric(rate).unit
    together: dict[tuple[str, str], list[tuple[str, str]]] = {}
    rest: list[str] = []
    for basis, what in _BASES.items():
        leads = _leads(points, what)
        used = "" if what else _used(points)
        if not leads or used is None:
            continue
        basis += used
        if _everywhere(leads):
            times = _times([lead.times or 1.0 for lead in leads])
            together.setdefault((leads[0].first, leads[0].second), []).append((times, basis))
        else:
            rest.append(f"{basis} {_mixed(leads, points)}")
    clauses = []
    for (first, second), parts in together.items():
        (times, basis), *more = parts
        clauses.append(
            f"{first} gives " + _listed([f"{times} the {of} of {second} {basis}", *(" ".join(one) for one in more)])
        )
    return _at_equal(points) + "; ".join([*clauses, *rest])


def _used(points: Points) -> str | None:
    """Of services how many accelerators each has in use; None where these change over the points."""
    if not all(_STABLE in result.metrics for by in points.values() for result in by.values()):
        return ""
    used = {tuple((name, result.accelerators) for name, result in by.items()) for by in points.values()}
    if len(used) > 1:
        return None
    return f" ({' and '.join(f'{name} with {many:,}' for name, many in next(iter(used)))} accelerators)"


def _everywhere(leads: Sequence[Lead]) -> bool:
    """Whether one system leads the same other at every point, by more than nothing."""
    alone = len({lead[:2] for lead in leads}) == 1
    return alone and all(lead.times is not None and lead.times >= _ALIKE for lead in leads)


def _at_equal(points: Points) -> str:
    keys = dict.fromkeys(key for by in points.values() for result in by.values() for key in named(result)[1])
    if not keys or len(points) < 2:
        return ""
    every = all(named(result)[1] for by in points.values() for result in by.values())
    return f"{'at equal' if every else 'whatever the'} {_listed(list(keys))} "


def _leads(points: Points, what: str) -> list[Lead]:
    """The leader at every point; nothing where a system has no such rate."""
    try:
        return [_lead({name: _rate(result, what) for name, result in by.items()}) for by in points.values()]
    except InputError:  # no power, no price, no racks
        return []


def _rate(result: Result, what: str) -> _Interval:
    """Throughput over what it took, with the band of the power where there is one."""
    if not what:
        rate = result.metric(rate_name(result))
        return _Interval(rate, rate, rate)
    middle = per(result, what)
    if what != "megawatt" or "power_avg_W_low" not in result.metrics:
        return _Interval(middle, middle, middle)
    watts = result.metric("power_avg_W")
    low_W, high_W = result.metric("power_avg_W_low"), result.metric("power_avg_W_high")
    return _Interval(middle * watts / high_W, middle, middle * watts / low_W)


def _speed(result: Result, metric: str) -> _Interval:
    speed = 1 / result.metric(metric)
    return _Interval(speed, speed, speed)


def _lead(rates: Mapping[str, _Interval]) -> Lead:
    """First and second of systems; of equal ones the first named."""
    first, second, *_ = sorted(rates, key=lambda name: -rates[name].middle)
    apart = rates[first].low > max(rate.high for name, rate in rates.items() if name != first)
    banded = any(rate.low < rate.high for rate in rates.values())
    times = rates[first].middle / rates[second].middle
    return Lead(first, second, times if apart or not banded else None)


def _faster(leads: Sequence[Lead], points: Points) -> str:
    if not _everywhere(leads):
        return _mixed(leads, points)
    return f"{leads[0].first} is {_times([lead.times or 1.0 for lead in leads])} as fast as {leads[0].second}"


def _mixed(leads: Sequence[Lead], points: Points) -> str:
    """Who leads where no one does everywhere, or nobody by much, or it cannot be told."""
    if any(lead.times is None for lead in leads):
        return "it cannot be told who gives more, for the bands of their power overlap"
    times = [lead.times or 1.0 for lead in leads]
    names = list(dict.fromkeys(name for lead in leads for name in lead[:2]))
    if max(times) < _ALIKE:
        return f"{_listed(names)} are alike"
    winners: dict[str, list[str]] = {}
    for lead, point in zip(leads, points, strict=True):
        winners.setdefault(lead.first, []).append(point)
    if len(winners) == 1:
        return f"{leads[0].first} leads by up to {_times([max(times)])}"
    return _listed([f"{name} leads at {_span(at, list(points))}" for name, at in winners.items()])


# how surely


def _surely(points: Points, systems: Sequence[str]) -> str:
    """With which probability the first system gives more than each other, on each basis; nothing without draws."""
    some = [result for by in points.values() for result in by.values()]
    if not all(result.uncertainty for result in some) or rate_name(some[0]) not in some[0].declared.rates:
        return ""
    first, *others = systems
    said = []
    for other in others:
        by_basis: list[tuple[str, str]] = []
        for basis, what in (*_BASES.items(), *_DOLLARS.items()):
            try:
                found = chances([(by[first], by[other]) for by in points.values()], what)
            except InputError:  # no power, no price, no racks
                continue
            by_basis.append((_percent(found), basis))
        said.append(f"more than {other} with a probability of " + _listed([" ".join(one) for one in by_basis]))
    draws = some[0].uncertainty["draws"]
    return f"Of {draws:,} draws of all that is assumed, {first} gives " + "; ".join(said)


def _percent(chances: Sequence[float]) -> str:
    """
    >>> _percent([0.03, 0.41]), _percent([0.9999]), _percent([1.0, 1.0])
    ('3 to 41 %', '>99 %', '100 %')
    """
    low, high = (
        ">99" if 0.995 <= one < 1 else "<1" if 0 < one < 0.005 else f"{100 * one:.0f}"
        for one in (min(chances), max(chances))
    )
    return f"{low} %" if low == high else f"{low} to {high} %"


def _price(results: Sequence[Result]) -> str:
    """Below which price of the first system it wins, where there are bills; nothing else."""
    try:
        return break_even(results).said()
    except InputError:
        return ""


# how quickly


def _quickest(results: Sequence[Result], systems: Sequence[str], points: Points) -> str:
    """What each gives where users wait no longer than the slowest of the systems can do."""
    known = results[0].declared.latency
    if known is None or any(known[0] not in result.metrics for result in results):
        return ""
    metric, what = known
    of = {name: [result for result in results if named(result)[0] == name] for name in systems}
    least = {name: min(result.metric(metric) for result in found) for name, found in of.items()}
    if len(points) == 1:
        said = f"{what[:1].upper()}{what[1:]} takes " + _listed([f"{name} {_seconds(least[name])}" for name in systems])
        if not all(_STABLE in one.metrics and _TOKEN in one.metrics for one in results):
            return said
        after = [_seconds(min(one.metric(_TOKEN) for one in of[name])) for name in systems]
        return f"{said}, and each one after it {_listed(after)}, in the median"
    slow = max(systems, key=lambda name: least[name])
    rate = rate_name(results[0])
    unit = results[0].declared.metric(rate).unit if rate in results[0].declared.rates else "runs/s"
    rates = []
    for name in (slow, *(name for name in systems if name != slow)):
        within = [result for result in of[name] if result.metric(metric) <= least[slow]]
        most = max(per(result, "accelerator") for result in within)
        rates.append(f"it gives {_count(most)} {unit} per accelerator" if name == slow else f"{name} {_count(most)}")
    return (
        f"Where {what} may take no longer than {_seconds(least[slow])}, the least that {slow} needs, {_listed(rates)}"
    )


# what a service promises


def _behind(results: Sequence[Result], systems: Sequence[str]) -> str:
    """Which services do not keep up with what comes."""
    said = []
    for name in systems:
        mine = [one for one in results if named(one)[0] == name]
        late = [_label(named(one)[1]) for one in mine if one.metrics.get(_STABLE) == "no"]
        if late:
            every = [_label(named(one)[1]) for one in mine]
            where = f" at {_span(late, every)}" if len(late) < len(mine) else ""
            said.append(f"{name} does not keep up with what comes{where}: its users wait the longer the longer it runs")
    return "; ".join(said)


def _promised(results: Sequence[Result], systems: Sequence[str]) -> str:
    """Which share of users has what is promised, and up to which load."""
    kept: list[str] = []
    most: list[str] = []
    for name in systems:
        mine = [one for one in results if named(one)[0] == name]
        shares = [round(100 * one.metric(_KEPT)) for one in mine if _KEPT in one.metrics]
        loads = [one.metric(_GOODPUT) for one in mine if _GOODPUT in one.metrics]
        if shares:
            low, high = min(shares), max(shares)
            many = f"{low} to {high}" if low < high else f"{low}"
            kept.append(f"{many} % of {'users of ' if not kept else 'those of '}{name}")
        if loads:
            low_, high_ = _count(min(loads)), _count(max(loads))
            most.append(f"{f'{low_} to {high_}' if low_ != high_ else low_} requests/s on {name}")
    if not kept:
        return ""
    up_to = f"; that holds up to {_listed(most)}" if most else ""
    return f"{_listed(kept)} have what is promised{up_to}"


# what limits


def _limits(results: Sequence[Result], systems: Sequence[str]) -> str:
    """What most of the time of each goes to, and how near it comes to what its machine allows."""
    if not all(result.limiter and result.bound for result in results):
        return ""  # of a kind that knows of none
    alike: dict[str, list[tuple[str, str]]] = {}
    for name in systems:
        runs = [result for result in results if named(result)[0] == name]
        alike.setdefault(_limiters(runs), []).append((name, _reached(runs)))
    said = []
    for limiters, them in alike.items():
        names, shares = _listed([name for name, _ in them]), _listed([share for _, share in them])
        one = len(them) == 1
        said.append(
            f"{names} {'is' if one else 'are'} limited by {limiters} and {'reaches' if one else 'reach'} {shares} % of "
            f"{'its physical bound' if one else 'their physical bounds'}"
        )
    return "; ".join(said)


def _limiters(runs: Sequence[Result]) -> str:
    points = [_label(named(result)[1]) for result in runs]
    by: dict[str, list[str]] = {}
    for result, point in zip(runs, points, strict=True):
        by.setdefault(result.limiter, []).append(point)
    return _listed([limiter if len(by) == 1 else f"{limiter} at {_span(at, points)}" for limiter, at in by.items()])


def _reached(runs: Sequence[Result]) -> str:
    shares = [round(100 * float(result.bound["fraction"])) for result in runs]
    return f"{min(shares)} to {max(shares)}" if min(shares) < max(shares) else f"{shares[0]}"


def _unable(runs: Sequence[Outcome], systems: Sequence[str]) -> str:
    """Which systems have no result at all, or not at every point."""
    missing: dict[tuple[str, str], list[str]] = {}
    for one in runs:
        if not isinstance(one, Result):
            system, point = named(one)
            missing.setdefault((system, one.outcome), []).append(_label(point))
    said = []
    for (name, outcome), at in missing.items():
        verb = "cannot run it" if outcome == Infeasible.outcome else "failed"
        said.append(f"{name} {verb}" + (f" at {_listed(at)}" if name in systems and all(at) else ""))
    return "; ".join(said)


# words


def _span(at: Sequence[str], points: Sequence[str]) -> str:
    """Points of a sweep: ``8 to 96`` where they follow each other."""
    if len(at) > 1 and list(points)[points.index(at[0]) : points.index(at[0]) + len(at)] == list(at):
        return f"{at[0]} to {at[-1]}"
    return _listed(at)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _times(ratios: Sequence[float]) -> str:
    """A ratio, or its range, with the digits that mean something.

    >>> _times([2.04, 3.16]), _times([1.5, 1.52]), _times([12.2])
    ('2.0 to 3.2 times', '1.5 times', '12 times')
    """
    low, high = (f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" for value in (min(ratios), max(ratios)))
    return f"{low} times" if low == high else f"{low} to {high} times"


def _seconds(value_s: float) -> str:
    """
    >>> _seconds(0.01516), _seconds(23.2), _seconds(0.00751)
    ('15.2 ms', '23.2 s', '7.51 ms')
    """
    factor, unit = scale(value_s, "s")
    return f"{value_s / factor:#.3g} {unit}".replace(". ", " ")


def _count(value: float) -> str:
    """Three digits, thousands set apart.

    >>> _count(4440.6), _count(0.23571)
    ('4,440', '0.236')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"
