"""The clients of the app: nothing of fedbatch."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulations.drop_in.task import Net, load_data, train

app = ClientApp()


@app.train()
def train_model(message: Message, context: Context) -> Message:
    """Train the model of the server on the data of this client."""
    net = Net()
    net.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    batch_size = message.content.config_records["config"]["batch-size"]
    assert isinstance(batch_size, int)
    x, y = load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    loss = train(net, x, y, epochs=1, batch_size=batch_size, lr=0.1)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y)})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)
