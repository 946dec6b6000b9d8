"""The Flower ClientApp: decode, do the work for the clients this node hosts, encode."""

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedbatch import node, task
from fedbatch.compose import config_json
from fedbatch.messages import EvaluatePlan, Hosted, PrivatePlan, TrainPlan, decode, encode
from fedbatch.node_private import train_private

app = ClientApp()


@app.query()
def hosted(message: Message, context: Context) -> Message:
    """The clients of this node: an equal, contiguous share of the population."""
    run = task.load(config_json(context.run_config))
    index, count = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    clients = np.array_split(np.arange(len(run.partition), dtype=np.int64), count)[index]
    return Message(encode(Hosted(clients, run.partition.sizes(clients))), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The summed update of the clients named in the plan."""
    run = task.load(config_json(context.run_config))
    lengths = {"params": run.node_model.params.numel(), "buffers": run.node_model.buffers.numel()}
    if run.privacy is not None:
        private_plan = decode(PrivatePlan, message.content, {"params": lengths["params"]})
        return Message(encode(train_private(private_plan, run, run.privacy)), reply_to=message)
    plan = decode(TrainPlan, message.content, lengths)
    return Message(encode(node.train(plan, run)), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy on the held-out part of the clients named in the plan."""
    run = task.load(config_json(context.run_config))
    plan = decode(EvaluatePlan, message.content)
    return Message(encode(node.evaluate(plan, run)), reply_to=message)
