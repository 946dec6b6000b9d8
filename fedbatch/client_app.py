"""The Flower ClientApp: decode, do the work for the clients this node hosts, encode."""

import json
from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedbatch.config.compose import config_json
from fedbatch.config.schema import from_json
from fedbatch.config.trust import EVERYTHING, ON_A_NODE, refuse_overrides, refuse_strangers, trusted_by
from fedbatch.core.errors import ConfigError
from fedbatch.data.meaning import written
from fedbatch.node import held_out as node_held_out
from fedbatch.node import masked
from fedbatch.node import query as active_node
from fedbatch.node import train as node
from fedbatch.node.budget import admit, budget_of, with_own_secret
from fedbatch.node.labels import NodeFiles
from fedbatch.node.plausible import check_hosted, check_private_plan, check_round, check_work
from fedbatch.node.private import train_private
from fedbatch.setup import task
from fedbatch.setup.nodes import hosted_clients, on_own_data
from fedbatch.setup.task import Task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode, reply
from fedbatch.wire.held_out import EvaluatePlan, SlopePlan, SumsPlan
from fedbatch.wire.masks import DealPlan, KeysPlan, MaskedPlan, UnmaskPlan
from fedbatch.wire.messages import Hosted, PrivatePlan, TrainPlan

app = ClientApp()


