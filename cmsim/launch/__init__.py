"""Launch scripts and configs of training tools, read as plans and written as scenarios. Nothing of them is run."""

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.read import Reader
from cmsim.launch.scenario import scenario_of

__all__ = ["LaunchPlan", "Reader", "explained", "scenario_of"]


def explained(plans: list[LaunchPlan]) -> dict[str, object]:
    """What ``--explain`` prints: a plan's keys; of several, those in common and the others of each under ``cases``."""
    found = [plan.explained() for plan in plans]
    if len(found) == 1:
        return found[0]
    common = {key: value for key, value in found[0].items() if all(one.get(key) == value for one in found)}
    cases = []
    for plan, one in zip(plans, found, strict=True):
        name = plan.details.get("name")
        cases.append({**({"name": name} if name else {}), **{key: v for key, v in one.items() if key not in common}})
    return {**common, "cases": cases}
