"""Launch scripts and configs of training tools, read as plans and written as scenarios. Nothing of them is run."""

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.read import Reader
from cmsim.launch.scenario import Written
from cmsim.launch.scenario import scenario_of as _training
from cmsim.launch.service import ServicePlan
from cmsim.launch.service.assemble import cases as service_cases
from cmsim.launch.service.scenario import scenario_of as _service

__all__ = ["LaunchPlan", "Reader", "ServicePlan", "explained", "scenario_of"]


def scenario_of(plan: LaunchPlan | ServicePlan, *, system: str | None, model_name: str) -> Written:
    """The scenario of a plan. InputError: the plan has problems, or a system is unknown."""
    if isinstance(plan, ServicePlan):
        return _service(plan, system=system, model_name=model_name)
    return _training(plan, system=system, model_name=model_name)


def explained(plans: list[LaunchPlan | ServicePlan]) -> dict[str, object]:
    """What ``--explain`` prints: a plan's keys; of several, those in common and the others of each under ``cases``."""
    found = [plan.explained() for plan in plans]
    if len(found) == 1:
        return found[0]
    services = [plan for plan in plans if isinstance(plan, ServicePlan)]
    if len(services) == len(plans):
        return service_cases(services)
    common = {key: value for key, value in found[0].items() if all(one.get(key) == value for one in found)}
    cases = []
    for plan, one in zip(plans, found, strict=True):
        name = plan.details.get("name")
        cases.append({**({"name": name} if name else {}), **{key: v for key, v in one.items() if key not in common}})
    return {**common, "cases": cases}
