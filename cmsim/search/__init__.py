"""The best plan of a question: every plan in columns, the best few simulated."""

from cmsim.search.axes import AXES
from cmsim.search.found import OBJECTIVES, Counts, Objective, SearchResult
from cmsim.search.search import KEEP, load, questions, search
from cmsim.search.services import ServiceResult

__all__ = [
    "AXES",
    "KEEP",
    "OBJECTIVES",
    "Counts",
    "Objective",
    "SearchResult",
    "ServiceResult",
    "load",
    "questions",
    "search",
]
