"""After the last round: which classes are taken for which, and how each client fares, as tables in the run folder."""

import logging

import numpy as np
import numpy.typing as npt
import torch

from fedbatch.core.errors import RunFailedError
from fedbatch.metrics.evaluate import predictions
from fedbatch.results.views import write_classes, write_clients
from fedbatch.server.client_scores import ask_clients
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState

MOST_CLASSES = 256
"""Beyond, nobody reads a table of all pairs."""
BATCH = 1024

log = logging.getLogger("fedbatch")


def write_views(server: Server, state: ServerState) -> None:
    """Write what there is to see of the last parameters: classes on the test split, and clients that hold out examples.

    Clients are not told in a private run. Nodes that do not answer any more cost the table, and not the run.
    """
    if (counts := confusion(server)) is not None:
        write_classes(server.folder, counts)
    if not server.task.config.client_holdout or server.task.privacy is not None:
        return
    try:
        write_clients(server.folder, ask_clients(server, state).table, server.task.scoring)
    except RunFailedError as error:
        log.warning("clients.parquet is not written: %s", error)


def confusion(server: Server) -> npt.NDArray[np.int64] | None:
    """Examples of the test split (C, C) by class and by predicted class, of a task that has such; else None."""
    task, model = server.task, server.optimizer.model
    count = getattr(task.learning, "confusion", None)
    if count is None or task.learning.outputs > MOST_CLASSES:
        return None
    with torch.no_grad():
        parts = [count(*pair) for pair in predictions(model, task.test_x, task.test_y, BATCH)]
    whole: npt.NDArray[np.int64] = torch.stack(parts).sum(dim=0).cpu().numpy()
    return whole
