"""One self-contained page of results: nothing is loaded from anywhere, and every sentence is computed.

The words are in ``page.html`` (Jinja2, every text escaped); what they are about is collected here.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim import plots
from cmsim.errors import CmsimError
from cmsim.numbers import quantity
from cmsim.reading import write_text
from cmsim.results import Result, Results, interval_rows, pairs, power_band, rate_name
from cmsim.results import per as throughput_per

if TYPE_CHECKING:
    from jinja2 import Template

#: figures of a page, by their name, and what each shows; those that results have nothing for are left out
FIGURES: Mapping[str, str] = {
    "power-throughput": "Power against throughput, a line for each system over its sweep",
    "trade-off": "What a user gets against what the machine gives",
    "collective": "Bandwidth over message size",
    "breakdown": "Where the time of each run goes",
    "power": "Power of the first run over time, by component",
    "tornado": "Which assumption moves the throughput of the first run",
    "break-even": "Below which price a machine wins",
    "roofline": "Work of the first run against the peaks of its accelerator",
}
#: runs of which figures of single runs are drawn at most, rows of a table that stand open, notes of a workload
_MOST_ROWS, _MOST_NOTES = 60, 12
#: shares below round to 0 %
_LEAST_SHARE = 0.005


def write_report(results: Results, path: str | Path, *, title: str = "", per: Sequence[str] = ()) -> Path:
    """Write the page.

    Parameters
    ----------
    results
        Of one scenario, or of several side by side.
    path
        File to write, complete or absent.
    title
        Default: the scenario's name.
    per
        What throughput is divided by in tables: ``accelerator``, ``rack``, ``megawatt``, ``million_dollars``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        Where it cannot be written, or throughput is asked for per something that a run does not know.
    InfeasibleError, FailedError
        Where no run gave a result.
    """
    results.require()
    path = Path(path)
    scenarios = _each(results.scenario, results.manifest)
    said = {
        "title": title or " and ".join(dict.fromkeys(name for one in scenarios if (name := one["name"]))) or "Results",
        "questions": list(dict.fromkeys(one["question"] for one in scenarios if one["question"])),
        "answer": [_split(sentence) for sentence in results.verdict()] or [_alone(results)],
        "tables": [_table(group, per) for group in _groups(results.results)],
        "missing": [(one.run, one.outcome, " ".join(one.message.split())) for one in results.missing],
        "figures": _figures(results),
        "limits": [_limit(one) for one in results.results[:_MOST_ROWS] if one.breakdown or one.bound],
        "more": max(len(results.results) - _MOST_ROWS, 0),
        "bands": [band for one in results.results[:_MOST_ROWS] if (band := _band(one))],
        "intervals": _intervals(results.results),
        "notes": _notes(results.results),
        "assumed": sorted({text for one in scenarios for text in one["assumed"]}),
        "sources": sorted({text for one in scenarios for text in one["sources"]}),
        "scenarios": scenarios,
        "version": results.version,
        "runs": len(results.outcomes),
    }
    write_text(path, _template().render(said))
    return path


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )


def _each(scenario: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scenarios that results are of: what each asks, assumes and stands on."""
    data = scenario.get("joined", [scenario])
    traced = manifest.get("joined", [manifest])
    return [
        {
            "name": str(one.get("name") or ""),
            "question": _question(str(of.get("scenario_text", ""))),
            "file": str(of.get("scenario_file") or ""),
            "text": _as_it_ran(one),
            "seed": of.get("seed", 0),
            "systems": {name: said["digest"] for name, said in of.get("systems", {}).items()},
            "assumed": list(of.get("assumed", ())),
            "sources": list(of.get("sources", ())),
        }
        for one, of in zip(data, traced, strict=True)
    ]


def _as_it_ran(data: Mapping[str, Any]) -> str:
    """A scenario in long form, with what was changed on the command line: its file alone would not say that."""
    import json

    import yaml

    plain = json.loads(json.dumps(data, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)) if plain else ""