@app.query()
def hosted(message: Message, context: Context) -> Message:
    """The clients of this node."""
    run = load(context)
    clients = hosted_clients(len(run.partition), context.node_config)
    meaning = written(run.meaning) if "data" in context.node_config else ""
    answer = Hosted(clients, run.partition.sizes(clients), run.frozen, meaning)
    return Message(reply(answer, message.content), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The summed update of the clients named in the plan."""
    run = load(context)
    lengths = {"params": run.node_model.params.numel(), "buffers": run.node_model.buffers.numel()}
    if run.privacy is not None:
        mechanism = run.privacy.mechanism
        kind = MaskedPlan if mechanism.masks else PrivatePlan
        private_plan = decode(kind, message.content, {"params": lengths["params"]})
        check_hosted(private_plan.clients, run, context.node_config)
        check_round(private_plan.round, run)
        check_private_plan(private_plan, run)
        charge(private_plan, run, context)
        run = active_node.on_labels(run, files(run, context), private_plan.round)
        assert run.privacy is not None
        answer = train_private(private_plan, run, run.privacy)
        if isinstance(private_plan, MaskedPlan) and mechanism.lattice is not None:
            answer = masked.mask(answer, private_plan, context.state, mechanism.lattice.bits)
        return Message(reply(answer, message.content), reply_to=message)
    plan = decode(TrainPlan, message.content, lengths)
    check_hosted(plan.clients, run, context.node_config)
    check_round(plan.round, run)
    check_work(plan, run)
    run = active_node.on_labels(run, files(run, context), plan.round)
    return Message(reply(node.train(plan, run), message.content), reply_to=message)


@app.query("keys")
def keys(message: Message, context: Context) -> Message:
    """Public keys of this node for a session of secure aggregation."""
    plan = decode(KeysPlan, message.content)
    check_hosted(plan.clients, masking(context), context.node_config)
    return Message(reply(masked.begin(plan, context.state), message.content), reply_to=message)


@app.query("deal")
def deal(message: Message, context: Context) -> Message:
    """Shares of this node's secrets for the other nodes."""
    plan = decode(DealPlan, message.content)
    check_hosted(plan.clients, masking(context), context.node_config)
    return Message(reply(masked.deal(plan, context.state), message.content), reply_to=message)


@app.query("unmask")
def unmask(message: Message, context: Context) -> Message:
    """This node's shares of what masks the sum of the nodes that the plan names."""
    run, plan = masking(context), decode(UnmaskPlan, message.content)
    assert run.privacy is not None
    least = run.privacy.mechanism.fewest_clients
    return Message(reply(masked.unmask(plan, context.state, least), message.content), reply_to=message)


@app.query("active")
def active(message: Message, context: Context) -> Message:
    """Scores, clusters and labels of the unlabelled pools of this node."""
    run = load(context)
    return Message(active_node.answer(message.content, run, files(run, context)), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Sums of the loss and of the scores on the held-out part of the clients named in the plan."""
    run = load(context)
    if run.privacy is not None:
        raise MessageError("a private run does not tell scores of clients' own data")
    plan = decode(EvaluatePlan, message.content, {"at": len(run.learning.at)})
    check_hosted(plan.clients, run, context.node_config)
    return Message(reply(node.evaluate(plan, run), message.content), reply_to=message)


@app.evaluate("sums")
def sums(message: Message, context: Context) -> Message:
    """Sums over the held-out part of the clients named in the plan; in a private run, of clipped slopes alone."""
    run = load(context)
    if run.privacy is not None:
        if run.privacy.mechanism.masks:
            raise MessageError("a run whose sums are masked has no noise for single answers")
        private_plan = decode(SlopePlan, message.content, {"params": run.node_model.params.numel()})
        check_hosted(private_plan.clients, run, context.node_config)
        check_round(private_plan.round, run)
        charge(private_plan, run, context)
        return Message(
            reply(node_held_out.noised_slope(private_plan, run, run.privacy), message.content), reply_to=message
        )
    return Message(reply(node_held_out.sums(sums_plan(message, run, context), run), message.content), reply_to=message)


@app.evaluate("temperatures")
def temperatures(message: Message, context: Context) -> Message:
    """The own temperature of each client named in the plan."""
    run = load(context)
    if run.privacy is not None:
        raise MessageError("a private run does not tell a client's own temperature")
    return Message(
        reply(node_held_out.temperatures(sums_plan(message, run, context), run), message.content), reply_to=message
    )


def sums_plan(message: Message, run: Task, context: Context) -> SumsPlan:
    """The plan in a message about held-out examples of this node's clients."""
    lengths = {"params": run.node_model.params.numel(), "buffers": run.node_model.buffers.numel()}
    plan = decode(SumsPlan, message.content, lengths)
    check_hosted(plan.clients, run, context.node_config)
    return plan


def masking(context: Context) -> Task:
    """What this node works with, in a run whose sums are masked.

    Raises:
        MessageError: they are not.
    """
    run = load(context)
    if run.privacy is None or not run.privacy.mechanism.masks:
        raise MessageError("this run has no secure aggregation")
    return run


def charge(plan: PrivatePlan | SlopePlan, run: Task, context: Context) -> None:
    """Charge a release to the node's own budget, if its owner has set one.

    Raises:
        MessageError: the budget does not pay for it.
    """
    if (budget := budget_of(context.node_config)) is not None:
        admit(budget, plan, run)


def files(run: Task, context: Context) -> NodeFiles:
    """Where this node keeps its labels."""
    return active_node.files_of(run, context.node_config.get("partition-id", 0))


def load(context: Context) -> Task:
    """What this node works with.

    Raises:
        ConfigError: the config names code that this node does not trust, or cannot be run; names the partition-id, for
            nobody knows a machine by the number that Flower gives it.
    """
    try:
        return loaded(context)
    except ConfigError as error:
        raise ConfigError(f"partition-id {context.node_config.get('partition-id')}: {error}") from error


def loaded(context: Context) -> Task:
    """What this node works with; as `load`."""
    given = context.run_config
    text = allowed(str(given.get("config") or ""), str(given.get("overrides", "")), trusted_by(context.node_config))
    if budget_of(context.node_config) is not None:
        text = with_own_secret(text, context.node_config)
    if "data" in context.node_config:
        text = on_own_data(from_json(text), context.node_config).to_json()
    run = task.load(text)
    if run.privacy is not None and "data" in context.node_config:
        raise ConfigError("node-config data: a private run takes client sizes from its config; leave data out")
    return run


@lru_cache(maxsize=4)
def allowed(config: str, overrides: str, trusted: tuple[str, ...]) -> str:
    """The resolved config of a run, once this node trusts all that it names; looked at once a run, not a message.

    Raises:
        ConfigError: the config names code that this node does not trust.
    """
    given = {"config": config, "overrides": overrides}
    if EVERYTHING in trusted:
        return config_json(given)
    refuse_overrides("" if config else overrides)
    text = config_json(given)
    refuse_strangers(json.loads(text), trusted, ON_A_NODE)
    return text
