"""A collective as its messages on the links of a fabric: max-min fair, round by round."""

from cmsim.flow.bounds import Bound
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
from cmsim.flow.messages import Messages, from_matrix, rounds
from cmsim.flow.rounds import Software

__all__ = [
    "Bound",
    "Busy",
    "FlowResult",
    "Messages",
    "Plan",
    "RoundTime",
    "Software",
    "all_to_all_v",
    "collective_time",
    "from_matrix",
    "members",
    "plan",
    "rounds",
    "software",
]
