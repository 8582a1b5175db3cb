"""Who asks what: requests of a scenario, with tasks of agents, documents before prompts, rates that change over a day,
classes of priority and users who go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.kinds.asking import AgentsSpec, ArrivalsSpec, RetrievalSpec
from cmsim.kinds.serving import ServingSpec
from cmsim.requests import Prefix
from cmsim.serving import draw
from cmsim.serving.questions import Questions
from cmsim.units import CLOCK_PS, PS_PER_S, to_ps

#: tasks of agents of a run where nobody says how many
_TASKS = 100
#: tokens of a block of what prompts share
BLOCK = 128
#: streams of random numbers, beside those of arrivals and lengths: what one draws does not change the others
_CALLS, _DOCUMENTS, _CLASSES, _QUITS, _CURVE = range(10, 15)


def asked(spec: ServingSpec, *, seed: int, base: Path | None) -> Questions:
    """What a run of a service is asked.

    Raises InputError for a trace that cannot be read, or that has no arrivals where they are asked of it.
    """
    if spec.agents is not None:
        found = _agents(spec, spec.agents, seed, base)
    elif spec.arrivals.process == "curve":
        found = _on_curve(spec, seed, base)
    else:
        found = draw.asked(spec, seed=seed, base=base)
    if spec.retrieval is not None:
        found = _with_documents(found, spec.retrieval, seed)
    count = len(found)
    if spec.priorities is not None:
        ends = np.cumsum(spec.priorities)[:-1]
        classes = np.searchsorted(ends, np.random.default_rng([seed, _CLASSES]).random(count), side="right")
        found = replace(found, priority=classes)
    if spec.cancels is not None:
        chance = np.random.default_rng([seed, _QUITS])
        goes = chance.random(count) < spec.cancels.share
        after_ps = to_ps(chance.exponential(spec.cancels.after_s, count))
        found = replace(found, quits_ps=np.where(goes, after_ps, -1))
    return found


# rates that change


def _on_curve(spec: ServingSpec, seed: int, base: Path | None) -> Questions:
    """At random in a rate that goes straight from point to point, again and again where it is a day's."""
    curve = spec.arrivals.curve
    assert curve is not None
    at_s, rate = (np.array([one[column] for one in curve]) for column in (0, 1))
    span_s, whole = float(at_s[-1] - at_s[0]), _area(at_s, rate)[-1]
    count = spec.arrivals.requests or max(round(whole), 1)
    due = np.cumsum(np.random.default_rng([seed, _CURVE]).standard_exponential(count))
    if due[-1] / whole * span_s > CLOCK_PS / PS_PER_S / 4:
        raise InputError(Problem("the last request comes later than the clock goes", key="arrivals.curve"))
    rounds = np.floor(due / whole)
    time_s = rounds * span_s + _inverse(at_s - at_s[0], rate, due - rounds * whole)
    plain = spec.model_copy(update={"arrivals": _poisson(count, whole / span_s)})
    found = draw.asked(plain, seed=seed, base=base)
    return replace(found, arrival_ps=to_ps(time_s))


def _poisson(count: int, rate_per_s: float) -> ArrivalsSpec:
    return ArrivalsSpec(process="poisson", rate_per_s=rate_per_s, requests=count)


def _area(at_s: Floats, rate: Floats) -> Floats:
    """Requests that are due until each point."""
    return np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(at_s))])


def _inverse(at_s: Floats, rate: Floats, due: Floats) -> Floats:
    """When so many are due: of a stretch with rate a + b t the root of a t + b t^2 / 2."""
    area = _area(at_s, rate)
    row = np.clip(np.searchsorted(area, due, side="right") - 1, 0, len(at_s) - 2)
    first, slope = rate[row], np.diff(rate)[row] / np.diff(at_s)[row]
    left = np.maximum(due - area[row], 0.0)
    root = np.sqrt(np.maximum(first**2 + 2 * slope * left, 0.0))
    # 2 c / (a + root) is the root that holds where b is nothing, too
    within = np.divide(2 * left, first + root, out=np.zeros(len(due)), where=first + root > 0)
    return np.asarray(at_s[row] + np.minimum(within, np.diff(at_s)[row]))


