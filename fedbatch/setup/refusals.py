"""What a private run refuses before its first round, each in one line with the remedy."""

from collections.abc import Callable, Iterable
from itertools import chain

from fedbatch.clients.job import ClientWork
from fedbatch.clients.work import protected
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.privacy.lattice import MOST_STEPS, Lattice
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.terms import SamplingPlan


def refuse(
    config: RunConfig,
    terms: SamplingPlan,
    model: FlatModel,
    loss: Loss,
    works: Iterable[ClientWork],
    phases: Iterable[Phase],
    steps: Callable[[Phase], int],
) -> None:
    """Raise for whatever the mechanism's guarantee would not cover.

    Args:
        config: the run's config.
        terms: of its releases.
        model: the model.
        loss: the loss.
        works: client work of the run and of its phases.
        phases: all phases of the controller.
        steps: noised steps of a client in a round of a phase.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    # One after the other: what has no example-level form need not know its steps.
    for wrong, message in chain(
        _of_run(config, terms), _of_model(terms, model, loss, works), _of_phases(terms, phases, steps)
    ):
        if wrong:
            raise ConfigError(message)


def refuse_bands(
    config: RunConfig, terms: SamplingPlan, phases: Iterable[Phase], adaptive: bool, bands: int | str
) -> None:
    """Raise where noise cannot be correlated over so many rounds: where groups of units cannot take turns.

    Args:
        config: the run's config.
        terms: of its releases, before they have bands.
        phases: all phases of the controller.
        adaptive: whether the controller, or ``target_value``, decides by what was released.
        bands: how many are asked for; "auto" finds a number that is possible.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    if bands == 1:
        return
    for wrong, message in _of_bands(config, terms, phases, adaptive, bands):
        if wrong:
            raise ConfigError(f"privacy.bands={bands}: {message}")


def refuse_overflow(plan: PrivacyPlan, phases: Iterable[Phase]) -> None:
    """Raise where a round's sum of integers may wrap around, or where the noise on them is more than can be drawn.

    Args:
        plan: of the run.
        phases: all phases of the controller; any may have a cohort of all clients.

    Raises:
        ConfigError: naming the field and what is enough.
    """
    lattice, terms = plan.mechanism.lattice, plan.terms
    for phase in phases:
        accounted = plan.noise_multiplier(phase)
        if lattice is None or not accounted:
            continue

        def fits(quantum: float, phase: Phase = phase, accounted: float = accounted) -> tuple[int, bool]:
            """Bits that a quantum needs, and whether its noise can be drawn."""
            other = Lattice(quantum, lattice.bits)
            deviation, shares = other.deviation(accounted, terms.size), plan.mechanism.noise_shares(len(terms.sizes))
            units = float(terms.sizes.sum())
            expected, everyone = terms.sample_rate(phase) * units, len(terms.sizes)
            need = other.bits_needed(expected, units, everyone, deviation * shares**0.5, terms.size)
            return need, deviation * plan.mechanism.noise_shares(1) ** 0.5 <= MOST_STEPS

        need, drawable = fits(lattice.quantum)
        if drawable and need <= lattice.bits:
            continue
        doubled = (lattice.quantum * 2.0**power for power in range(1, 60))
        enough = next((q for q in doubled if q <= 1 and fits(q)[0] <= lattice.bits and fits(q)[1]), None)
        remedies = [f"privacy.bits={need}"] if drawable and need <= 48 else []
        remedies += [f"privacy.quantum={enough:g}"] if enough else []
        remedies += [] if remedies else ["privacy.quantum=null"]
        why = (
            f"the sum over all clients in phase {phase.name} may need {need} bits, and there are {lattice.bits}"
            if drawable
            else f"the noise of phase {phase.name} has more steps than the {MOST_STEPS:,} that can be drawn"
        )
        raise ConfigError(f"privacy.quantum={lattice.quantum:g}: {why}; set {' or '.join(remedies)}")


