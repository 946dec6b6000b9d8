"""The cells of dp_accuracy.py: what is compared, and with which overrides."""

from dataclasses import dataclass, replace

CLIPPED, FREE, ADAM = "clipped, no noise", "not private", "not private, Adam"
UNPROTECTED = (FREE, ADAM)
UNCLIPPED_START = {FREE: 0.25, ADAM: 0.004}
"""Rates at which their tuning starts; gradients that are not clipped are longer."""

CENTRAL, CLIENT, NO_MECHANISM = "example_central", "client_central", "none"
HERE = "simulations.public_start"
QUIET = ("controller=fixed", "evaluate_every_rounds=0", "checkpoint_every_rounds=0", "executor=fused", "report=none")


@dataclass(frozen=True)
class Study:
    """One form of the study.

    Attributes:
        loader: of the data set.
        width: of the perceptron.
        examples: N, of the data set.
        clients: that share them at example level.
        noisy_clients: as many where each adds noise of its own: their number is what that costs.
        batches: global batches of the grid, multiples of ``clients``.
        levels: of privacy: epsilons as text, `CLIPPED`, `FREE`, `ADAM`.
        rounds: T of the grid.
        seeds: of the reported runs of the grid.
        few_seeds: of the other runs.
        middle: global batch at which everything else is compared.
        ends: epsilons at which mechanisms are compared.
        steps: other numbers of rounds, at ``steps_level`` and without privacy, by Adam.
        steps_level: epsilon of these.
        public: examples, the first of the data set, that are public in the warm start.
        each: examples of a client at client level.
        client_rounds: T at client level.
        cohorts: expected clients of a round, out of the largest of these.
        populations: of clients, at the larger epsilon; the smallest is the one without privacy, too.
    """

    loader: str
    width: int
    examples: int
    clients: int
    noisy_clients: int
    batches: tuple[int, ...]
    levels: tuple[str, ...]
    rounds: int
    seeds: tuple[int, ...]
    few_seeds: tuple[int, ...]
    middle: int
    ends: tuple[str, str]
    steps: tuple[int, ...]
    steps_level: str
    public: int
    each: int
    client_rounds: int
    cohorts: tuple[int, ...]
    populations: tuple[int, ...]


FULL = Study(
    loader="fedbatch.data.fashion_mnist",
    width=32,
    examples=60_000,
    clients=128,
    noisy_clients=32,
    batches=(128, 512, 2048, 8192),
    levels=("0.5", "1", "2", "4", "8", CLIPPED, FREE, ADAM),
    rounds=200,
    seeds=(0, 1, 2),
    few_seeds=(0, 1, 2),
    middle=2048,
    ends=("1", "8"),
    steps=(50, 800),
    steps_level="2",
    public=6000,
    each=15,
    client_rounds=50,
    cohorts=(100, 250, 1000),
    populations=(250, 500, 1000, 2000),
)
QUICK = Study(
    loader="fedbatch.data.digits",
    width=8,
    examples=1437,
    clients=16,
    noisy_clients=8,
    batches=(16, 128),
    levels=("2", CLIPPED, FREE, ADAM),
    rounds=10,
    seeds=(0, 1),
    few_seeds=(0, 1),
    middle=128,
    ends=("1", "8"),
    steps=(5,),
    steps_level="2",
    public=320,
    each=15,
    client_rounds=10,
    cohorts=(10, 40),
    populations=(20, 40),
)


@dataclass(frozen=True)
class Cell:
    """One point of the study.

    Attributes:
        part: of the study.
        name: of the mechanism, with what else is varied.
        level: of privacy: an epsilon as text, `CLIPPED`, `FREE`.
        batch: expected units of a round: examples, at client level clients.
        rounds: T.
        start: server learning rate at which tuning starts, where no cell comes before.
        seeds: of the reported runs.
        overrides: of its runs.
        public: the cell whose models its runs start from.
    """

    part: str
    name: str
    level: str
    batch: int
    rounds: int
    start: float
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    public: "Cell | None" = None


Line = list[Cell]
"""Cells one after the other: tuning of one starts at the rate of the cell before."""


def lines(study: Study) -> list[Line]:
    """All cells but the check of the extrapolated population."""
    return [*grid(study), *populations(study), *warm_start(study), *steps(study), *mechanisms(study)]


def grid(study: Study) -> list[Line]:
    """Global batch against epsilon, with the two references."""
    found = []
    for batch in study.batches:
        cells = [example(study, "grid", CENTRAL, level, batch, study.rounds, study.seeds) for level in study.levels]
        found.append([cell for cell in cells if cell.level not in UNPROTECTED])
        found += [[cell] for cell in cells if cell.level in UNPROTECTED]  # other rates, searched from other starts
    return found


def steps(study: Study) -> list[Line]:
    """Other numbers of rounds at the middle batch, private and not."""
    few, middle = study.few_seeds, study.middle
    return [
        [example(study, "rounds", CENTRAL, level, middle, rounds, few)]
        for level in (study.steps_level, ADAM)
        for rounds in study.steps
    ]


