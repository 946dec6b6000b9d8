"""Steps of the server that do not wait for a whole cohort: buffered asynchronous aggregation (Nguyen et al. 2022)."""

from fedbatch.asynchronous.fedbuff import FedBuff
from fedbatch.asynchronous.staleness import Polynomial, Staleness

__all__ = ["FedBuff", "Polynomial", "Staleness"]
