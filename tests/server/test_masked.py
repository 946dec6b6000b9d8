"""Secure aggregation: the opened sum is the plain one, whoever drops out, and what each side refuses."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from scipy import stats

from fedbatch import client_app, server_app
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.masking import keys, shares
from fedbatch.node.private import train_private
from fedbatch.runtime.flower import new_context, new_run, stamp
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.collect_private import make_plans
from fedbatch.server.masked import open_sum
from fedbatch.server.plausible import check_private
from fedbatch.server.session import Asker
from fedbatch.setup import task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import ByReference, encode
from fedbatch.wire.held_out import SlopePlan
from fedbatch.wire.masks import DealPlan, KeysPlan, MaskedPlan, UnmaskPlan
from fedbatch.wire.messages import PrivatePlan
from tests.conftest import run as run_whole

BITS = 30
MASKED = (
    "privacy=example_distributed",
    "privacy.secure_aggregation=masked",
    "privacy.quantum=0.01",
    f"privacy.bits={BITS}",
    "privacy.min_clients=4",
    "privacy.target_epsilon=null",
    "privacy.noise_multiplier=1.0",
    "executor=fused",
)
QUESTIONS = ("query.keys", "query.deal", "train", "query.unmask")


@dataclass
class Meddling:
    """A Grid on which some nodes do not answer some questions, or answer something else."""

    grid: LocalGrid
    silent: dict[str, set[int]] = field(default_factory=dict)
    changes: dict[str, Callable[[Any, int], Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    seen: list[tuple[str, int, Any]] = field(default_factory=list)

    by_reference = True

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            self.sent.append(kind)
            if node in self.silent.get(kind, ()):
                continue
            (reply,) = self.grid.send_and_receive([message])
            if not reply.has_error() and kind != "query":
                answer = reply.content.message
                if kind in self.changes:
                    answer = self.changes[kind](answer, node)
                self.seen.append((kind, node, answer))
                reply = stamp(Message(ByReference(answer), reply_to=message), "m")
            yield reply


@dataclass
class Scene:
    loaded: Any
    server: Any
    state: Any
    grid: Meddling
    plans: dict[int, PrivatePlan]
    asker: Asker

    def open(self):
        privacy, phase = self.server.task.privacy, self.server.phase(self.state.control)
        check = partial(check_private, self.server, privacy, phase)
        fewest = privacy.mechanism.fewest_clients
        return open_sum(self.asker, self.plans, BITS, privacy.num_extras(phase), fewest, check)

    def plain(self, nodes=None):
        """The sum in plain integers of what nodes would send without masks."""
        parts = [
            train_private(plan, self.loaded, self.loaded.privacy)
            for node, plan in self.plans.items()
            if nodes is None or node in nodes
        ]
        columns = [torch.cat([p.update_sum, p.extra_sums]).tolist() for p in parts]
        half = 2 ** (BITS - 1)
        return [(sum(int(v) for v in row) + half) % (2 * half) - half for row in zip(*columns, strict=True)]


@pytest.fixture
def scene(make_config):
    def make(nodes=5, *overrides):
        config = make_config("controller=fixed", f"nodes={nodes}", "cohort_size=12", *MASKED, *overrides)
        loaded = task.load(config.to_json())
        grid = Meddling(LocalGrid(client_app.app, nodes, {"config": config.to_json()}))
        server = server_app.new_server(loaded, grid)
        state = server_app.start(server)
        grid.sent.clear()
        cohort = server.hosts.clients[[0, 1, 4, 5, 6, 8, 9, 12, 13, 16, 18, 19]]
        plans = make_plans(server, state, server.phase(state.control), cohort, 0, "")
        return Scene(loaded, server, state, grid, plans, Asker(grid, plans, None, 0))

    return make


def values(opened):
    return torch.cat([opened.update_sum, opened.extra_sums]).tolist()


def test_the_opened_sum_is_the_plain_sum_of_integers(scene):
    made = scene()
    opened = made.open()
    assert values(opened) == made.plain() and opened.clients.tolist() == sorted(
        np.concatenate([p.clients for p in made.plans.values()]).tolist()
    )
    assert not made.asker.rejected and max(map(abs, values(opened))) > 100
    assert made.grid.sent == [kind for kind in QUESTIONS for _ in range(5)]


@pytest.mark.parametrize("question", QUESTIONS)
def test_two_of_five_nodes_drop_out_before_any_question(scene, question):
    made = scene()
    first, *_, last = made.plans
    made.grid.silent = {question: {first, last}}
    opened = made.open()
    stayed = set(made.plans) if question == "query.unmask" else set(made.plans) - {first, last}
    assert values(opened) == made.plain(stayed)
    assert set(made.asker.rejected) == {first, last}


def test_nodes_drop_out_one_after_the_other(scene):
    made = scene(7)
    nodes = list(made.plans)
    made.grid.silent = {"query.deal": {nodes[0]}, "train": {nodes[3]}, "query.unmask": {nodes[5]}}
    assert values(made.open()) == made.plain(set(nodes) - {nodes[0], nodes[3]})


@pytest.mark.parametrize("question", QUESTIONS[1:])
def test_nothing_is_opened_when_more_than_half_are_gone(scene, question):
    made = scene()
    made.grid.silent = {question: set(list(made.plans)[:3])}
    with pytest.raises(
        RunFailedError, match=r"secure aggregation: 2 nodes .*, and 3 are needed, so nothing was opened"
    ):
        made.open()
    if question != "query.unmask":
        assert "query.unmask" not in made.grid.sent


def test_nothing_is_opened_for_fewer_clients_than_carry_the_noise(scene):
    made = scene(5, "privacy.min_clients=11")
    made.grid.silent = {"train": {next(iter(made.plans))}}
    with pytest.raises(RunFailedError, match=r"fewer than privacy.min_clients=11, so their sum has too little noise"):
        made.open()
    assert "query.unmask" not in made.grid.sent


def test_what_the_server_sees_of_a_node_is_uniform_and_other_in_each_session(scene):
    made = scene(3)
    made.open(), made.open()
    rows = [np.array(values(a)) for kind, _, a in made.grid.seen if kind == "train"]
    for row in rows:
        counts = np.bincount(((row + 2 ** (BITS - 1)) // 2 ** (BITS - 4)).astype(int), minlength=16)
        assert stats.chisquare(counts).pvalue > 1e-6
    alike = np.corrcoef(rows)[~np.eye(len(rows), dtype=bool)]
    assert abs(alike).max() < 6 / len(rows[0]) ** 0.5


def test_no_secret_of_a_node_is_in_what_it_sends(scene, monkeypatch):
    made = scene(3)
    secrets = []
    monkeypatch.setattr(keys, "new_secret", lambda: secrets.append(os.urandom(32)) or secrets[-1])
    made.grid.silent = {"train": {next(iter(made.plans))}}
    made.open()
    told = b"".join(v.tobytes() for _, _, a in made.grid.seen for v in vars(a).values() if isinstance(v, np.ndarray))
    assert len(secrets) >= 9 and not any(secret in told for secret in secrets)


# What a node may not do


def changed(name, value):
    def change(answer, node):
        new = getattr(answer, name).copy()
        new[:] = value(new) if callable(value) else value
        return replace(answer, **{name: new})

    return change


def of_one(made, change, place=1):
    node = list(made.plans)[place]
    return lambda answer, asked: change(answer, asked) if asked == node else answer


def test_a_share_that_nobody_dealt_is_left_out_and_its_sender_named(scene):
    made = scene()
    made.grid.changes = {"query.unmask": of_one(made, changed("shares", lambda s: s ^ 1))}
    assert values(made.open()) == made.plain()
    liar = list(made.plans)[1]
    assert made.asker.rejected == {liar: "it sent a share that nobody dealt"}


def test_a_dealer_whose_shares_cannot_be_read_is_named(scene):
    made = scene()
    made.grid.changes = {"query.deal": of_one(made, changed("sealed", lambda s: s ^ 1))}
    liar = list(made.plans)[1]
    with pytest.raises(RunFailedError, match=f"good shares of a secret of node {liar}"):
        made.open()
    assert made.asker.rejected == {liar: "it sealed what its readers cannot read"}


def test_a_dealer_that_has_committed_to_another_secret_is_named(scene):
    made = scene()
    made.grid.changes = {"query.deal": of_one(made, changed("commitment", 0))}
    with pytest.raises(RunFailedError, match=f"node {list(made.plans)[1]} dealt shares that do not give back"):
        made.open()


def test_a_sum_that_clipping_does_not_allow_is_refused_though_masks_hide_whose(scene):
    made = scene()

    def noise(answer, _):
        return replace(answer, update_sum=torch.randint(-(2**29), 2**29, answer.update_sum.shape).double())

    made.grid.changes = {"train": of_one(made, noise)}
    with pytest.raises(RunFailedError, match="the opened sum cannot be .*masks hide which"):
        made.open()


@pytest.mark.parametrize(
    ("question", "change", "says"),
    [
        ("query.keys", changed("mask_key", 0), "mask_key is no key to agree with"),
        ("query.keys", lambda a, _: replace(a, seal_key=a.mask_key), "mask_key and seal_key are the same"),
        ("query.keys", lambda a, _: replace(a, mask_key=a.mask_key[:5]), "mask_key must have length 32"),
        ("query.deal", lambda a, _: replace(a, digests=a.digests[1:]), "digests must have length"),
        ("train", lambda a, _: replace(a, update_sum=a.update_sum + 0.5), "must be whole numbers modulo 2"),
        ("train", lambda a, _: replace(a, update_sum=a.update_sum * 2**20), "must be whole numbers modulo 2"),
        ("train", lambda a, _: replace(a, update_sum=a.update_sum.float()), "must be float64"),
        ("train", lambda a, _: replace(a, round=7), "round is 7"),
        ("train", lambda a, _: replace(a, clients=a.clients[:1]), "clients are not those"),
        ("query.unmask", lambda a, _: replace(a, shares=a.shares[1:]), "shares must have length"),
    ],
)
def test_what_is_not_valid_is_left_out_and_the_others_go_on(scene, question, change, says):
    made = scene()
    made.grid.changes = {question: of_one(made, change)}
    opened = made.open()
    bad = list(made.plans)[1]
    stayed = set(made.plans) - ({bad} if question != "query.unmask" else set())
    assert values(opened) == made.plain(stayed) and says in made.asker.rejected[bad]


# What a server may not ask


class Node:
    """One node of a run, asked directly; the other nodes' keys are made here."""

    def __init__(self, config, others=2, place=0):
        new_run()  # a message knows its sender by it
        self._config, self.place, self._sent = config, place, 0
        self.context = new_context(1, 2, {"partition-id": 0, "num-partitions": 3, "trust": "*"}, {"config": config})
        self.clients = np.arange(6, dtype=np.int64)
        self.private = [keys.new_secret() for _ in range(2 * others)]

    def ask(self, plan, kind):
        self._sent += 1
        message = stamp(Message(encode(plan), 2, kind, group_id="0"), f"n{self._sent}")
        return client_app.app(message, self.context).content

    def begin(self, session="s"):
        record = self.ask(KeysPlan(self.clients, session), "query.keys")["clients"]
        return record["mask_key"].numpy(), record["seal_key"].numpy()

    def deal_plan(self, session="s"):
        own = self.begin(session)
        others = [np.frombuffer(keys.public_key(k), np.uint8) for k in self.private]
        return DealPlan(
            self.clients,
            session,
            0,
            2,
            np.array([6, 7, 7]),
            np.concatenate([own[0], *others[:2]]),
            np.concatenate([own[1], *others[2:]]),
        )

    def masked_plan(self, params, session="s", **changes):
        plan = MaskedPlan(params, self.clients, 0, "fixed", 12, 1.0, "fused", session=session, dealers=np.arange(3))
        return replace(plan, **changes)

    def sealed(self, dealt):
        return np.concatenate([dealt["sealed"].numpy()[: shares.SEALED]] * 3)