def warm_start(study: Study) -> list[Line]:
    """Some examples are public: their model alone, private training of the others from it, and from nothing."""
    ends = slice_of(study, 0, study.public), slice_of(study, study.public, study.examples)
    small = study.clients * (study.public // (2 * study.clients))
    options = study.rounds, study.few_seeds
    public = example(study, "warm start", "public examples alone", FREE, small, *options, ends[0])
    cold = example(study, "warm start", "from nothing", study.ends[0], study.middle, *options, ends[1])
    warm = example(study, "warm start", "from the public model", study.ends[0], study.middle, *options, ends[1], public)
    return [[public], [cold, warm]]


def populations(study: Study) -> list[Line]:
    """More and more clients with whole clients protected; the fewest of them without, for T and for 8 T rounds."""
    private = [population(study, count, study.ends[1]) for count in study.populations]
    fewest, rounds = study.populations[0], study.client_rounds
    by_sgd = [whole_clients(study, "clients, SGD", CLIENT, study.ends[1], p, p, rounds) for p in study.populations]
    free = [[population(study, fewest, level, k * rounds) for k in (1, 8)] for level in UNPROTECTED]
    return [private, *free, by_sgd]


def population(study: Study, count: int, level: str, rounds: int | None = None) -> Cell:
    """All of ``count`` clients in every round; the server steps by Adam, for it gets furthest in few rounds."""
    cell = whole_clients(study, "clients", CLIENT, level, count, count, rounds or study.client_rounds)
    if level in UNPROTECTED:
        return cell
    by_adam = (*cell.overrides, "server_optimizer=adam")
    return replace(cell, name=f"{CLIENT}, Adam", start=UNCLIPPED_START[ADAM], overrides=by_adam)


def mechanisms(study: Study) -> list[Line]:
    """Where noise is added, whether it is correlated, and what is protected, at two epsilons."""
    options = study.middle, study.rounds, study.few_seeds
    found = [
        [example(study, "mechanism", name, level, *options) for level in study.ends]
        for name in ("example_ftrl", "example_local")
    ]
    most = max(study.cohorts)
    for cohort in study.cohorts:
        for name in (CLIENT, "client_ftrl"):
            if name == CLIENT or cohort < most:  # noise that is correlated needs groups of clients that take turns
                rounds = study.client_rounds
                found.append([whole_clients(study, "client level", name, e, most, cohort, rounds) for e in study.ends])
    return found


def example(
    study: Study,
    part: str,
    name: str,
    level: str,
    batch: int,
    rounds: int,
    seeds: tuple[int, ...],
    data: tuple[str, ...] = (),
    public: Cell | None = None,
) -> Cell:
    """A cell whose units are examples; all clients take part in every round."""
    mechanism = name if name.startswith("example_") else CENTRAL
    name = NO_MECHANISM if level in UNPROTECTED and name == mechanism else name
    clients = study.noisy_clients if name == "example_local" else study.clients
    overrides = (
        *(*common(study), *(data or slice_of(study, 0, study.examples)), *privacy(mechanism, level)),
        *(f"population={clients}", f"cohort_size={clients}", f"client_batch_size={batch // clients}"),
    )
    start = UNCLIPPED_START.get(level, 4.0 if batch >= 1024 else 2.0)
    return Cell(part, name, level, batch, rounds, start, seeds, overrides, public)


def whole_clients(study: Study, part: str, name: str, level: str, count: int, cohort: int, rounds: int) -> Cell:
    """A cell whose units are clients with ``study.each`` examples, all of which they use."""
    overrides = (
        *(*common(study), *slice_of(study, 0, study.each * count), *privacy(name, level)),
        *(f"population={count}", f"cohort_size={cohort}", "client_batch_size=null"),
    )
    name = NO_MECHANISM if level in UNPROTECTED else name
    return Cell(part, name, level, cohort, rounds, UNCLIPPED_START.get(level, 0.5), study.few_seeds, overrides)


def common(study: Study) -> tuple[str, ...]:
    """Overrides of all runs."""
    return *QUIET, f"model.width={study.width}"


def slice_of(study: Study, start: int, stop: int) -> tuple[str, ...]:
    """Overrides of a slice of the data set."""
    where = (f"+dataset.start={start}", f"+dataset.stop={stop}")
    return (
        "dataset=long_tail",
        f"dataset._target_={HERE}.part",
        f"dataset.base._target_={study.loader}",
        "~dataset.ratio",
        *where,
    )


def privacy(mechanism: str, level: str) -> tuple[str, ...]:
    """Overrides of a level of privacy."""
    if level in UNPROTECTED:
        return "privacy=none", f"server_optimizer={'adam' if level == ADAM else 'sgd'}"
    if level == CLIPPED:
        return f"privacy={mechanism}", "privacy.noise_multiplier=0", "privacy.target_epsilon=null"
    return f"privacy={mechanism}", f"privacy.target_epsilon={level}"
