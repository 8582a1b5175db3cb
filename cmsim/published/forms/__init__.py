"""The forms of tables: a page each, told by their columns."""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.published.forms import mindspeed, mlperf, mosaic, simumax, steps, vtrain
from cmsim.published.forms.form import TableForm

#: in the order in which they are tried
FORMS: dict[str, TableForm] = {
    form.name: form for form in (steps.FORM, vtrain.FORM, mosaic.FORM, mindspeed.FORM, mlperf.FORM, simumax.FORM)
}


def form_of(columns: Sequence[str], file: str = "") -> TableForm:
    """The form that a table's columns are of. Raises InputError with what the nearest form lacks."""
    for form in FORMS.values():
        if set(form.columns) <= set(columns):
            return form
    near = max(FORMS.values(), key=lambda form: len(set(form.columns) & set(columns)))
    missing = [name for name in near.columns if name not in columns]
    raise InputError(
        Problem(f"no such column, of the form '{near.name}'. {did_you_mean(name, columns)}", file, key=name)
        for name in missing[:5]
    )


__all__ = ["FORMS", "TableForm", "form_of"]
