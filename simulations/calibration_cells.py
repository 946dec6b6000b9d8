"""What calibration.py compares: settings, losses, batch sizes, clip norms."""

from dataclasses import dataclass

FASHION = "fashion_mini"
COMMON = ("evaluate_every_rounds=0", "checkpoint_every_rounds=0", "client_holdout=0.2")
SKEW = ("partitioner=dirichlet", "partitioner.alpha=0.3")
BATCH_FOR_ALL = ("partitioner.self_balancing=true", "partitioner.min_partition_size=165")
BATCH_FOR_MOST = ("partitioner.self_balancing=true", "partitioner.min_partition_size=50")
EXAMPLE = ("privacy=example_distributed", "sampling=all", "temperature=private")
CLIENT = ("privacy=client_central", "temperature=private")

Loss = tuple[str, float, tuple[str, ...]]
"""Name, weight of the second loss, overrides."""
BY_EXAMPLE: tuple[Loss, ...] = (
    ("CE", 0.0, ("loss=cross_entropy", "executor=fused")),
    ("focal", 0.0, ("loss=focal", "executor=fused")),
    ("label smoothing", 0.0, ("loss=label_smoothing", "executor=fused")),
    ("Brier", 0.0, ("loss=brier", "executor=fused")),
)
FROZEN: Loss = ("frozen bins", 1.0, ("loss=ce_frozen_bins", "executor=fused"))
COUPLED = {
    "SB-ECE": ("loss=ce_sb_ece", (0.5, 1.0, 2.0, 4.0)),
    "S-AvUC": ("loss=ce_s_avuc", (0.3, 1.0)),
    "MMCE": ("loss=ce_mmce", (1.0, 4.0)),
}
"""Losses over a client's batch, and the weights that are tried without privacy; under it, 1."""

SLOW = ("S-AvUC", "MMCE")
"""Left out where 250 clients run one after the other: one loss over batches is what the time allows."""


@dataclass(frozen=True)
class Setting:
    """A data set at a level of privacy: everything but loss, partition and seed.

    Attributes:
        dataset: name of its config.
        level: "none", "client" or "example".
        overrides: of its runs.
        skew: further overrides of its Dirichlet partition.
        without: losses that are left out.
    """

    dataset: str
    level: str
    overrides: tuple[str, ...]
    skew: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """What is compared (``part``), where, and with which loss and overrides."""

    part: str
    dataset: str
    level: str
    partition: str
    loss: str
    weight: float
    overrides: tuple[str, ...]


def sizes(population: int, cohort: int, batch: int | None, rounds: int, width: int) -> tuple[str, ...]:
    """Overrides of the numbers of a setting; ``batch`` None for all that a client has."""
    clients = (f"population={population}", f"cohort_size={cohort}", f"client_batch_size={batch or 'null'}")
    return (*clients, f"rounds={rounds}", f"model.width={width}")


def adam(rate: float) -> tuple[str, ...]:
    """The server's optimizer without privacy."""
    return ("server_optimizer=adam", f"server_optimizer.lr={rate:g}", "temperature=shared")


PRIVATE_FASHION = (*sizes(20, 20, 128, 60, 32), *EXAMPLE, "privacy.min_clients=20")
PRIVATE_DIGITS = (*sizes(8, 8, 64, 60, 32), *EXAMPLE, "privacy.min_clients=8")
SETTINGS = (
    Setting(FASHION, "none", (*sizes(20, 10, 128, 200, 64), *adam(0.01)), BATCH_FOR_ALL),
    Setting(FASHION, "client", (*sizes(500, 250, None, 40, 32), *CLIENT, "server_optimizer.lr=1"), (), SLOW),
    Setting(FASHION, "example", (*PRIVATE_FASHION, "server_optimizer.lr=2"), BATCH_FOR_ALL),
    Setting("digits", "none", (*sizes(8, 8, None, 100, 32), *adam(0.01)), BATCH_FOR_MOST),
    Setting("digits", "client", (*sizes(100, 100, None, 40, 32), *CLIENT, "server_optimizer.lr=1"), ()),
    Setting("digits", "example", (*PRIVATE_DIGITS, "server_optimizer.lr=1"), BATCH_FOR_MOST),
)


def cells(settings: tuple[Setting, ...]) -> list[Cell]:
    """Losses by data set, partition and level of privacy; where a guarantee forbids a loss it is not there."""
    found = []
    for setting in settings:
        for partition, split in (("iid", ()), ("dirichlet", (*SKEW, *setting.skew))):
            for name, weight, options in losses(setting.level):
                if name in setting.without:
                    continue
                start = (*COMMON, "controller=fixed", f"dataset={setting.dataset}")
                overrides = (*start, *setting.overrides, *split, *options)
                found.append(Cell("loss", setting.dataset, setting.level, partition, name, weight, overrides))
    return found


def losses(level: str) -> list[Loss]:
    """Losses that are valid at a level of privacy, with a grid of weights where looking costs no privacy."""
    if level == "example":
        return [*BY_EXAMPLE, FROZEN]
    coupled = [
        (name, weight, (config, f"loss.weight={weight:g}", "executor=loop"))
        for name, (config, weights) in COUPLED.items()
        for weight in (weights if level == "none" else (1.0,))
    ]
    return [*BY_EXAMPLE, *coupled]


def batch_cells() -> list[Cell]:
    """As many examples as without, but in small batches, or in small ones first; with CE, and with SB-ECE."""
    to_large = (
        *("controller=schedule", "controller.phases.large.cohort_size=10"),
        *("controller.phases.large.client_batch_size=128", "controller.starts.large=800"),
        *("learning_rate.rule=sqrt", "learning_rate.max_factor=3"),
    )
    forms = {
        "small batch": (*sizes(20, 10, 16, 1600, 64), "controller=fixed"),
        "small, then large batch": (*sizes(20, 10, 16, 900, 64), *to_large),
    }
    found = []
    for form, overrides in forms.items():
        for name, weight, options in losses("none"):
            if (name, weight) in (("CE", 0.0), ("SB-ECE", 1.0)):
                whole = (*COMMON, f"dataset={FASHION}", *overrides, *adam(0.0035), *options)
                found.append(Cell(form, FASHION, "none", "iid", name, weight, whole))
    return found


def clipping_cells() -> list[list[Cell]]:
    """Clipping of examples without noise: for each clip norm one cell a learning rate, to tune by what is held out."""
    found = []
    for norm in (0.1, 1.0, 10.0, 1000.0):
        silent = ("privacy.noise_multiplier=0", "privacy.target_epsilon=null", "temperature.clip_norm=1000")
        base = (*COMMON, "controller=fixed", f"dataset={FASHION}", *PRIVATE_FASHION, *silent, "executor=fused")
        about = max(0.25, 1 / norm)  # a clipped step is no longer than the norm
        rates = [f"server_optimizer.lr={rate * about:g}" for rate in (0.5, 1.0, 2.0, 4.0)]
        options = [(*base, f"privacy.clip_norm={norm:g}", rate) for rate in rates]
        found.append([Cell("clip norm", FASHION, "clip", "iid", "CE", norm, overrides) for overrides in options])
    return found


def quick_cells() -> list[Cell]:
    """Digits without skew: one loss of a kind at each level."""
    kept = {("CE", 0.0), ("SB-ECE", 1.0), ("Brier", 0.0)}
    found = cells(tuple(setting for setting in SETTINGS if setting.dataset == "digits"))
    return [cell for cell in found if cell.partition == "iid" and (cell.loss, cell.weight) in kept]