@pytest.fixture
def node(make_config):
    config = make_config("controller=fixed", "nodes=3", "cohort_size=12", *MASKED)
    made = Node(config.to_json())
    made.params = task.load(config.to_json()).new_model().params
    return made


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threshold": 1}, "threshold must be more than half"),
        ({"threshold": 4}, "threshold must be more than half"),
        ({"place": 1}, "at its place"),
        ({"place": 3}, "place must be in 0 .. 2"),
        ({"session": "other"}, "no such session"),
        ({"sizes": np.array([5, 7, 7])}, "sizes are not this node's"),
        ({"mask_keys": np.zeros(96, np.uint8)}, "two keys are the same"),
        ({"mask_keys": np.zeros(95, np.uint8)}, "keys must be 32 bytes"),
        ({"sizes": np.array([6]), "threshold": 1}, "a session has two nodes at least"),
    ],
)
def test_a_node_deals_no_shares_to_a_session_that_is_none(node, changes, says):
    with pytest.raises(MessageError, match=says):
        node.ask(replace(node.deal_plan(), **changes), "query.deal")


def test_a_node_whose_key_was_swapped_refuses_and_so_it_does_a_second_deal(node):
    plan = node.deal_plan()
    swapped = plan.mask_keys.copy()
    swapped[:32] = np.frombuffer(keys.public_key(keys.new_secret()), np.uint8)
    with pytest.raises(MessageError, match="keys are not this node's at its place"):
        node.ask(replace(plan, mask_keys=swapped), "query.deal")
    node.ask(plan, "query.deal")
    with pytest.raises(MessageError, match="dealt before"):
        node.ask(plan, "query.deal")


