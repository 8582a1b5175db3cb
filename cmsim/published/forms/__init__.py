"""The forms of tables: a page each, told by their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.published.forms import aiconfigurator, mindspeed, mlperf, mosaic, nightly, simumax, steps, throughput, vtrain
from cmsim.published.forms.form import TableForm
from cmsim.published.forms.service import ServiceForm

Form = TypeVar("Form", TableForm, ServiceForm)

#: in the order in which they are tried
FORMS: dict[str, TableForm] = {
    form.name: form for form in (steps.FORM, vtrain.FORM, mosaic.FORM, mindspeed.FORM, mlperf.FORM, simumax.FORM)
}
#: the same of served models
SERVICE_FORMS: dict[str, ServiceForm] = {
    form.name: form for form in (aiconfigurator.FORM, nightly.FORM, throughput.FORM)
}


def form_of(columns: Sequence[str], file: str = "") -> TableForm:
    """The form that a table's columns are of. Raises InputError with what the nearest form lacks."""
    return _form_of(FORMS, columns, file)


def service_form_of(columns: Sequence[str], file: str = "") -> ServiceForm:
    """The same of served models."""
    return _form_of(SERVICE_FORMS, columns, file)


def _form_of(forms: Mapping[str, Form], columns: Sequence[str], file: str) -> Form:
    for form in forms.values():
        if set(form.columns) <= set(columns):
            return form
    near = max(forms.values(), key=lambda form: len(set(form.columns) & set(columns)))
    missing = [name for name in near.columns if name not in columns]
    raise InputError(
        Problem(f"no such column, of the form '{near.name}'. {did_you_mean(name, columns)}", file, key=name)
        for name in missing[:5]
    )


__all__ = ["FORMS", "SERVICE_FORMS", "ServiceForm", "TableForm", "form_of", "service_form_of"]
