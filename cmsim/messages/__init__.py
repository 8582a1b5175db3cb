"""A collective as its messages on the links of a fabric: max-min fair, round by round."""

from cmsim.messages.bounds import Bound, GroupOn, bound, bound_of_group, bound_of_matrix, group_on
from cmsim.messages.collective import (
    BusyLinks,
    FlowResult,
    MessagePlan,
    RoundTime,
    all_to_all_v,
    collective_time,
    members,
    plan,
    software,
)
from cmsim.messages.merge import Classes, merge
from cmsim.messages.messages import Messages, candidate_rounds, check_count, from_matrix, rounds
from cmsim.messages.rounds import Software

__all__ = [
    "Bound",
    "BusyLinks",
    "Classes",
    "FlowResult",
    "GroupOn",
    "MessagePlan",
    "Messages",
    "RoundTime",
    "Software",
    "all_to_all_v",
    "bound",
    "bound_of_group",
    "bound_of_matrix",
    "candidate_rounds",
    "check_count",
    "collective_time",
    "from_matrix",
    "group_on",
    "members",
    "merge",
    "plan",
    "rounds",
    "software",
]