def test_a_node_masks_one_sum_a_session(node):
    with pytest.raises(MessageError, match="no such session"):
        node.ask(node.masked_plan(node.params), "train")
    node.begin()
    with pytest.raises(MessageError, match="no shares of this session were dealt"):
        node.ask(node.masked_plan(node.params), "train")
    node.ask(node.deal_plan(), "query.deal")
    for changes, says in (
        ({"dealers": np.array([0])}, "fewer than the threshold"),
        ({"dealers": np.array([1, 2])}, "without this node"),
        ({"dealers": np.array([0, 3])}, "must be places of this session"),
        ({"clients": np.arange(5)}, "clients are not those of the session"),
    ):
        with pytest.raises(MessageError, match=says):
            node.ask(node.masked_plan(node.params, **changes), "train")
    node.ask(node.masked_plan(node.params), "train")
    with pytest.raises(MessageError, match="has masked a sum before"):
        node.ask(node.masked_plan(node.params * 2), "train")


def test_a_node_helps_to_open_one_sum_a_session_and_none_with_too_little_noise(node):
    dealt = node.ask(node.deal_plan(), "query.deal")["clients"]
    everyone = np.arange(3)
    plan = UnmaskPlan(node.clients, "s", everyone, everyone, node.sealed(dealt))
    with pytest.raises(MessageError, match="masked no sum"):
        node.ask(plan, "query.unmask")
    node.ask(node.masked_plan(node.params), "train")
    for changes, says in (
        ({"survivors": np.array([0])}, "fewer than the threshold"),
        ({"survivors": np.array([1, 2])}, "without this node"),
        ({"dealers": np.array([0, 1])}, "dealers are not those"),
        ({"session": "t"}, "no such session"),
        ({"sealed": plan.sealed[1:]}, "sealed must be 80 bytes"),
    ):
        with pytest.raises(MessageError, match=says):
            node.ask(replace(plan, **changes), "query.unmask")
    answer = node.ask(plan, "query.unmask")["clients"]["shares"].numpy()
    assert answer[:32].any() and not answer[32:].any()  # of its own seed; what others sealed is not for it
    assert np.array_equal(node.ask(plan, "query.unmask")["clients"]["shares"].numpy(), answer)
    with pytest.raises(MessageError, match="opened the sum of other nodes"):
        node.ask(replace(plan, survivors=np.array([0, 1])), "query.unmask")


