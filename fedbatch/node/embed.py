"""Probabilities and embeddings of examples under a model."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbatch.models.flat import FlatModel

BATCH = 1024
Matrix = npt.NDArray[np.float32]


@torch.no_grad()
def embed(model: FlatModel, x: Tensor) -> tuple[Matrix, Matrix]:
    """Class probabilities (n, classes) and inputs (n, e) of the last linear layer, for inputs ``x`` (n, ...).

    Raises:
        ValueError: the model has no linear layer, or what it says is not finite.
    """
    linear = [module for module in model.module.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("model: active learning embeds by the last linear layer, and this one has none")
    inputs: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0].flatten(1)))
    try:
        with model.unchanged():
            model.module.eval()
            parts = [model(model.own_inputs(part)).softmax(dim=1) for part in x.split(BATCH)]
    finally:
        hook.remove()
    probabilities, embeddings = torch.cat(parts), torch.cat(inputs)
    if not (probabilities.isfinite().all() and embeddings.isfinite().all()):
        raise ValueError("predictions are not finite: training has diverged; lower server_optimizer.lr")
    return probabilities.float().cpu().numpy(), embeddings.float().cpu().numpy()
