"""What the server knows of a session of secure aggregation, and how it asks its nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flwr.serverapp import Grid

from fedbatch.core.errors import RunFailedError
from fedbatch.server.ask import ask
from fedbatch.server.exchange import check_clients, refuse_too_few
from fedbatch.server.hosts import in_words
from fedbatch.wire.check import SquaredLengths
from fedbatch.wire.masks import Dealt, Keys, Unmasked
from fedbatch.wire.messages import PrivateContribution, PrivatePlan

Answer = TypeVar("Answer", Keys, Dealt, PrivateContribution, Unmasked)


@dataclass(frozen=True)
class Session:
    """A session as the server knows it, once shares are dealt. Nodes are numbered by place, from 0.

    Attributes:
        name: of the session.
        nodes: of each place.
        keys: of each node.
        threshold: shares that give a secret back.
        dealt: by place, the shares of the nodes that dealt.
    """

    name: str
    nodes: list[int]
    keys: list[Keys]
    threshold: int
    dealt: Mapping[int, Dealt]

    def by_place(self, answers: Mapping[int, Answer]) -> dict[int, Answer]:
        """Answers of nodes, by place."""
        return {place: answers[node] for place, node in enumerate(self.nodes) if node in answers}


class Asker:
    """Asks the nodes of one session, and keeps the reason for each that gave no valid answer.

    Args:
        grid: where the nodes are.
        plans: of the round, one for each node.
        timeout: seconds to wait for each question; None for as long as it takes.
        least: clients without whom the round fails.
    """

    def __init__(self, grid: Grid, plans: Mapping[int, PrivatePlan], timeout: float | None, least: int):
        self._grid, self._plans, self._timeout, self._least = grid, plans, timeout, least
        self._round = next(iter(plans.values())).round
        self.rejected: dict[int, str] = {}

    @property
    def named(self) -> dict[str, str]:
        """The reason for each node, in words, that gave no valid answer."""
        return {in_words(node, self._plans[node].clients): reason for node, reason in self.rejected.items()}

    def __call__(
        self,
        plans: Mapping[int, Any],
        kind: type[Answer],
        action: str,
        lengths: Mapping[str, int],
        check: Callable[[Answer], None] = lambda answer: None,
    ) -> dict[int, Answer]:
        """Valid answers by node.

        Args:
            plans: one for each node.
            kind: of the answers.
            action: Flower's message type.
            lengths: of the vectors of an answer.
            check: raises `MessageError` for an answer that cannot be.

        Raises:
            NoAnswerError: they are of fewer clients than the run needs.
        """

        def check_all(answer: Answer, plan: Any, _: SquaredLengths) -> None:
            check_clients(answer, plan)
            check(answer)

        replies = ask(self._grid, plans, kind, action, str(self._round), self._timeout, lambda _: lengths, check_all)
        self.rejected |= replies.rejected
        asked = sum(len(plan.clients) for plan in self._plans.values())
        clients = sum(len(answer.clients) for answer in replies.answers.values())
        silent = not replies.answers
        refuse_too_few(silent, clients, asked, self.named, self._least, self._round, secret=False)
        return replies.answers


def refuse_fewer(number: int, threshold: int, what: str) -> None:
    """Refuse to go on with no more than half of the nodes.

    Raises:
        RunFailedError: they are too few.
    """
    if number < threshold:
        raise RunFailedError(
            f"secure aggregation: {number} nodes {what}, and {threshold} are needed, so nothing was opened; go on "
            "with resume= once enough nodes are there"
        )