def test_a_node_with_fewer_clients_than_carry_the_noise_does_not_help(make_config):
    config = make_config("controller=fixed", "nodes=3", "cohort_size=20", *MASKED, "privacy.min_clients=20")
    made = Node(config.to_json())
    params = task.load(config.to_json()).new_model().params
    dealt = made.ask(made.deal_plan(), "query.deal")["clients"]
    made.ask(made.masked_plan(params, cohort_size=20), "train")
    plan = UnmaskPlan(made.clients, "s", np.array([0, 1]), np.arange(3), made.sealed(dealt))
    with pytest.raises(MessageError, match="13 clients, fewer than privacy.min_clients=20"):
        made.ask(plan, "query.unmask")


def test_a_node_gives_no_plain_sum_in_a_masked_run(node):
    plain = PrivatePlan(node.params, node.clients, 0, "fixed", 12, 1.0, "fused")
    with pytest.raises(MessageError, match="expected a MaskedPlan"):
        node.ask(plain, "train")
    slope = SlopePlan(node.params, node.clients, 1.0, 1.0, 0, "slope", 0, "")
    with pytest.raises(MessageError, match="no noise for single answers"):
        node.ask(slope, "evaluate.sums")


# Whole runs


def test_a_run_is_the_same_however_messages_travel_and_how_many_nodes_drop_out(make_config):
    wanted = ("controller=fixed", "nodes=4", "cohort_size=12", "rounds=3", *MASKED)
    whole = run_whole(make_config(*wanted, folder="whole"))
    again = run_whole(make_config(*wanted, folder="again"))
    written = run_whole(make_config(*wanted, "runtime.by_reference=false", folder="written"))
    assert whole[1]["params_sha256"] == again[1]["params_sha256"] == written[1]["params_sha256"]
    faulty = run_whole(make_config(*wanted, "faults=some", "faults.crash=0.25", folder="faulty"))
    assert faulty[0][-1]["rejected_replies"] > 0 and np.isfinite(faulty[1]["test_loss"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["privacy.quantum=null"], "set privacy.quantum=0.001"),
        (["privacy.noise_multiplier=0"], "a noise_multiplier above 0"),
        (["nodes=1"], "set nodes=3 or more"),
        (["privacy.accuracy_noise=10", "client_holdout=0.2"], "privacy.accuracy_noise: its sums are not masked"),
        (["privacy.secure_aggregation=yes"], "set it to masked"),
    ],
)
def test_what_masks_cannot_do_is_refused(make_config, overrides, says):
    with pytest.raises(ConfigError, match=says):
        task.load(make_config("controller=fixed", "nodes=3", "cohort_size=12", *MASKED, *overrides).to_json())


def test_a_masked_round_that_is_done_again_has_other_noise_and_is_charged_again(make_config):
    config = make_config("controller=fixed", "nodes=3", "cohort_size=12", "rounds=2", *MASKED)
    loaded = task.load(config.to_json())
    grid = LocalGrid(client_app.app, 3, {"config": config.to_json()})
    server = server_app.new_server(loaded, grid)
    state = server_app.start(server)
    from fedbatch.server.collect_private import collect_private
    from fedbatch.server.stopwatch import Stopwatch

    server.folder.mkdir(parents=True, exist_ok=True)
    phase = server.phase(state.control)
    once = collect_private(server, loaded.privacy, state, phase, Stopwatch(coarse=True))
    resumed = replace(state, ledger=once.changes["ledger"])
    again = collect_private(server, loaded.privacy, resumed, phase, Stopwatch(coarse=True))
    assert [r.attempt for r in again.changes["ledger"].releases] == [0, 1]
    assert not torch.equal(once.update, again.update)
