"""What a form of table is: its columns, and a function from a row to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cmsim.published.build import build, left_out
from cmsim.published.case import Case, NoPlan, RowPlan
from cmsim.published.names import RecipeRule, found, names, recipes

Cells = Mapping[str, str]


@dataclass(frozen=True)
class TableForm:
    """A form of table.

    name      of the form, and of its rules in ``recipes.yaml``
    columns   that tell it from others
    plan      what a row says of a run; raises NoPlan
    step_s    the measured time of a step where the row has one [s]; told the model FLOPs of the predicted step where
              the source counts them as we do, else 0 [FLOP]
    memory_GiB   the measured peak, where the row has one
    id        what to call a row, by its number
    """

    name: str
    columns: tuple[str, ...]
    plan: Callable[[Cells], RowPlan]
    step_s: Callable[[Cells, float], float | None]
    id: Callable[[Cells, int], str]
    memory_GiB: Callable[[Cells], float | None] = lambda _: None

    def case(self, cells: Cells) -> Case:
        """A row as a scenario, or with the reason why there is none."""
        rules = getattr(recipes(), self.name)
        cells, corrections = _corrected(cells, rules)
        why = left_out(cells, rules)
        if why:
            return Case(reason=why)
        try:
            case = build(self.plan(cells), cells, rules)
        except NoPlan as reason:
            return Case(reason=str(reason))
        return replace(case, documented=(*corrections, *case.documented))

    def measured_step_s(self, cells: Cells, model_FLOP: float) -> float | None:
        """The measured time of a step [s]. model_FLOP: of the predicted one, counted causal [FLOP]"""
        rules = getattr(recipes(), self.name)
        cells, _ = _corrected(cells, rules)
        causal = any(rule.flops == "causal" and rule.holds(cells) for rule in rules)
        return self.step_s(cells, model_FLOP if causal else 0.0)


def _corrected(cells: Cells, rules: Sequence[RecipeRule]) -> tuple[Cells, tuple[str, ...]]:
    """A row with what its source prints where the table has it otherwise, and what to say of that."""
    said = []
    for rule in rules:
        if rule.corrected and rule.holds(cells):
            cells = {**cells, **rule.corrected}
            said.append(f"{', '.join(f'{name} {text}' for name, text in rule.corrected.items())} ({rule.why})")
    return cells, tuple(said)


def whole(cells: Cells, name: str) -> int | None:
    """A cell as a whole number; None where it is empty. Raises NoPlan for what is none."""
    value = real(cells, name)
    if value is None:
        return None
    if value != int(value) or value < 0:
        raise NoPlan(f"{name}: got {cells[name]!r}; a whole number is needed")
    return int(value)


def needed(cells: Cells, name: str) -> int:
    """The same, where there has to be one above 0."""
    value = whole(cells, name)
    if not value:
        raise NoPlan(f"no {name} in the row")
    return value


def real(cells: Cells, name: str) -> float | None:
    """A cell as a number; None where it is empty. Raises NoPlan for what is none."""
    text = cells.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise NoPlan(f"{name}: got {text!r}; a number is needed") from None
    if not abs(value) < float("inf"):
        raise NoPlan(f"{name}: got {text!r}; a number is needed")
    return value


def gpt(table: str, hidden: int, heads: int, layers: int, positions: int, vocab: int | None = None) -> dict[str, Any]:
    """A decoder of the GPT-2 kind as the keys of a ``config.json``; what the row does not say is that of its table."""
    known = found(names().sizes, table, "sizes of a model").set
    return {
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_head": heads,
        "n_layer": layers,
        "n_positions": positions,
        "tie_word_embeddings": True,
        **known,
        **({"vocab_size": vocab} if vocab else {}),
    }
