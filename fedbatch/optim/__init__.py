"""Large-batch optimizers as ordinary torch optimizers, for the server or for anyone's own training script."""

from fedbatch.optim.lamb import LAMB
from fedbatch.optim.lars import LARS
from fedbatch.optim.lion import Lion
from fedbatch.optim.merit import MERIT
from fedbatch.optim.muon import Muon

__all__ = ["LAMB", "LARS", "MERIT", "Lion", "Muon"]
