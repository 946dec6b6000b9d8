"""What soft_calibration.py compares: data, settings, losses."""

from dataclasses import dataclass

GAMMAS = (1.0, 2.0, 3.0, 5.0)
SMOOTHINGS = (0.05, 0.1)
SOFT = {"SB-ECE": "ce_sb_ece", "label-binned SB-ECE": "ce_sb_ece_label_binned", "S-AvUC": "ce_s_avuc"}
"""Config of each soft objective."""
GRIDS: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "CE": {
        "SB-ECE": ((0.3, 0.01), (1, 0.01), (2, 0.01), (4, 0.01), (0.3, 0.1), (1, 0.1), (4, 0.1)),
        "label-binned SB-ECE": ((1, 0.01), (4, 0.01), (6, 0.01), (10, 0.01)),
        "S-AvUC": ((0.3, 1), (1, 1)),
    },
    "focal": {
        "SB-ECE": ((0.3, 0.01), (1, 0.01)),
        "label-binned SB-ECE": ((1, 0.01), (4, 0.01)),
        "S-AvUC": ((0.3, 1), (1, 1)),
    },
}
"""Weights and temperatures that are tried with each loss by example."""


@dataclass(frozen=True)
class Loss:
    """A loss with its numbers.

    Attributes:
        family: within which held-out data choose.
        name: with the numbers.
        overrides: of fedbatch.
    """

    family: str
    name: str
    overrides: tuple[str, ...]

    @property
    def is_composite(self) -> bool:
        """Whether a soft objective is part of it."""
        return "+" in self.family


@dataclass(frozen=True)
class Setting:
    """Data, model and rounds.

    Attributes:
        name: as in tables.
        overrides: of fedbatch, without loss and seed.
        seeds: that are reported.
        all_losses: whether all chosen losses are compared; else cross-entropy, focal loss and the best composite.
    """

    name: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    all_losses: bool = False


COMMON = (
    *("dataset=digits", "dataset._target_=simulations.pooled_images.first_images", "client_holdout=0.5"),
    *("controller=fixed", "executor=loop", "evaluate_every_rounds=0", "checkpoint_every_rounds=0", "report=none"),
    *("server_optimizer=sgd", "server_optimizer.momentum=0.9", "population=20", "cohort_size=2"),
    *("learning_rate.rule=constant", "learning_rate.decay=wsd", "learning_rate.decay_share=0.25"),
)
CNN = ("model=cnn", "model.channels=8", "model.hidden=128")
RESNET = (
    *("model=resnet18", "model._target_=simulations.critical_data.resnet8", "~model.norm"),
    *("model.width=8", "model.groups=4"),
)
STEPS = ("client_batch_size=128", "rounds=1600", "server_optimizer.lr=0.1")
SKEW = ("partitioner=dirichlet", "partitioner.alpha=0.3", "partitioner.min_partition_size=300")
FULL = (
    Setting("CNN", (*COMMON, *CNN, *STEPS), (0, 1, 2, 3, 4), True),
    Setting("CNN, Dirichlet 0.3", (*COMMON, *CNN, *STEPS, *SKEW), (0, 1, 2)),
    Setting("ResNet-8", (*COMMON, *RESNET, *STEPS, "server_optimizer.lr=0.2"), (0, 1, 2)),
)
"""The first is where numbers are chosen. All use as many examples."""
QUICK = (
    Setting(
        "MLP on digits",
        (
            *COMMON[2:],
            *("dataset=digits", "model=mlp", "client_holdout=0.5", "population=5"),
            *("client_batch_size=128", "rounds=60", "server_optimizer.lr=0.2"),
        ),
        (0,),
        True,
    ),
)


def plain() -> list[Loss]:
    """Losses by example: cross-entropy first, then focal loss and label smoothing with their grids."""
    found = [Loss("CE", "CE", ("loss=cross_entropy",))]
    found += [Loss("focal", f"focal {gamma:g}", ("loss=focal", f"loss.gamma={gamma:g}")) for gamma in GAMMAS]
    smooth = "loss=label_smoothing"
    return found + [
        Loss("label smoothing", f"smoothing {s:g}", (smooth, f"loss.label_smoothing={s:g}")) for s in SMOOTHINGS
    ]


def composites(gamma: float) -> list[Loss]:
    """Cross-entropy, or focal loss of ``gamma``, and each soft objective with its grid."""
    focal = ("loss.primary._target_=fedbatch.losses.Focal", "~loss.primary.label_smoothing")
    options = {"CE": (), "focal": (*focal, f"+loss.primary.gamma={gamma:g}")}
    return [
        Loss(
            f"{primary} + soft objective",
            f"{primary} + {weight:g} {soft} (T {temperature:g})",
            (f"loss={SOFT[soft]}", f"loss.weight={weight:g}", f"loss.secondary.temperature={temperature:g}")
            + options[primary],
        )
        for primary, grids in GRIDS.items()
        for soft, grid in grids.items()
        for weight, temperature in grid
    ]
