"""Everything that both ends of a run need, built once from its config: data on the device, model, loss, work."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch import build
from fedbatch.active import learning
from fedbatch.active.learning import ActiveLearning
from fedbatch.batch.phases import Controller, Phase
from fedbatch.checks import check_batches, check_executor, check_model, warn_of_small_batches
from fedbatch.clients.job import ClientWork
from fedbatch.clients.per_example import PerExample
from fedbatch.cohort import sample_cohort
from fedbatch.config import RunConfig, from_json
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.device import prepare
from fedbatch.errors import ConfigError
from fedbatch.keys import Ints, key
from fedbatch.losses.examples import NO_LABEL
from fedbatch.metrics.report import Calibration
from fedbatch.metrics.scaling import PrivateTemperature, Scaling
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.privacy.mechanisms import Mechanism
from fedbatch.privacy.plan import PrivacyPlan, make_plan
from fedbatch.privacy.randomness import Randomness, secret_of
from fedbatch.privacy.refusals import refuse
from fedbatch.privacy.terms import Terms
from fedbatch.robust import Aggregator


@dataclass(frozen=True, eq=False)
class Task:
    """What a run trains and on what.

    Attributes:
        config: the run's config.
        train_x, train_y: training set on the device; clients are index arrays into it.
        test_x, test_y: held-out test split of the server.
        partition: which examples are whose.
        controller: the phase controller.
        loss: loss function.
        works: client work of each phase that overrides the run's own.
        default_work: client work of the run.
        node_model: scratch model of the nodes in this process.
        num_classes: classes of the labels.
        aggregator: of single updates; None adds weighted sums up.
        privacy: the run's mechanism, ready to use; None without privacy.
        calibration: scores of calibration for the record; None without.
        temperature: how a temperature is found after training; None without.
        active: how the run gets its labels; None where all are there.
    """

    config: RunConfig
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    partition: HoldoutPartition
    controller: Any
    loss: Loss
    works: dict[str, ClientWork]
    default_work: ClientWork
    node_model: FlatModel
    num_classes: int
    aggregator: Aggregator | None = None
    privacy: PrivacyPlan | None = None
    calibration: Calibration | None = None
    temperature: Scaling | None = None
    active: ActiveLearning | None = None

    def phase(self, name: str) -> Phase:
        """A phase by its name."""
        return next(phase for phase in self.controller.phases if phase.name == name)

    def work(self, phase: str) -> ClientWork:
        """Client work of a phase."""
        return self.works.get(phase, self.default_work)

    @property
    def labels_per_example(self) -> int:
        """1, or the tokens of a sequence that have a label."""
        is_text = self.train_y.dim() == 2 and not self.train_x.is_floating_point()
        return int((self.train_y[0] != NO_LABEL).sum()) if is_text else 1

    def training_set_sample(self) -> tuple[Tensor, Tensor]:
        """The examples that are evaluated of those that clients train on: always the same, spread evenly over them."""
        ends = np.cumsum(self.partition.sizes(np.arange(len(self.partition), dtype=np.int64)))
        count = min(self.config.training_set_examples, int(ends[-1]))
        chosen = np.arange(count, dtype=np.int64) * int(ends[-1]) // count
        owners = np.searchsorted(ends, chosen, side="right")
        positions = self.partition.lookup(owners, chosen - np.append(0, ends)[owners])
        index = torch.from_numpy(positions).to(self.train_y.device)
        return self.train_x[index], self.train_y[index]

    def held_out(self, client: int) -> np.ndarray:
        """Positions of a client's own held-out examples."""
        return self.partition.held_out(client)

    def new_model(self) -> FlatModel:
        """A freshly initialised model, the same for the same seed."""
        return _new_model(self.config, tuple(self.train_x.shape[1:]), self.num_classes, self.train_x.device)


