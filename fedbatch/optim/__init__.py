"""Large-batch optimizers as ordinary torch optimizers, for the server or for anyone's own training script."""

from fedbatch.optim.lamb import LAMB
from fedbatch.optim.lars import LARS
from fedbatch.optim.merit import MERIT

__all__ = ["LAMB", "LARS", "MERIT"]
