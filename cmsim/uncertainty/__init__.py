"""How sure figures are: what is assumed, and what validation found wrong, drawn in columns from data of a result."""

from cmsim.uncertainty.draws import beats, intervals, sampled
from cmsim.uncertainty.ledger import Assumption, Ledger, ModelError, of_data

__all__ = ["Assumption", "Ledger", "ModelError", "beats", "intervals", "of_data", "sampled"]