def _of_bands(
    config: RunConfig, terms: SamplingPlan, phases: Iterable[Phase], adaptive: bool, bands: int | str
) -> Iterable[tuple[bool, str]]:
    mechanism = terms.mechanism
    yield (
        adaptive,
        "correlated noise needs phases that are fixed beforehand, but the controller (or target_value) decides by what "
        "was released; use controller=fixed or schedule without target_value, or privacy.bands=1",
    )
    yield (
        bands == "auto" and (mechanism.noise_multiplier is not None or mechanism.target_epsilon is None),
        "the number of bands is found for a target; set privacy.target_epsilon and noise_multiplier=null, or give a "
        "number",
    )
    for phase in phases:
        everyone = config.sampling == "all" or phase.cohort_size == config.population
        yield (
            mechanism.clips_examples and not everyone,
            "examples take turns by rounds, so at example level every client takes part in every round; set "
            f"cohort_size={config.population} (phase {phase.name}) and lower client_batch_size, or privacy.bands=1",
        )
        rate = terms.sample_rate(phase)
        size = "client_batch_size" if mechanism.clips_examples else "cohort_size"
        yield (
            bands != "auto" and int(bands) * rate > 1 + 1e-9,
            f"one group in {bands} is smaller than the batch of phase {phase.name}, which is {rate:.3g} of all; take "
            f"at most {int(1 / rate + 1e-9)} bands, or lower {size}",
        )


def _of_run(config: RunConfig, terms: SamplingPlan) -> Iterable[tuple[bool, str]]:
    mechanism, client_level = terms.mechanism, not terms.mechanism.clips_examples
    everyone = config.sampling == "all"
    there = terms.deployment
    yield (
        there is not None and not terms.first.cohort_size <= there.cohort <= there.population,
        f"privacy.deployment_cohort must be from cohort_size ({terms.first.cohort_size}) to deployment_population",
    )
    yield (
        there is not None and (getattr(mechanism, "bands", 1) != 1 or bool(config.client_holdout)),
        "privacy.deployment_population: correlated noise (bands) and questions about what clients hold out are "
        "not scaled to a deployment; set bands=1 and client_holdout=0",
    )
    yield (
        mechanism.delta is not None and not 0 < mechanism.delta < 1 / terms.units,
        f"privacy.delta must be in (0, 1/{terms.units}), below one over the number of {mechanism.unit}s (got "
        f"{mechanism.delta}); delta=null takes a tenth of that, and at most 1e-5",
    )
    yield (
        mechanism.lattice is not None and bool(config.temperature),
        "temperature: its sums are no integers; set privacy.quantum=null, or temperature=none",
    )
    yield (
        mechanism.masks and config.nodes < 2,
        "privacy.secure_aggregation=masked: a node masks its sum among those of others; set nodes=3 or more",
    )
    yield (
        mechanism.masks and mechanism.accuracy_noise is not None,
        "privacy.accuracy_noise: its sums are not masked; set it to null, or privacy.secure_aggregation=simulated",
    )
    yield (
        client_level and config.sampling == "uniform",
        "sampling=uniform draws a fixed number of clients, but the cost is that of Poisson sampling, which is lower; "
        "use sampling=auto or poisson",
    )
    yield (
        client_level and everyone and config.cohort_size < config.population,
        f"sampling=all takes part with everyone; set cohort_size={config.population} so that it is accounted so",
    )
    yield (
        bool(config.sampler),
        "sampler: the cost is that of clients drawn by sampling=uniform, poisson or all; use sampler=plain",
    )
    yield (
        config.one_batch,
        "one_batch takes the same clients and examples in every round, but the cost is that of new draws; set "
        "one_batch=false",
    )
    yield (
        bool(config.availability) or config.deadline_seconds is not None or config.over_selection > 1,
        "availability, deadline_seconds, over_selection: sums and their noise are divided by the expected cohort, of "
        "which nobody is missing; use availability=always, deadline_seconds=null and over_selection=1",
    )
    yield (
        client_level and config.weighting == "examples",
        "weighting=examples would let a client with many examples move the sum by more than clip_norm; use "
        "weighting=auto or uniform",
    )
    yield (
        not client_level and config.weighting == "uniform",
        "weighting=uniform: at example level a round releases a sum over examples; use weighting=auto or examples",
    )
    yield (
        config.matmul_precision != "highest",
        f"matmul_precision={config.matmul_precision} rounds products so coarsely that a contribution may be longer "
        "than privacy.clip_norm; set it to highest",
    )
    yield (
        config.precision != "float32",
        f"precision={config.precision} rounds what is clipped to 8 bits; set it to float32",
    )
    yield (
        config.noise_scale.halves or config.noise_scale.cosine,
        "noise_scale: halves and cosine need each client's own norms, which are not released; set both to false",
    )
    yield config.record_client_norms, "record_client_norms: each client's own norm is not released; set it to false"
    yield (
        config.client_holdout > 0 and not config.temperature and mechanism.accuracy_noise is None,
        "client_holdout: accuracy on clients' own data is not covered by the guarantee; set client_holdout=0, or "
        "temperature=private or privacy.accuracy_noise=10 to use what is held out",
    )
    yield (
        mechanism.accuracy_noise is not None and not config.client_holdout,
        "privacy.accuracy_noise: is for accuracy on what clients hold out; set client_holdout=0.2",
    )
    yield (
        config.training_set_examples > 0,
        "training_set_examples: loss on training data is not covered by the guarantee; set it to 0",
    )
    yield (
        config.target_metric == "train_loss" and (config.is_ended_by_score or config.keep_best),
        "target_metric=train_loss is not released; use test_loss or test_accuracy",
    )


