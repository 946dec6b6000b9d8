"""``python -m benchmarks.secure_aggregation``: what masks cost a node and the server, by nodes and parameters.

CPU seconds of one round without the training: a node's keys, shares, masks and unmasking, and the server's opening of
the sum, when nobody drops out and when a third of the nodes do before they send their masked sum.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from fedbatch.node import masked as node
from fedbatch.server.masked import deal
from fedbatch.server.session import Session
from fedbatch.server.unmask import collect_secrets, unmasked
from fedbatch.wire.codec import array_bytes
from fedbatch.wire.masks import MaskedPlan
from fedbatch.wire.messages import PrivateContribution, PrivatePlan

BITS = 32
CASES = [(nodes, size) for size in (100_000, 1_000_000) for nodes in (4, 16, 64)]
ANSWERS: dict[str, Callable[..., Any]] = {
    "query.keys": node.begin,
    "query.deal": node.deal,
    "query.unmask": lambda plan, state: node.unmask(plan, state, 1),
}


@dataclass
class Nodes:
    """Asks nodes in this process; takes the seconds and bytes of one of them, the last."""

    states: dict[int, RecordDict]
    seconds: float = 0.0
    sent: int = 0

    def __post_init__(self) -> None:
        self.rejected: dict[int, str] = {}

    def __call__(self, plans: Mapping[int, Any], kind: type, action: str, *_: Any) -> dict[int, Any]:
        """The answers of all nodes."""
        return {name: self.timed(name, ANSWERS[action], plan) for name, plan in plans.items()}

    def timed(self, name: int, act: Callable[..., Any], plan: Any) -> Any:
        """What a node answers."""
        start = time.process_time()
        answer = act(plan, self.states[name])
        if name == max(self.states):
            self.seconds += time.process_time() - start
            self.sent += array_bytes(answer)
        return answer


def measure(nodes: int, size: int, dropped: int) -> dict[str, float]:
    """Seconds of a node and of the server, and what a node sends beside its sum, in a round in which some drop out.

    Raises:
        ValueError: the opened sum is not the plain one.
    """
    asker: Any = Nodes({name: RecordDict() for name in range(nodes)})
    params = torch.zeros(size)
    plans = {
        name: PrivatePlan(params, np.array([name]), 0, "fixed", nodes, 1.0, "fused", 0, "") for name in range(nodes)
    }
    session: Session = deal(plans, asker)
    generator = np.random.default_rng(0)
    sums, plain = {}, np.zeros(size + 1)
    for name in range(dropped, nodes):
        own = generator.integers(-1000, 1000, size + 1).astype(float)
        plain += own
        answer = PrivateContribution(
            torch.from_numpy(own[:size]), torch.from_numpy(own[size:]), plans[name].clients, "fused", 0
        )
        plan = MaskedPlan(**vars(plans[name]), session=session.name, dealers=np.arange(nodes))
        before = time.process_time()
        sums[name] = node.mask(answer, plan, asker.states[name], BITS)
        if name == nodes - 1:
            asker.seconds += time.process_time() - before
    opening = time.process_time()
    secrets = collect_secrets(session, sums, asker)
    total = unmasked(session, sums, secrets, BITS)
    if not np.array_equal(total.numpy(), plain):
        raise ValueError("the opened sum is not the plain one")
    return {"node": asker.seconds, "server": time.process_time() - opening, "bytes": asker.sent}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secure_aggregation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four nodes and a small model")
    cases = [(4, 1000)] if parser.parse_args().quick else CASES
    torch.set_num_threads(1)
    columns = ("parameters", "nodes", "a node, s", "server, s", "server, a third gone, s", "kB beside the sum")
    table = Table(*columns, title="secure aggregation: CPU seconds of one round, without training")
    for nodes, size in cases:
        whole, third = measure(nodes, size, 0), measure(nodes, size, nodes // 3)
        values = (whole["node"], whole["server"], third["server"], whole["bytes"] / 1000)
        table.add_row(f"{size:,}", str(nodes), *(f"{value:.3g}" for value in values))
    Console().print(table, machine(), sep="\n")


if __name__ == "__main__":
    main()