def _question(text: str) -> str:
    """What a scenario file says before its first key.

    >>> _question("# How fast?\\n# And why?\\nname: x")
    'How fast? And why?'
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# yaml-language-server"):
            lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def _split(sentence: str) -> tuple[str, str]:
    """A sentence of the verdict as the workload that it is of, and what it says."""
    head, colon, rest = sentence.partition(": ")
    return (head, rest) if colon else ("", sentence)


def _alone(results: Results) -> tuple[str, str]:
    """What there is to say where nothing is held against each other."""
    one = results.results[0]
    told = ", ".join(
        f"{name} {quantity(name, one.metrics[name])}" for name in one.declared.headline if name in one.metrics
    )
    return one.workload, f"{one.system}: {told}"


def _groups(runs: Sequence[Result]) -> list[list[Result]]:
    by: dict[str, list[Result]] = {}
    for one in runs:
        by.setdefault(one.workload, []).append(one)
    return list(by.values())


def _table(runs: Sequence[Result], of: Sequence[str]) -> dict[str, Any]:
    """Runs of a workload: rows of (text, number to sort by), one head for each column."""
    first = runs[0]
    keys = list(dict.fromkeys(key for one in runs for key in pairs(one)))
    metrics = [name for name in first.declared.headline if any(name in one.metrics for one in runs)]
    rates = {name: what for what in of if (name := f"{rate_name(first)}_per_{what}") not in metrics}
    ends = [("limiter", any(one.limiter for one in runs)), ("bound reached", any(one.bound for one in runs))]
    heads = ["system", *keys, *metrics, *rates, *(name for name, there in ends if there)]
    rows = []
    for one in runs:
        own = pairs(one)
        cells = [_cell("", one.system), *(_cell(key, own.get(key, "")) for key in keys)]
        cells += [_cell(name, one.metrics.get(name, "")) for name in metrics]
        cells += [_cell(name, throughput_per(one, what)) for name, what in rates.items()]
        share = one.bound.get("fraction")
        reached = ("", "") if share is None else (f"{share:.0%} of {one.bound['name']}", float(share))
        last = [_cell("", one.limiter), reached]
        rows.append([*cells, *(cell for cell, (_, there) in zip(last, ends, strict=True) if there)])
    return {"title": first.workload, "kind": first.declared.name, "heads": [_words(one) for one in heads], "rows": rows}


def _cell(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return quantity(name, value), float(value)
    return str(value), str(value)


def _words(name: str) -> str:
    """A name as a head may be broken, without the unit that its cells have.

    >>> _words("ttft_s_p50"), _words("energy_per_token_J"), _words("tokens_per_s")
    ('ttft p50', 'energy per token', 'tokens per s')
    """
    return re.sub(r"(?<!_per)_(s|J|W|B|USD|g|ps)(?=_p\d|$)", "", name).replace("_", " ")


def _figures(results: Results) -> list[tuple[str, str]]:
    """(what it shows, SVG) of every figure that the results have something for."""
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for name, what in FIGURES.items():
            if name == "trade-off" and not any(len(group) > 2 for group in _groups(results.results)):
                continue  # two points are no line
            try:
                path = plots.save(plots.KINDS[name](results), Path(folder) / f"{name}.svg")
            except CmsimError:  # it is of another kind of run, or its frames were not kept
                continue
            out.append((what, _inside(path.read_text(encoding="utf-8"), f"{name}-")))
    return out


def _inside(svg: str, prefix: str) -> str:
    """A figure as part of a page: without its declaration, and with names that no other figure has."""
    body = svg[svg.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1)  # the page says what it shows
    head, _, rest = body.partition("<metadata>")  # who drew it when, up to where that closes
    body = head + (rest.partition("metadata>")[2] if rest else "")
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1), count=1
    )


def _limit(one: Result) -> dict[str, Any]:
    """Where the time of a run goes, as shares of it, the largest first, without those that round to nothing."""
    total = sum(one.breakdown.values()) or 1.0
    shares = sorted(
        ((name.removesuffix("_s"), value / total) for name, value in one.breakdown.items()), key=lambda x: -x[1]
    )
    parts = ", ".join(f"{name} {100 * share:.0f}\u00a0%" for name, share in shares if share >= _LEAST_SHARE)
    bound = "" if not one.bound else f"{one.bound['fraction']:.0%} of what {one.bound['name']} allows"
    return {"run": _called(one), "limiter": one.limiter, "bound": bound, "parts": parts}


def _called(one: Result) -> str:
    return ", ".join([f"{one.workload} on {one.system}", *(f"{key} {value}" for key, value in pairs(one).items())])


def _band(one: Result) -> tuple[str, str] | None:
    ends = power_band(one)
    if ends is None or ends[0] == ends[1]:
        return None
    low, high = (f"{end - 1:+.0%}".replace("-", "−") for end in ends)
    return _called(one), f"power and energy {low} to {high}"


def _intervals(runs: Sequence[Result]) -> list[list[str]]:
    """Figures with the 5th and 95th percentile of their draws, where the scenario asks for these."""
    by_run = {one.run: one for one in runs}
    out = []
    for row in interval_rows(runs):
        one = by_run[row["run"]]
        if row["metric"] in one.declared.headline:
            name = row["metric"]
            ends = [quantity(name, row[key]) for key in ("value", "low", "high")]
            out.append([_called(one), _words(name), *ends])
    return out


def _notes(runs: Sequence[Result]) -> list[tuple[str, list[str]]]:
    out = []
    for group in _groups(runs):
        texts = list(dict.fromkeys(" ".join(text.split()) for one in group for text in one.warnings))
        if texts:
            more = [f"and {len(texts) - _MOST_NOTES} more"] if len(texts) > _MOST_NOTES else []
            out.append((group[0].workload, [*texts[:_MOST_NOTES], *more]))
    return out


__all__ = ["FIGURES", "write_report"]
