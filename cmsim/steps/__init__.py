"""What steps cost, from a table: real plays at points that are sought, and costs between them with their error.

    from cmsim import steps
    table = steps.table(run)                      # a run of a scenario: its workload, its system, its plan
    table.step_s({"sequences": [8, 96], "context_tokens": [4096, 5000.5]}).seconds
    table.at(96, 4096)                            # one step

Services and searches stand on it: they ask a million times what a play answers in tens of milliseconds.
"""

from cmsim.steps.asked import Points, between, straight
from cmsim.steps.axes import Axis, of_inference
from cmsim.steps.make import POINTS, TOLERANCE, table
from cmsim.steps.table import Step, Steps, Table, TabledPlan

__all__ = [
    "POINTS",
    "TOLERANCE",
    "Axis",
    "Points",
    "Step",
    "Steps",
    "Table",
    "TabledPlan",
    "between",
    "of_inference",
    "straight",
    "table",
]
