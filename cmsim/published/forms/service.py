"""What a form of table of served models is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cmsim.published.case import Case, NoPlan
from cmsim.published.forms.form import Cells
from cmsim.published.service_row import ServiceRow, ServiceRule, build_service, serving_file


@dataclass(frozen=True)
class ServiceMeasured:
    """What a row says was measured, None where it does not. ``ttft_ms`` and ``tpot_ms`` are means over requests."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    output_tokens_per_s: float | None = None


@dataclass(frozen=True)
class ServiceForm:
    """A form of table of served models.

    name      of the form, and of its rules in ``serving.yaml``    columns  that tell it from others
    row       what a row says of a service; raises NoPlan
    measured  what of it was measured    id  what to call a row, by its number
    """

    name: str
    columns: tuple[str, ...]
    row: Callable[[Cells], ServiceRow]
    measured: Callable[[Cells], ServiceMeasured]
    id: Callable[[Cells, int], str]

    @property
    def rules(self) -> tuple[ServiceRule, ...]:
        found: tuple[ServiceRule, ...] = getattr(serving_file(), self.name)
        return found

    def case(self, cells: Cells) -> Case:
        """A row as a scenario, or with the reason why there is none; what is no evidence is predicted all the same."""
        try:
            case = build_service(self.row(cells), cells, self.rules)
        except NoPlan as reason:
            return Case(reason=str(reason))
        why = self.left_out(cells)
        return replace(case, unsaid=(*case.unsaid, why)) if why else case

    def left_out(self, cells: Cells) -> str:
        """Why a row is no evidence, or ""."""
        return next((rule.left_out for rule in self.rules if rule.left_out and rule.holds(cells)), "")

    def ttft_left_out(self, cells: Cells) -> str:
        """Why the time to the first token of a row is no evidence, or ""."""
        return next((rule.ttft_left_out for rule in self.rules if rule.ttft_left_out and rule.holds(cells)), "")
