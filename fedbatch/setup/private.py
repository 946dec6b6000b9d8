"""What both ends of a private run agree on: how a temperature is found, and the mechanism, refused or calibrated."""

import math
from dataclasses import replace

import numpy as np

from fedbatch.clients.cohort import sample_cohort
from fedbatch.clients.job import ClientWork
from fedbatch.config import build
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Controller, Phase, phase_of
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.metrics.scaling import Scaling
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.privacy.choose_bands import best_bands
from fedbatch.privacy.mechanism import Mechanism
from fedbatch.privacy.plan import PrivacyPlan, besides_of, delta_of, fixed_phases, make_plan
from fedbatch.privacy.randomness import Randomness, secret_of
from fedbatch.privacy.terms import SamplingPlan
from fedbatch.setup.refusals import refuse, refuse_bands, refuse_overflow


def temperature_of(config: RunConfig) -> Scaling | None:
    """How the temperature is found, refused where there is nothing to find it on or no guarantee to find it under."""
    if not config.temperature:
        return None
    scaling: Scaling = build.build("temperature", config.temperature)
    if not config.client_holdout:
        raise ConfigError("temperature: is fitted on examples that clients hold out; set client_holdout=0.2")
    if scaling.is_private and not config.privacy:
        raise ConfigError("temperature=private needs a mechanism; set privacy, or take temperature=shared")
    if config.privacy and not scaling.is_private:
        raise ConfigError(
            "temperature: exact sums over what clients hold out are not covered by the guarantee; use "
            "temperature=private, which is paid for in epsilon"
        )
    return scaling


def privacy_of(
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
    sizes, first = partition.sizes(clients), phase_of(controller.phases, controller.start())
    terms = SamplingPlan(mechanism, sizes, first, seed=config.seed, size=model.params.numel())

    def cohort(phase: Phase, round_: int) -> Ints | None:
        if not mechanism.clips_examples:
            return None
        return sample_cohort(clients, config.sampling, phase.cohort_size, config.seed, round_)

    def steps(phase: Phase) -> int:
        work = works.get(phase.name, default_work)
        return work.num_steps(terms.sample_rate(phase)) if mechanism.clips_examples else 1

    refuse(config, terms, model, loss, (default_work, *works.values()), controller.phases, steps)
    last = getattr(temperature, "relative_noise", None)  # of one that is private
    adaptive = controller.adaptive or config.is_ended_by_score
    bands = getattr(mechanism, "bands", 1)
    refuse_bands(config, terms, controller.phases, adaptive, bands)
    evaluations = evaluations_of(config)
    if bands == "auto":
        besides = besides_of(mechanism, last, evaluations)
        phases = list(fixed_phases(controller, config.rounds))
        bands = best_bands(terms, phases, cohort, steps, delta_of(terms), besides)
    terms = replace(terms, bands=bands)

    def has_squares(phase: Phase) -> bool:
        gradient = works.get(phase.name, default_work).is_gradient
        return mechanism.measure_noise_scale and (gradient or not mechanism.clips_examples)

    randomness = Randomness(secret_of(mechanism.secret_file, config.seed), config.identity(), mechanism.generator)
    plan = make_plan(
        terms, controller, config.rounds, adaptive, cohort, steps, has_squares, randomness, last, evaluations
    )
    refuse_overflow(plan, controller.phases)
    return plan


def evaluations_of(config: RunConfig) -> int:
    """In how many rounds the model is evaluated."""
    every = config.evaluate_every_rounds
    return math.ceil(config.rounds / every) if every else 1
