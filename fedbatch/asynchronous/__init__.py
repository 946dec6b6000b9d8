"""Steps of the server that do not wait for a whole cohort: buffered asynchronous aggregation (Nguyen et al. 2022)."""

from fedbatch.asynchronous.fedbuff import FedBuff
from fedbatch.asynchronous.staleness import Polynomial, Staleness
from fedbatch.asynchronous.under_way import UnderWay

__all__ = ["FedBuff", "Polynomial", "Staleness", "UnderWay"]
