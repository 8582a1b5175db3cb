"""Published runs of training and of services as scenarios: a row of a table becomes the run that it describes, or a
reason why not.

What tables call models, machines and formats, and what their sources document where a row is silent, is data
(``workloads/published``). A form of table is a page in ``forms``.
"""

from cmsim.published.case import Case, NoPlan, RowPlan
from cmsim.published.forms import FORMS, SERVICE_FORMS, ServiceForm, TableForm, form_of, service_form_of
from cmsim.published.play import PlayedCase, play, play_all, roomy, with_files
from cmsim.published.predict import cells_of, predict_training
from cmsim.published.predict_serving import predict_serving
from cmsim.published.serve import PlayedService, serve_all

__all__ = [
    "FORMS",
    "SERVICE_FORMS",
    "Case",
    "NoPlan",
    "PlayedCase",
    "PlayedService",
    "RowPlan",
    "ServiceForm",
    "TableForm",
    "cells_of",
    "form_of",
    "play",
    "play_all",
    "predict_serving",
    "predict_training",
    "roomy",
    "serve_all",
    "service_form_of",
    "with_files",
]