def _of_model(
    terms: SamplingPlan, model: FlatModel, loss: Loss, works: Iterable[ClientWork]
) -> Iterable[tuple[bool, str]]:
    example_level = terms.mechanism.clips_examples
    yield (
        bool(model.buffers.numel()),
        "model: running statistics (batch norm) mix examples and are sent without noise; use model.norm=group or none",
    )
    yield (
        example_level and not getattr(loss, "per_example", False),
        "loss couples the examples of a batch, so that clipping one does not bound its influence; use a per-example "
        "loss, or privacy=client_central",
    )
    for work in works:
        yield (
            example_level and "example" not in protected(work),
            f"client_work: {type(work).__name__} has no example-level form; use fedsgd, local_sgd, or "
            "privacy=client_central",
        )
        yield (
            not example_level and terms.mechanism.unit not in protected(work),
            f"client_work: {type(work).__name__} sends or keeps more than one update a client, which clipping does not "
            "cover; use client_work=local_sgd, or privacy=none",
        )
        yield (
            example_level and terms.mechanism.server_adds_noise and not work.is_gradient,
            "client_work: privacy=example_central adds noise to one sum of gradients a round; use client_work=fedsgd, "
            "or privacy=example_local for local steps",
        )
        yield (
            example_level and terms.mechanism.follows_quantile and not work.is_gradient,
            "privacy.clip_quantile: a client's local steps have one clip norm and no count of their own; use "
            "client_work=fedsgd, or privacy.clip_quantile=null",
        )
        yield (
            terms.mechanism.lattice is not None and not work.is_gradient,
            "client_work: integers stand for one sum of gradients a round; use client_work=fedsgd, or "
            "privacy.quantum=null",
        )


def _of_phases(
    terms: SamplingPlan, phases: Iterable[Phase], steps: Callable[[Phase], int]
) -> Iterable[tuple[bool, str]]:
    mechanism = terms.mechanism
    for phase in phases:
        yield (
            mechanism.shares_noise and steps(phase) > 1,
            f"client_work: {steps(phase)} noised steps a round (phase {phase.name}), but only the sum over clients has "
            "the whole noise of privacy=example_distributed, and a second step would start from one client's share; "
            "use client_work=fedsgd (or one local step), or privacy=example_local",
        )
        yield (
            phase.cohort_size < mechanism.fewest_clients,
            f"privacy.min_clients is larger than the cohort of phase {phase.name} ({phase.cohort_size}), so that every "
            "round would be aborted; lower it or raise cohort_size",
        )
        yield (
            not mechanism.clips_examples and phase.client_work is not None,
            f"controller.{phase.name}.client_work: one clip norm cannot fit two kinds of update; set it to null",
        )
