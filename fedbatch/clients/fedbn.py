"""FedBN: normalisation layers, with their statistics, stay at the client (Li et al. 2021)."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from fedbatch.clients.fedper import FedPer
from fedbatch.clients.work import Lengths, Vectors
from fedbatch.models.flat import FlatModel

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class FedBN(FedPer):
    """`FedPer` whose personal layers are all normalisation layers, or those that are named; and all buffers stay.

    So each client's batch norm keeps the statistics of its own data.
    """

    def on_model(self, model: FlatModel) -> FedPer:
        """The work for a model.

        Raises:
            ValueError: it has no normalisation layer.
        """
        if self.personal is not None:
            return super().on_model(model)
        layers = dict(model.module.named_modules())
        norms = [name for name in model.layer_names if isinstance(layers[name], NORMS)]
        if not norms:
            raise ValueError(
                "client_work: FedBN keeps normalisation layers at the client, and the model has none with parameters; "
                "set model.norm, name layers in client_work.personal, or use client_work=fedper"
            )
        return replace(FedPer.on_model(replace(self, personal=norms), model), personal=None)

    @property
    def own(self) -> Lengths:
        """The values that stay, statistics, and whether the client has any yet."""
        return {**super().own, "buffers": "buffers"}

    def own_buffers(self, buffers: Tensor, own: Vectors) -> Tensor:
        """The buffers (m,) with which a client begins, of the global ones and its own."""
        return own["buffers"] if float(own["begun"]) else buffers
