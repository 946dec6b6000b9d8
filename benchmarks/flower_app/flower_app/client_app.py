"""One client a message: load the model, train an epoch, send the model back."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_app.task import Net, load_partition, train

app = ClientApp()


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train on this client's examples."""
    config = context.run_config
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loader = load_partition(config["data"], context.node_config["partition-id"], config["batch-size"])
    torch.set_num_threads(1)  # clients run side by side, one a processor
    loss = train(net, loader, config["local-epochs"], config["learning-rate"])
    metrics = {"train_loss": loss, "num-examples": len(loader.dataset)}
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)
