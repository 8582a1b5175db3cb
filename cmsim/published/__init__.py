"""Published training runs as scenarios: a row of a table becomes the run that it describes, or a reason why not.

What tables call models, machines and formats, and what their sources document where a row is silent, is data
(``workloads/published``). A form of table is a page in ``forms``.
"""

from cmsim.published.case import Case, NoPlan, RowPlan
from cmsim.published.forms import FORMS, TableForm, form_of
from cmsim.published.play import PlayedCase, play, play_all
from cmsim.published.predict import predict_training

__all__ = [
    "FORMS",
    "Case",
    "NoPlan",
    "PlayedCase",
    "RowPlan",
    "TableForm",
    "form_of",
    "play",
    "play_all",
    "predict_training",
]
