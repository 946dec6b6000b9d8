"""The server of the app: a line of fedbatch, marked."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedbatch.strategy import NoiseScale
from simulations.drop_in.task import Net, test_accuracy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """FedAvg from a fresh model; print what each round measured."""
    torch.manual_seed(0)
    strategy = NoiseScale(FedAvg(fraction_train=0.5, fraction_evaluate=0.0))  # the line: it was FedAvg alone
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=int(context.run_config["num-rounds"]),
        train_config=ConfigRecord({"batch-size": 16}),
        evaluate_fn=evaluate,
    )
    print("round  accuracy  clients  noise scale (clients)")
    for round_, seen in result.train_metrics_clientapp.items():
        accuracy = result.evaluate_metrics_serverapp[round_]["accuracy"]
        scale, low, high = (seen[name] for name in ("noise_scale", "noise_scale_low", "noise_scale_high"))
        print(f"{round_:>5}  {accuracy:>8.3f}  {seen['batch_clients']:>7.0f}  {scale:.3g} [{low:.3g}, {high:.3g}]")


def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
    """Accuracy of the global model."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"accuracy": test_accuracy(net)})
