"""The tasks whose critical batch size is predicted from one run and measured with many."""

from dataclasses import dataclass

CLIENTS = 64


@dataclass(frozen=True)
class Task:
    """A task and the batches at which it is measured.

    Attributes:
        name: as in tables.
        kind: "natural" or "artificial noise", which are told apart.
        optimizer: one of `OPTIMIZERS`, likewise.
        overrides: of fedbatch.
        examples: N, in the training set.
        batches: rising, a factor of 4 apart; the smallest predicts, and has 8 clients or more.
        rate: learning rate from which the search starts, at the largest batch.
        steps: S_ref, of the tuned run at the largest batch whose losses are the goals.
        evaluated: examples of the training set on which the loss is read.
    """

    name: str
    kind: str
    optimizer: str
    overrides: tuple[str, ...]
    examples: int
    batches: tuple[int, ...]
    rate: float
    steps: int = 100
    evaluated: int = 2000

    def run_overrides(self, batch: int, rate: float, seed: int) -> list[str]:
        """Overrides of a run but for its length: as many clients as there are examples, up to all clients."""
        clients = min(batch, CLIENTS)
        return [
            *("controller=fixed", "checkpoint_every_rounds=0", "report=none", f"population={CLIENTS}"),
            *(f"cohort_size={clients}", f"client_batch_size={batch // clients}", "learning_rate.rule=constant"),
            *(f"training_set_examples={self.evaluated}",),
            *(f"server_optimizer.lr={rate:.4g}", f"seed={seed}", "partitioner.seed=0"),  # the split stays in memory
            *self.overrides,
        ]


def _own(name: str, *overrides: str) -> tuple[str, ...]:
    """A data set of `simulations.critical_data`."""
    return ("dataset=digits", f"dataset._target_=simulations.critical_data.{name}", *overrides)


def _model(name: str) -> tuple[str, ...]:
    return "model=logistic", f"model._target_=simulations.critical_data.{name}"


def _noisy(share: float) -> tuple[str, ...]:
    return (*_own("fashion", f"+dataset.label_noise={share}", "+dataset.pool=2"), "model=mlp", "model.width=32")


FASHION, POOLED = _own("fashion"), _own("fashion", "+dataset.pool=2")
LINE = (*_own("line"), *_model("residual"), "loss=brier", "loss._target_=simulations.critical_data.Square")
PLAYS = (
    *("dataset=shakespeare_roles", "dataset.context=32", "dataset.test_fraction=0.02", "dataset.min_sequences=64"),
    *("model=gpt", "model.layers=2", "model.heads=2", "model.width=32"),
)
CHARACTERS = (*_own("next_character"), *_model("characters"))
CNN = (*POOLED, "model=cnn", "model.channels=4", "model.hidden=32")
RESNET = (*POOLED, *_model("resnet8"))
CANCER, DIGITS = ("dataset=breast_cancer", "model=logistic"), ("dataset=digits", "model=logistic")
NATURAL, ARTIFICIAL = "natural", "artificial noise"
SEQUENCES = 130_000


def ladder(smallest: int) -> tuple[int, ...]:
    """Four batches, a factor of 4 apart."""
    return (smallest, 4 * smallest, 16 * smallest, 64 * smallest)


PARTS = [
    ("breast cancer, linear", NATURAL, CANCER, 455, 2000),
    ("digits, linear", NATURAL, DIGITS, 1437, 2000),
    ("digits, MLP", NATURAL, ("dataset=digits", "model=mlp"), 1437, 2000),
    ("Fashion, linear", NATURAL, (*FASHION, "model=logistic"), 60_000, 2000),
    ("Fashion, MLP", NATURAL, (*FASHION, "model=mlp"), 60_000, 2000),
    ("next character, MLP", NATURAL, CHARACTERS, 60_000, 2000),
    ("regression", ARTIFICIAL, LINE, 60_000, 2000),
    ("50 % random labels", ARTIFICIAL, _noisy(0.5), 60_000, 2000),
    ("80 % random labels", ARTIFICIAL, _noisy(0.8), 60_000, 2000),
    ("90 % random labels", ARTIFICIAL, _noisy(0.9), 60_000, 2000),
    ("95 % random labels", ARTIFICIAL, _noisy(0.95), 60_000, 2000),
    ("autoencoder", NATURAL, ("dataset=fashion_pixels", "model=autoencoder"), 10_000, 500),
    ("Fashion, CNN", NATURAL, CNN, 60_000, 1000),
    ("Fashion, ResNet-8", NATURAL, RESNET, 60_000, 1000),
    ("GPT", NATURAL, PLAYS, SEQUENCES, 500),
]
"""Name, kind, overrides, examples and those on which the loss is read."""

MOMENTUM = {
    "breast cancer, linear": ((8, 32, 128, 448), 0.4),
    "digits, linear": (ladder(8), 0.8),
    "digits, MLP": (ladder(8), 0.4),
    "Fashion, linear": (ladder(32), 0.08),
    "Fashion, MLP": (ladder(16), 0.04),
    "next character, MLP": (ladder(16), 0.4),
    "regression": (ladder(16), 0.1),
    "50 % random labels": (ladder(64), 0.8),
    "80 % random labels": (ladder(256), 0.8),
    "90 % random labels": (ladder(256), 0.8),
    "95 % random labels": (ladder(512), 0.8),
    "autoencoder": (ladder(8), 2.0),
    "Fashion, CNN": (ladder(8), 0.1),
    "Fashion, ResNet-8": (ladder(8), 0.2),
    "GPT": (ladder(8), 0.2),
}
"""Batches, and the rate at which the search begins at the largest."""

PLAIN = {
    "breast cancer, linear": ((8, 32, 128, 448), 4.0),
    "digits, linear": (ladder(8), 4.0),
    "digits, MLP": (ladder(8), 1.6),
    "Fashion, linear": (ladder(8), 0.08),
    "Fashion, MLP": (ladder(8), 0.16),
    "next character, MLP": (ladder(8), 2.0),
    "regression": (ladder(8), 0.8),
    "50 % random labels": (ladder(32), 3.2),
    "80 % random labels": (ladder(128), 3.2),
    "90 % random labels": (ladder(128), 3.2),
    "95 % random labels": (ladder(256), 3.2),
    "Fashion, CNN": (ladder(8), 0.4),
}
ADAM = {"Fashion, MLP": (ladder(16), 0.008), "next character, MLP": (ladder(16), 0.02)}

OPTIMIZERS = {
    "momentum": (("server_optimizer=sgd", "server_optimizer.momentum=0.9"), MOMENTUM),
    "SGD": (("server_optimizer=sgd",), PLAIN),
    "Adam": (("server_optimizer=adam",), ADAM),
}


def tasks(optimizer: str) -> list[Task]:
    """Those of one of `OPTIMIZERS`."""
    stepped, grid = OPTIMIZERS[optimizer]
    return [
        Task(name, kind, optimizer, (*overrides, *stepped), examples, *grid[name], evaluated=evaluated)
        for name, kind, overrides, examples, evaluated in PARTS
        if name in grid
    ]


EASY = Task("digits, linear", NATURAL, "SGD", (*DIGITS, "server_optimizer=sgd"), 1437, (8, 32, 128), 1.6, 100)
