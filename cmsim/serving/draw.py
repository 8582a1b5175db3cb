"""Requests of a run: arrivals and lengths as its scenario has them, drawn from its seed or read from a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim import reading
from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.kinds.asking import ArrivalsSpec, LengthsSpec, TurnsSpec
from cmsim.kinds.serving import ServingSpec
from cmsim.requests import Prefix, RateWindows, draw_arrivals, load_requests, open_requests
from cmsim.serving.questions import Questions
from cmsim.units import CLOCK_PS, PS_PER_S, to_ps

_BUILT_IN = ("workloads/requests", "")
#: requests of a run where nobody says how many; in a closed loop of each user
_USUAL, _OF_USER = 1000, 10
#: tokens of a block of a conversation
_BLOCK = 128
#: streams of random numbers of a run: what one draws does not change the other
_ARRIVALS, _LENGTHS = range(2)


def asked(spec: ServingSpec, *, seed: int, base: Path | None) -> Questions:
    """What a run of a service is asked.

    Raises InputError for a trace that cannot be read, or that has no arrivals where they are asked of it.
    """
    how = spec.arrivals
    if how.process == "trace":
        return _replayed(how, spec.lengths, base, seed)
    count = how.requests or (_OF_USER * (how.concurrency or 0) if how.process == "closed" else _USUAL)
    prompt, output, notes = _lengths(spec.lengths, count, base, seed)
    shared = _shared(spec.lengths.shared, prompt) if spec.lengths.shared and spec.turns is None else None
    block = _BLOCK if shared is not None else 0
    if how.process == "closed":
        gap_ps = 0 if how.rate is None else int(to_ps(1.0 / how.rate))
        _whole(np.array([count * gap_ps / PS_PER_S]))
        one = Questions(prompt, output, None, shared, block, warm=spec.lengths.warm, notes=notes)
        return replace(one, users=how.concurrency or 1, gap_ps=gap_ps)
    assert how.rate is not None
    if spec.turns is not None:
        return _conversations(spec, spec.turns, prompt, output, seed, notes)
    gaps = _gaps(how, count, np.random.default_rng([seed, _ARRIVALS]))
    arrival_ps = _whole(np.cumsum(gaps) / how.rate)
    warm = spec.lengths.warm
    return Questions(prompt, output, arrival_ps, shared, block, rate_per_s=how.rate, warm=warm, notes=notes)


def _shared(share: float, prompt: Ints) -> Prefix:
    """Prompts that all begin alike; their other blocks are nobody else's, and need no number."""
    blocks = (prompt * share).astype(np.int64) // _BLOCK
    ptr = np.concatenate([[0], np.cumsum(blocks)])
    return Prefix(ptr, np.arange(ptr[-1]) - np.repeat(ptr[:-1], blocks))


def faster(one: Questions, times: float) -> Questions:
    """The same requests, all of them in so many times the rate: what is compared differs in nothing else."""
    assert one.arrival_ps is not None
    later = one.arrival_ps < 0
    arrival_ps = np.where(later, one.arrival_ps, np.rint(one.arrival_ps / times)).astype(np.int64)
    return replace(one, arrival_ps=arrival_ps, rate_per_s=one.rate_per_s * times)


