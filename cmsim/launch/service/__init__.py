"""Launch files of serving engines and of benchmark clients."""

from cmsim.launch.service.plan import ServicePlan
from cmsim.launch.service.read import ServiceReader

__all__ = ["ServicePlan", "ServiceReader"]
