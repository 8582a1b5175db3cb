"""Pipeline schedules, one page each: generators lay programs along one, memory reads what it holds.

Scenarios name one (`schedule`); each has its bubble and its memory as published.
"""

from cmsim.workload.schedules.dualpipe import DualPipe
from cmsim.workload.schedules.gpipe import GPipe
from cmsim.workload.schedules.interleaved import Interleaved
from cmsim.workload.schedules.one_forward_one_backward import OneForwardOneBackward
from cmsim.workload.schedules.passes import AtPeak, Pass, PipelineSchedule, Steady, Turn
from cmsim.workload.schedules.zb_h1 import ZeroBubbleH1
from cmsim.workload.schedules.zb_v import ZeroBubbleV

#: by name
SCHEDULES: dict[str, type[PipelineSchedule]] = {
    page.name: page for page in (OneForwardOneBackward, GPipe, Interleaved, ZeroBubbleH1, ZeroBubbleV, DualPipe)
}

__all__ = ["SCHEDULES", "AtPeak", "OneForwardOneBackward", "Pass", "PipelineSchedule", "Steady", "Turn"]
