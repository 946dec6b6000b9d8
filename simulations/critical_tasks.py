"""The tasks whose critical batch size is measured."""

from dataclasses import dataclass

CLIENTS = 64
EVALUATIONS = 60  # of a run, about


@dataclass(frozen=True)
class Task:
    """A task and the grid on which it is measured.

    Attributes:
        name: as in tables.
        overrides: of fedbatch.
        examples: N, in the training set.
        goals: loss on the training set, falling.
        batches: rising by equal factors.
        rate: learning rate from which the search starts, at the smallest batch.
        guess: (steps, batch): S_min and B_crit, roughly; they say how often to evaluate and when to give up.
        tokens: of an example; sizes are told in them.
    """

    name: str
    overrides: tuple[str, ...]
    examples: int
    goals: tuple[float, ...]
    batches: tuple[int, ...]
    rate: float
    guess: tuple[int, int]
    tokens: int = 1

    def run_overrides(self, batch: int, rate: float, seed: int) -> list[str]:
        """All overrides of one run: as many clients as there are examples in the batch, up to all clients."""
        clients, expected = min(batch, CLIENTS), self.guess[0] * (1 + self.guess[1] / batch)
        return [
            *("controller=fixed", "executor=fused", "checkpoint_every_rounds=0", f"population={CLIENTS}"),
            *(f"cohort_size={clients}", f"client_batch_size={batch // clients}", "training_set_examples=2000"),
            *(
                "target_metric=training_set_loss",
                f"target_value={0.9 * self.goals[-1]:.4g}",
                "learning_rate.rule=constant",
            ),
            *(f"rounds={int(5 * expected)}", f"evaluate_every_rounds={max(1, int(expected / EVALUATIONS))}"),
            *(f"server_optimizer.lr={rate:.4g}", f"seed={seed}", *self.overrides),
        ]


FACTOR_4 = (4, 16, 64, 256, 1024)
FASHION = ("dataset=fashion_mini", "server_optimizer=sgd")
DIGITS, CANCER = ("dataset=digits", "server_optimizer=sgd"), ("dataset=breast_cancer", "server_optimizer=sgd")
PLAYS = (
    *("dataset=shakespeare_roles", "dataset.context=32", "dataset.test_fraction=0.02", "dataset.min_sequences=64"),
    *("model=gpt", "model.layers=2", "model.heads=2", "model.width=32", "server_optimizer=adam", "partitioner=iid"),
)
CNN = ("model=cnn", "model.channels=8", "model.hidden=32", "model.norm=none")
TASKS = [
    Task("breast_cancer logistic", (*CANCER, "model=logistic"), 455, (0.08, 0.06), (4, 16, 64, 256), 0.5, (15, 60)),
    Task("digits logistic", (*DIGITS, "model=logistic"), 1437, (0.2, 0.1), FACTOR_4, 0.2, (40, 80)),
    Task("digits MLP", (*DIGITS, "model=mlp"), 1437, (0.3, 0.1), FACTOR_4, 0.2, (90, 60)),
    Task("Fashion linear", (*FASHION, "model=logistic"), 10_000, (0.6, 0.5), FACTOR_4, 0.01, (150, 60)),
    Task("Fashion MLP", (*FASHION, "model=mlp"), 10_000, (0.5, 0.35), FACTOR_4, 0.02, (230, 160)),
    Task("Fashion CNN", (*FASHION, *CNN), 10_000, (0.6, 0.45), FACTOR_4, 0.02, (150, 100)),
    Task(
        "Fashion MLP, 20 % random labels",
        (*FASHION, "model=mlp", "dataset.label_noise=0.2"),
        *(10_000, (1.2, 1.1), FACTOR_4, 0.02, (230, 230)),
    ),
    Task(
        "Fashion MLP, 60 % random labels",
        (*FASHION, "model=mlp", "dataset.label_noise=0.6"),
        *(10_000, (2.03, 1.97), (64, 256, 1024, 4096), 0.05, (40, 1000)),
    ),
    Task(
        "Fashion autoencoder",
        ("dataset=fashion_pixels", "model=autoencoder", "server_optimizer=sgd"),
        *(10_000, (0.3, 0.25), (4, 16, 64, 256), 1.0, (300, 60)),
    ),
    Task("Shakespeare GPT", PLAYS, 130_000, (2.6, 2.4), (8, 32, 128, 512), 0.004, (120, 60), tokens=32),
]
EASY = [Task("digits logistic", (*DIGITS, "model=logistic"), 1437, (0.5,), (16, 64, 256), 0.8, (25, 50))]