def _conversations(
    spec: ServingSpec, turns: TurnsSpec, new: Ints, output: Ints, seed: int, notes: tuple[str, ...]
) -> Questions:
    """Requests of conversations one after the other; what a prompt has of earlier turns are the same blocks."""
    how, each = spec.arrivals, turns.count
    assert how.rate is not None
    count = len(new) // each * each
    if not count:
        message = f"got {len(new)}. Allowed: at least {each}, the turns of one conversation."
        raise InputError(Problem(message, key="arrivals.requests"))
    new, output = new[:count].reshape(-1, each), output[:count].reshape(-1, each)
    said = np.cumsum(new + output, axis=1)
    prompt = (said - output).ravel()
    draw = np.random.default_rng([seed, _ARRIVALS])
    arrival_ps = np.full(new.shape, -1)
    arrival_ps[:, 0] = _whole(np.cumsum(_gaps(how, len(new), draw)) * each / how.rate)
    then = np.arange(1, count + 1).reshape(new.shape)
    then[:, -1] = -1
    think_ps = to_ps(draw.exponential(turns.think_s, count))
    blocks = prompt // _BLOCK
    ptr = np.concatenate([[0], np.cumsum(blocks)])
    # the n-th block of a conversation is the same in all of its turns
    within = np.arange(ptr[-1]) - np.repeat(ptr[:-1], blocks)
    owner = np.repeat(np.arange(count) // each, blocks)
    prefix = Prefix(ptr, owner * (int(blocks.max(initial=0)) + 1) + within)
    return Questions(
        prompt,
        output.ravel(),
        arrival_ps.ravel(),
        prefix,
        _BLOCK,
        then.ravel(),
        think_ps,
        how.rate,
        notes=notes,
    )


def _gaps(how: ArrivalsSpec, count: int, draw: np.random.Generator) -> Floats:
    """Times between requests, 1 in the mean."""
    if how.process == "poisson":
        return draw.standard_exponential(count)
    shape = 1.0 / how.cv**2
    return draw.standard_gamma(shape, count) / shape


def _whole(seconds: Floats) -> Ints:
    if len(seconds) and not seconds[-1] < CLOCK_PS / PS_PER_S / 4:
        raise InputError(
            Problem(f"the last request comes after {seconds[-1]:.3g} s, later than the clock goes", key="arrivals")
        )
    return to_ps(seconds)


def _lengths(how: LengthsSpec, count: int, base: Path | None, seed: int) -> tuple[Ints, Ints, tuple[str, ...]]:
    draw = np.random.default_rng([seed, _LENGTHS])
    if how.path is not None:
        trace = load_requests(_place(how.path, base, "lengths.path"), format=how.format)
        rows = draw.integers(0, len(trace), count)
        return trace.input_tokens[rows], trace.output_tokens[rows], trace.notes
    assert how.prompt_tokens is not None and how.output_tokens is not None
    columns = []
    for most in (how.prompt_tokens, how.output_tokens):
        low = max(round(most * how.least), 1)
        columns.append(draw.integers(low, most + 1, count) if low < most else np.full(count, most))
    return columns[0], columns[1], ()


def _replayed(how: ArrivalsSpec, lengths: LengthsSpec, base: Path | None, seed: int) -> Questions:
    """As recorded, or as often as it was recorded that requests came, in another rate where one is asked for."""
    assert how.path is not None
    trace = open_requests(_place(how.path, base, "arrivals.path"), format=how.format)
    if isinstance(trace, RateWindows):
        return _as_often(trace, how, lengths, base, seed)
    if not trace.has_arrivals:
        raise InputError(
            Problem(
                f"{how.path} ({trace.format}) has no arrivals. Draw them (`process: poisson`), and `lengths: {{path}}`",
                key="arrivals.path",
            )
        )
    count = min(how.requests or len(trace), len(trace))
    time_s, rate = _in_rate(trace.arrival_s[:count], how.rate)
    notes = list(trace.notes)
    if how.requests and how.requests > len(trace):
        notes.append(f"the trace has {len(trace):,} requests, fewer than the {how.requests:,} that are asked for")
    if lengths.path is not None or lengths.prompt_tokens is not None:
        prompt, output, more = _lengths(lengths, count, base, seed)
        return Questions(prompt, output, _whole(time_s), rate_per_s=rate, notes=(*notes, *more))
    prefix = trace.prefix if trace.block_tokens else None
    prompt, output = trace.input_tokens[:count], trace.output_tokens[:count]
    return Questions(prompt, output, _whole(time_s), prefix, trace.block_tokens, rate_per_s=rate, notes=tuple(notes))


def _as_often(windows: RateWindows, how: ArrivalsSpec, lengths: LengthsSpec, base: Path | None, seed: int) -> Questions:
    """A day's curve: arrivals drawn by windows, lengths as they are asked for."""
    if lengths.path is None and lengths.prompt_tokens is None:
        message = f"{how.path} ({windows.format}) holds rates of arrival alone: say how long requests are."
        raise InputError(Problem(message, key="lengths"))
    time_s = draw_arrivals(windows, seed=seed)[: how.requests]
    if not len(time_s):
        raise InputError(Problem(f"{how.path}: no requests in its windows", key="arrivals.path"))
    time_s, rate = _in_rate(time_s - time_s[0], how.rate)
    prompt, output, more = _lengths(lengths, len(time_s), base, seed)
    return Questions(prompt, output, _whole(time_s), rate_per_s=rate, notes=(*windows.notes, *more))


def _in_rate(time_s: Floats, rate_per_s: float | None) -> tuple[Floats, float]:
    """Arrivals in another rate where one is asked for, and the rate that they have."""
    span_s = float(time_s[-1])
    own = len(time_s) / span_s if span_s else float(len(time_s))
    return (time_s, own) if rate_per_s is None or not span_s else (time_s * (own / rate_per_s), rate_per_s)


def _place(name: str, base: Path | None, key: str) -> Path:
    found = reading.locate(name, base=base, built_in=_BUILT_IN)
    if found is None:
        known = list(reading.builtin_tree(_BUILT_IN[0]))
        raise InputError(Problem(f"no file '{name}'. {did_you_mean(name, known)}", key=key))
    return found
