"""What is measured of the model between rounds: all that the experimenter pays for, and no client's device."""

import math

from fedbatch.config.schema import RunConfig
from fedbatch.metrics.evaluate import example_sums
from fedbatch.models.attention import attention_logits
from fedbatch.server import temperature as posthoc
from fedbatch.server.average import Average, average_scores
from fedbatch.server.client_scores import of_clients
from fedbatch.server.held_out import HeldOut
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState

ATTENTION_EXAMPLES = 32  # sequences on which the largest logits are looked for


def evaluate(server: Server, state: ServerState, average: Average, is_due: bool) -> Row:
    """Scores of the test split, NaN in rounds without; and what else was asked for, absent in rounds without.

    Args:
        server: has the parameters after the round.
        state: before it, but for what clients keep.
        average: of parameters, after it.
        is_due: whether the model is evaluated in this round.
    """
    config = server.task.config
    if not is_due:
        return dict.fromkeys(["test_loss", *(f"test_{each.name}" for each in server.task.learning.scores)], math.nan)
    tests = on_server(server) | average_scores(server, average)
    return tests | (held_out(server, state) if config.client_holdout else {})


def is_evaluated(config: RunConfig, round_: int) -> bool:
    """Whether the model is evaluated after a round, be it the last or not."""
    every = config.evaluate_every_rounds
    return bool(every) and (round_ + 1) % every == 0


def on_server(server: Server) -> Row:
    """Scores of what the server itself has: test sets, examples of the training set, sizes of attention."""
    task, model = server.task, server.optimizer.model
    row: Row = dict(task.scores(example_sums(model, task.loss, task.of_each, task.test_x, task.test_y), "test_"))
    if task.calibration is not None:
        scores = task.calibration.columns(posthoc.test_pool(server))
        row = {f"test_{name}": value for name, value in scores.items()} | row
    for name, (x, y) in server.evaluation_sets.items():
        row |= task.scores(example_sums(model, task.loss, task.of_each, x, y), f"test_{name}_")
    if task.config.training_set_examples:
        own = example_sums(model, task.loss, task.of_each, *task.training_set_sample())
        row |= task.scores(own, "training_set_")
    if task.config.record_attention:
        sizes = attention_logits(model.module, task.test_x[:ATTENTION_EXAMPLES])
        row |= {name: values.tolist() for name, values in vars(sizes).items()}
    return row


def held_out(server: Server, state: ServerState) -> Row:
    """Scores of what clients hold out; with privacy, which does not cover them, none."""
    if server.task.privacy is not None:
        return {}
    row: Row = of_clients(server, state)
    if server.task.calibration is not None:
        columns = server.task.calibration.columns(HeldOut(server, state))
        row |= {f"held_out_{name}": value for name, value in columns.items()}
    return row
