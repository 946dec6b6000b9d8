"""What a client computes in a round: which of its examples it draws, and the update that it makes of them."""

from fedbatch.clients.ditto import Ditto
from fedbatch.clients.fedbn import FedBN
from fedbatch.clients.feddyn import FedDyn
from fedbatch.clients.fednova import FedNova
from fedbatch.clients.fedper import FedPer
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import ClientWork
from fedbatch.clients.local_adam import LocalAdam
from fedbatch.clients.local_momentum import LocalMomentum
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.scaffold import Scaffold
from fedbatch.clients.schedule import Cosine, Exponential
from fedbatch.clients.work import Finished, LocalWork, Moment

__all__ = [
    "ClientWork",
    "Cosine",
    "Ditto",
    "Exponential",
    "FedBN",
    "FedDyn",
    "FedNova",
    "FedPer",
    "FedSGD",
    "Finished",
    "LocalAdam",
    "LocalMomentum",
    "LocalSGD",
    "LocalWork",
    "Moment",
    "Scaffold",
]
