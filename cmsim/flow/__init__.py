"""A collective as its messages on the links of a fabric: max-min fair, round by round."""

from cmsim.flow.bounds import Bound, bound, bound_of_matrix
from cmsim.flow.collective import (
    Busy,
    FlowResult,
    Plan,
    RoundTime,
    all_to_all_v,
    collective_time,
    members,
    plan,
    software,
)
from cmsim.flow.merge import Classes, merge
from cmsim.flow.messages import Messages, candidate_rounds, from_matrix, rounds
from cmsim.flow.rounds import Software

__all__ = [
    "Bound",
    "Busy",
    "Classes",
    "FlowResult",
    "Messages",
    "Plan",
    "RoundTime",
    "Software",
    "all_to_all_v",
    "bound",
    "bound_of_matrix",
    "candidate_rounds",
    "collective_time",
    "from_matrix",
    "members",
    "merge",
    "plan",
    "rounds",
    "software",
]