@lru_cache(maxsize=1)
def load(config_json: str) -> Task:
    """The task of a config. Cached, so that server and nodes in one process share the data.

    Raises:
        ConfigError: naming the field that is wrong and the remedy.
    """
    config = from_json(config_json)
    device = prepare(config)
    dataset, partition = build.data(config_json)
    controller = build.controller(config_json)
    model = _new_model(config, dataset.input_shape, dataset.num_classes, device)
    if config.compile:
        model.compile()
    check_model(config, model)
    loss = build.build("loss", config.loss)
    default_work = build.build("client_work", config.client_work)
    works = {phase.name: phase.client_work for phase in controller.phases if phase.client_work is not None}
    temperature = _temperature(config)
    privacy = None
    if config.privacy:
        privacy = _privacy(config, controller, works, default_work, partition, model, loss, temperature)
    active = build.active_learning(config)
    if active is not None:
        pool = int(partition.sizes(np.arange(len(partition), dtype=np.int64)).sum())
        unit = privacy.mechanism.unit if privacy else None
        learning.check(config, active, unit, dataset.train_y.ndim > 1, pool)
    example_level = privacy is not None and privacy.mechanism.unit == "example"
    if not example_level:
        check_batches(controller.phases, works, default_work, partition)
    warn_of_small_batches(loss, controller.phases, partition, dataset.num_classes)
    run_by_executor: Iterable[ClientWork] = (default_work, *works.values())
    if privacy is not None and example_level:
        run_by_executor = [PerExample(privacy.mechanism.clipping == "per_layer")]
    check_executor(config, run_by_executor, loss, model, dataset.input_shape)
    return Task(
        config=config,
        train_x=torch.from_numpy(dataset.train_x).to(device),
        train_y=torch.from_numpy(dataset.train_y).to(device),
        test_x=torch.from_numpy(dataset.test_x).to(device),
        test_y=torch.from_numpy(dataset.test_y).to(device),
        partition=partition,
        controller=controller,
        loss=loss,
        works=works,
        default_work=default_work,
        node_model=model,
        num_classes=dataset.num_classes,
        aggregator=_aggregator(config, model) if config.aggregator else None,
        privacy=privacy,
        calibration=build.build("metrics", config.metrics) if config.metrics else None,
        temperature=temperature,
        active=active,
    )


def _aggregator(config: RunConfig, model: FlatModel) -> Aggregator:
    """The rule for single updates, refused where there are none to see."""
    if config.privacy:
        raise ConfigError(
            "aggregator: robust rules look at single updates, which a private run does not show anybody; use "
            "aggregator=mean or privacy=none"
        )
    if config.noise_scale.halves or config.noise_scale.cosine:
        raise ConfigError("noise_scale: halves and cosine are measured with aggregator=mean only; set both to false")
    if model.buffers.numel():
        raise ConfigError("aggregator: running statistics (batch norm) have no robust mean; use model.norm=group")
    aggregator: Aggregator = build.build("aggregator", config.aggregator)
    return aggregator


def _temperature(config: RunConfig) -> Scaling | None:
    """How the temperature is found, refused where there is nothing to find it on or no guarantee to find it under."""
    if not config.temperature:
        return None
    scaling: Scaling = build.build("temperature", config.temperature)
    if not config.client_holdout:
        raise ConfigError("temperature: is fitted on examples that clients hold out; set client_holdout=0.2")
    private = isinstance(scaling, PrivateTemperature)
    if private and not config.privacy:
        raise ConfigError("temperature=private needs a mechanism; set privacy, or take temperature=shared")
    if config.privacy and not private:
        raise ConfigError(
            "temperature: exact sums over what clients hold out are not covered by the guarantee; use "
            "temperature=private, which is paid for in epsilon"
        )
    return scaling


def _privacy(
    config: RunConfig,
    controller: Controller,
    works: dict[str, ClientWork],
    default_work: ClientWork,
    partition: HoldoutPartition,
    model: FlatModel,
    loss: Loss,
    temperature: Scaling | None,
) -> PrivacyPlan:
    """The mechanism of the run, refused or calibrated."""
    clients = np.arange(len(partition), dtype=np.int64)
    mechanism: Mechanism = build.build("privacy", config.privacy)
    first = controller.start()
    phase = next(phase for phase in controller.phases if phase.name == first.phase)
    terms = Terms(
        mechanism, partition.sizes(clients), replace(phase, cohort_size=first.cohort_size or phase.cohort_size)
    )
    refuse(config, terms, model, loss, (default_work, *works.values()), controller.phases)
    example_level = mechanism.unit == "example"

    def cohort(phase: Phase, round_: int) -> Ints | None:
        if not example_level:
            return None
        return sample_cohort(clients, config.sampling, phase.cohort_size, config.seed, round_)

    def steps(phase: Phase) -> int:
        work = works.get(phase.name, default_work)
        return work.num_steps(terms.sample_rate(phase)) if example_level else 1

    def has_squares(phase: Phase) -> bool:
        gradient = works.get(phase.name, default_work).is_gradient
        return mechanism.measure_noise_scale and (gradient or not example_level)

    adaptive = controller.adaptive or config.target_value is not None
    randomness = Randomness(secret_of(mechanism.secret_file, config.seed), config.identity(), mechanism.generator)
    last = temperature.relative_noise if isinstance(temperature, PrivateTemperature) else None
    return make_plan(terms, controller, config.rounds, adaptive, cohort, steps, has_squares, randomness, last)


def _new_model(config: RunConfig, input_shape: tuple[int, ...], num_classes: int, device: torch.device) -> FlatModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, "init") >> 1)
        module = build.build("model", config.model, input_shape=input_shape, num_classes=num_classes)
    return FlatModel(module, device, config.channels_last)
