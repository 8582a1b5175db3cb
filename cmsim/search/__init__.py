"""The best plan of a question: every plan in columns, the best few simulated."""

from cmsim.search.axes import AXES
from cmsim.search.found import OBJECTIVES, Counts, Objective, SearchResult
from cmsim.search.search import KEEP, questions, search

__all__ = ["AXES", "KEEP", "OBJECTIVES", "Counts", "Objective", "SearchResult", "questions", "search"]
