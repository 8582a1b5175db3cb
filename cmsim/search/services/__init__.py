"""The best plan of a service: pools, batches and copies, priced from played steps, the best few served."""

from cmsim.search.services.found import OBJECTIVES, ServiceResult
from cmsim.search.services.seek import seek

__all__ = ["OBJECTIVES", "ServiceResult", "seek"]
