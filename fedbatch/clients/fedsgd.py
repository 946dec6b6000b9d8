"""FedSGD: a client sends one gradient of its mean loss on a batch (McMahan et al. 2017, sec. 2)."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedbatch.clients.draw import Draw, first_slots
from fedbatch.clients.job import Job
from fedbatch.core.random import Ints, key
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class FedSGD:
    """One gradient at the global parameters on ``client_batch_size`` examples, drawn without replacement."""

    is_gradient = True
    is_plain_sgd = True
    is_per_example = False

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """One step of ``batch_sizes[k]`` examples for each client."""
        sizes = partition.sizes(clients)
        counts = np.minimum(batch_sizes, sizes)
        slots = first_slots(key(seed, "batch", round_), clients, sizes, int(counts.max(initial=0)))
        return Draw(partition.lookup(clients[:, None], slots)[:, None, :], counts[:, None])

    def num_examples(self, batch_sizes: Ints, sizes: Ints) -> Ints:
        """One batch each."""
        return np.minimum(batch_sizes, sizes)

    def smallest_batch(self, batch_sizes: Ints, sizes: Ints) -> int:
        """That of the client with the fewest."""
        return int(np.minimum(batch_sizes, sizes).min())

    def num_steps(self, sample_rate: float) -> int:
        """One gradient a round."""
        return 1

    def update(self, job: Job, row: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """The gradient; with ``job.halves``, as the weighted mean of the gradients of two halves of the batch."""
        x, y = job.batch(row, 0)
        if not job.halves or len(y) < 2:
            loss = job.loss_and_gradient(row, 0, x, y)
            return job.model.grads.clone(), loss, None
        cut = len(y) // 2
        loss_1 = job.loss_and_gradient(row, 0, x[:cut], y[:cut])
        half_1 = job.model.grads.clone()
        loss_2 = job.loss_and_gradient(row, 0, x[cut:], y[cut:], first=cut)
        half_2 = job.model.grads.clone()
        share = cut / len(y)
        return half_1 * share + half_2 * (1 - share), loss_1 * share + loss_2 * (1 - share), (half_1, half_2)
