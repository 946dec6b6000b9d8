"""One question to each node, and their answers: the one place where the server talks to nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from flwr.serverapp import Grid

from fedbatch.core.visible import visible
from fedbatch.runtime import flower
from fedbatch.wire.check import MessageError, SquaredLengths
from fedbatch.wire.codec import Encoder, Schema, decode_measured

LONGEST = 1000
"""Characters that are told of what is wrong with an answer: its names and reasons are as long as a node likes."""


def shortened(reason: object) -> str:
    """What is told of a reason, in one line that steers no terminal."""
    return visible(str(reason)[:LONGEST])


@dataclass(frozen=True)
class Replies(Generic[Schema]):
    """What came back.

    Attributes:
        answers: valid ones by node, in the order in which they came.
        rejected: the reason for each node whose answer is not used, or that gave none.
    """

    answers: dict[int, Schema]
    rejected: dict[int, str]


def ask(
    grid: Grid,
    plans: Mapping[int, Any],
    kind: type[Schema],
    action: str,
    group: str,
    timeout: float | None,
    lengths: Callable[[Any], Mapping[str, int]],
    check: Callable[[Schema, Any, SquaredLengths], None],
    opened: Callable[[Schema, Any], Schema] = lambda answer, plan: answer,
) -> Replies[Schema]:
    """Send each node its plan and read the answers. Of several answers of a node the first counts.

    Args:
        grid: where the nodes are; with an attribute ``by_reference`` that is true, in this process, so that nothing has
            to be written down.
        plans: one for each node.
        kind: of the answers.
        action: Flower's message type.
        group: Flower's group of the messages.
        timeout: seconds to wait; None for as long as it takes.
        lengths: of the vectors that answer a plan.
        check: raises `MessageError` for an answer that does not fit its plan, by the lengths of its vectors.
        opened: what is kept of an answer that does; may raise it, too.
    """
    answers: dict[int, Schema] = {}
    rejected: dict[int, str] = {}
    encode = Encoder(by_reference=getattr(grid, "by_reference", False))
    messages = [grid.create_message(encode(plan), action, node, group) for node, plan in plans.items()]
    waiting = dict(plans)
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        plan = waiting.pop(node, None)
        if plan is None:  # a duplicate or a stray
            continue
        try:
            if reply.has_error():
                raise MessageError(flower.reason(reply.error))
            answer, squares = decode_measured(kind, reply.content, lengths(plan))
            check(answer, plan, squares)
            answers[node] = opened(answer, plan)
        except MessageError as error:
            rejected[node] = shortened(error)
    rejected |= {node: "no answer in time" for node in waiting}
    return Replies(answers, rejected)
