"""What a client computes in a round: which of its examples it draws, and the update that it makes of them."""

from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import ClientWork
from fedbatch.clients.local_sgd import LocalSGD

__all__ = ["ClientWork", "FedSGD", "LocalSGD"]
