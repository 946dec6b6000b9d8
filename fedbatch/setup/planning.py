"""What a plan is made of: the question that a config asks, with the same refusals as the run itself."""

from dataclasses import replace
from functools import cache

import numpy as np

from fedbatch.clients.cohort import sample_cohort
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.plan import besides_of, delta_of
from fedbatch.privacy.planning import Question
from fedbatch.setup import task
from fedbatch.setup.private import evaluations_of


def question_of(config: RunConfig) -> Question:
    """The question of a config; its data are read and its model is tried, but nothing is trained.

    Raises:
        ConfigError: no privacy, no target, or whatever the run itself would refuse.
    """
    if not config.privacy:
        raise ConfigError("privacy: nothing to plan without a mechanism; add privacy=client_central, example_local ...")
    if config.privacy.get("target_epsilon") is None:
        raise ConfigError("privacy.target_epsilon is what a plan is made for; set it, e.g. privacy.target_epsilon=8")
    loaded = task.load(replace(config, privacy=config.privacy | {"noise_multiplier": None}).to_json())
    assert loaded.privacy is not None
    terms, clients = loaded.privacy.terms, np.arange(len(loaded.partition), dtype=np.int64)
    mean_size = float(terms.sizes.mean())

    def examples(phase: Phase) -> float:
        each = min(mean_size, phase.client_batch_size or mean_size)
        return each * loaded.work(phase.name).num_steps(each / mean_size)

    @cache
    def charged(cohort_size: int, rounds: int) -> int:
        if not terms.mechanism.clips_examples or config.sampling == "all" or cohort_size == len(clients):
            return rounds
        counts = np.zeros(len(clients), dtype=np.int64)
        for round_ in range(rounds):
            counts[sample_cohort(clients, config.sampling, cohort_size, config.seed, round_)] += 1
        return int(counts.max())

    model, relative = loaded.node_model, getattr(loaded.temperature, "relative_noise", None)  # of one that is private
    return Question(
        terms=replace(terms, mechanism=replace(terms.mechanism, noise_multiplier=None)),
        target_epsilon=float(config.privacy["target_epsilon"]),
        delta=delta_of(terms),
        rounds=config.rounds,
        size=model.params.numel(),
        bytes_one_way=model.params.element_size() * (model.params.numel() + model.buffers.numel()),
        examples=examples,
        moves_cohort=config.sampling != "all",
        steps=loaded.privacy.steps,
        has_squares=loaded.privacy.has_squares,
        charged=charged,
        besides=tuple((1.0, *each) for each in besides_of(terms.mechanism, relative, evaluations_of(config))),
        other_phases=len(loaded.controller.phases) > 1 or loaded.controller.adaptive,
    )