# agents


def _agents(spec: ServingSpec, how: AgentsSpec, seed: int, base: Path | None) -> Questions:
    """Each task is a burst of calls: a call's prompt is all that was said before, and what its tool gave; the next one
    comes when the tool is done. All tasks begin with the same instructions."""
    tasks = spec.arrivals.requests or _TASKS
    chance = np.random.default_rng([seed, _CALLS])
    calls = np.minimum(chance.geometric(1.0 / how.calls, tasks), how.most)
    count = int(calls.sum())
    # rates and counts of arrivals are of tasks; lengths are those of each call
    arrivals = spec.arrivals.model_copy(update={"requests": tasks})
    whole = draw.asked(spec.model_copy(update={"agents": None, "arrivals": arrivals}), seed=seed, base=base)
    assert whole.arrival_ps is not None
    lengths = spec.model_copy(update={"agents": None, "arrivals": _poisson(count, 1.0)})
    each = draw.asked(lengths, seed=seed, base=base)
    task = np.repeat(np.arange(tasks), calls)
    first = np.cumsum(calls) - calls
    said = np.cumsum(each.prompt + each.output)
    before = (said - each.prompt - each.output)[first]
    prompt = how.instruction_tokens + said - each.output - before[task]
    arrival_ps = np.full(count, -1)
    arrival_ps[first] = whole.arrival_ps
    then = np.arange(1, count + 1)
    then[first + calls - 1] = -1
    wait_ps = to_ps(chance.exponential(how.tool_s, count))
    shared = how.instruction_tokens // BLOCK
    prefix = _of_owner(prompt, task, shared)
    return Questions(
        prompt,
        each.output,
        arrival_ps,
        prefix,
        BLOCK,
        then,
        wait_ps,
        rate_per_s=whole.rate_per_s * count / tasks,
        notes=each.notes,
    )


def _of_owner(prompt: Ints, owner: Ints, shared: int) -> Prefix:
    """Blocks of prompts: the first ``shared`` are everybody's, the n-th behind them is its owner's."""
    blocks = prompt // BLOCK
    ptr = np.concatenate([[0], np.cumsum(blocks)])
    within = np.arange(ptr[-1]) - np.repeat(ptr[:-1], blocks)
    most = int(blocks.max(initial=0)) + 1
    own = (np.repeat(owner, blocks) + 1) * most + within
    return Prefix(ptr, np.where(within < shared, within, own))


# documents


def _with_documents(one: Questions, how: RetrievalSpec, seed: int) -> Questions:
    """Prompts with documents before them, those that are asked for most often more often: who gets the same documents
    in the same order shares their blocks."""
    count = len(one)
    chance = np.random.default_rng([seed, _DOCUMENTS])
    shares = 1 / np.arange(1, how.documents + 1) ** how.popularity
    # drawn one by one: a document may stand in a prompt twice
    drawn = chance.choice(how.documents, (count, how.each), p=shares / shares.sum())
    drawn.sort(axis=1)  # as a template has them: those of a lower number first, so that prompts agree on the order
    size = -(-how.document_tokens // BLOCK)
    head = how.instruction_tokens // BLOCK
    prompt = one.prompt + head * BLOCK + how.each * size * BLOCK
    # what a block is depends on all documents before it
    names: dict[tuple[int, int], int] = {}
    code = np.zeros((count, how.each), np.int64)
    before = [0] * count
    for place in range(how.each):
        column = drawn[:, place].tolist()
        before = [names.setdefault(key, len(names) + 1) for key in zip(before, column, strict=True)]
        code[:, place] = before
    blocks = np.concatenate(
        [
            np.broadcast_to(np.arange(head), (count, head)),
            (head + code[:, :, None] * size + np.arange(size)).reshape(count, -1),
        ],
        axis=1,
    )
    each = head + how.each * size
    return replace(one, prompt=prompt, prefix=Prefix(np.arange(count + 1) * each, blocks.ravel()), block_tokens=BLOCK)


__all__ = ["BLOCK", "asked"]
