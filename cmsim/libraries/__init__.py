"""What collective libraries take, as measured: tuner, protocols, and constants as data. Needs nothing but numbers.

Kernels of experts have a front of their own, `cmsim.libraries.experts`: runs do without its data, which takes
longer to read than a collective to price.
"""

from cmsim.libraries.between import BETWEEN_DEFAULTS, between_us
from cmsim.libraries.between import candidates_us as between_candidates_us
from cmsim.libraries.call import TUNER, LibraryCandidate, candidates, time_us
from cmsim.libraries.choose import PRICED, cheaper, check, choose, notes, page, pages
from cmsim.libraries.data import LinkClass, libraries, mesh_library, networks, ring_library
from cmsim.libraries.fused import FUSED_DEFAULTS, fused_us
from cmsim.libraries.hccl import HCCL_DEFAULTS, hccl_candidates_us, hccl_us, mesh_us
from cmsim.libraries.inside import DEFAULTS, Domain, inside_us, protocols_us
from cmsim.libraries.place import Place, link_class, place_of
from cmsim.libraries.reach import note, reach
from cmsim.libraries.tuner import PROTOCOLS, TunerSpec, tuner_us

__all__ = [
    "BETWEEN_DEFAULTS",
    "DEFAULTS",
    "FUSED_DEFAULTS",
    "HCCL_DEFAULTS",
    "PRICED",
    "PROTOCOLS",
    "TUNER",
    "Domain",
    "LibraryCandidate",
    "LinkClass",
    "Place",
    "TunerSpec",
    "between_candidates_us",
    "between_us",
    "candidates",
    "cheaper",
    "check",
    "choose",
    "fused_us",
    "hccl_candidates_us",
    "hccl_us",
    "inside_us",
    "libraries",
    "link_class",
    "mesh_library",
    "mesh_us",
    "networks",
    "note",
    "notes",
    "page",
    "pages",
    "place_of",
    "protocols_us",
    "reach",
    "ring_library",
    "time_us",
    "tuner_us",
]
