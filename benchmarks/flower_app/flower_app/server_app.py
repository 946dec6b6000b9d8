"""FedAvg over all clients; the time is read off between rounds."""

import time

import torch
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_app.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and leave the times at which rounds ended and the final model in a file."""
    config = context.run_config
    torch.manual_seed(config["seed"])
    ends: list[float] = []  # of the rounds, from 0 on
    replies: list[int] = []  # FedAvg goes on without the clients that fail, so count those that don't

    def count(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
        replies.append(len(contents))
        return MetricRecord({"replies": len(contents)})

    # FedAvg calls evaluate_fn before the first round and after every round.
    result = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, train_metrics_aggr_fn=count).start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=lambda server_round, arrays: ends.append(time.monotonic()),
    )
    state = result.arrays.to_torch_state_dict()
    torch.save({"ends": ends, "replies": replies, "state": state}, config["result"])
