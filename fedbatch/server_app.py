"""The Flower ServerApp: build or resume the server, run the rounds, keep the record."""

import logging
import math
import signal
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedbatch.aggregation.sums import DivergedError
from fedbatch.batch.average import Averages
from fedbatch.config.build import build
from fedbatch.config.compose import config_json
from fedbatch.config.schema import from_json
from fedbatch.core.errors import ConfigError, Interrupted, RunFailedError
from fedbatch.core.interrupt import Asked, listening
from fedbatch.privacy import ledger
from fedbatch.privacy.ledger import Ledger
from fedbatch.privacy.noise_history import UNCORRELATED, NoiseHistory
from fedbatch.privacy.statement import opening, private_runs_beside, spent
from fedbatch.results.folder import clear, refuse_used
from fedbatch.results.identity import Identity
from fedbatch.results.lock import locked
from fedbatch.results.progress import Progress
from fedbatch.results.store import RunStore
from fedbatch.runtime.faults import FaultyGrid
from fedbatch.runtime.interruptible import InterruptibleGrid
from fedbatch.server import evaluate as evaluation
from fedbatch.server import temperature as posthoc
from fedbatch.server.average import average_scores
from fedbatch.server.cohort import check_start
from fedbatch.server.hosts import check_hosts, discover
from fedbatch.server.optimizer import ServerOptimizer
from fedbatch.server.resume import BEST, begin, resume, save
from fedbatch.server.rounds import is_over, run_rounds
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState
from fedbatch.server.views import write_views
from fedbatch.server.warm_start import warm_start
from fedbatch.setup import device, task
from fedbatch.setup.asynchronous import asynchronous_of, check_buffers
from fedbatch.setup.cohorts import availability_of, sampler_of, tell_of_bias
from fedbatch.setup.evaluation_sets import evaluation_sets_of
from fedbatch.setup.task import Task
from fedbatch.setup.validate import trackers
from fedbatch.trackers.following import following

app = ServerApp()
log = logging.getLogger("fedbatch")


@app.main()
def started_by_flower(grid: Grid, context: Context) -> None:
    """Run a whole experiment in a process of Flower's, which ends for an exception that is a failure, and for no other.

    Raises:
        ConfigError: as `main`.
        RunFailedError: as `main`, or a signal has ended it.
    """
    try:
        main(grid, context)
    except Interrupted as end:
        how = f"the same overrides and resume={end.folder}" if end.folder else "the same overrides"
        raise RunFailedError(f"ended by {signal.Signals(end.signal).name}; go on by `flwr run` with {how}") from end


def main(grid: Grid, context: Context) -> None:
    """Run a whole experiment; the run folder holds everything that is left of it.

    Raises:
        ConfigError: the run cannot start, or not in this folder.
        RunFailedError: it cannot go on.
        Interrupted: a signal has ended it; what was done is in a checkpoint.
    """
    config = from_json(config_json(context.run_config))
    folder = Path(config.run_dir)
    with locked(folder), listening() as asked:
        if not config.resume and not config.overwrite:
            refuse_used(folder)
        loaded = task.load(config.to_json())
        if line := device.in_words(
            config.device, loaded.node_model.params.device, getattr(grid, "by_reference", False)
        ):
            log.info("%s", line)
        if loaded.privacy is not None:
            log.info("%s", opening(loaded.privacy, loaded.controller.phases, config.rounds))
            if config.start_from:
                log.warning(
                    "the guarantee takes start_from=%s as public: what trained it is not counted", config.start_from
                )
        server = new_server(loaded, cast(Grid, InterruptibleGrid(grid, asked)))
        identity, state = resume(server) if config.resume else (None, start(server))
        check_start(server, state)
        tell_of_bias(config, server.sampler)
        if identity is None:
            if config.overwrite:
                clear(folder)
            identity, state = begin(server, state)
        store = RunStore(folder, config, identity.run, partial(spent_so_far, server, state.ledger), loaded.scoring)
        if not config.resume:  # with a ledger there is a checkpoint, so that it can be resumed whenever it is killed
            save(server, identity, state, durable=server.task.privacy is not None)
        try:
            run(server, identity, state, store, asked)
        except Interrupted as end:
            raise Interrupted(end.signal, folder) from end
        asked.obey()


def run(server: Server, identity: Identity, first: ServerState, store: RunStore, asked: Asked) -> None:
    """All rounds from the first state on, their record, and the summary."""
    config, state = server.task.config, first
    every = config.checkpoint_every_rounds
    shown = Progress(config.rounds, state.round, server.task.scoring)
    followed = following(trackers(config), store.folder, asdict(config), state.round)
    with store.recording(state.round, asdict(state.totals)), shown as progress, followed as follow:
        try:
            for state, row in run_rounds(server, first):
                store.append(row)
                progress.show(row)
                follow(row)
                if is_over(server, state) or evaluation.is_evaluated(config, row["round"]):
                    refuse_divergence(row)
                if config.keep_best and state.best.rounds == state.round:
                    save(server, identity, state, durable=False, place=BEST)
                if asked.signal or (every and state.round % every == 0):
                    save(server, identity, state)
                asked.obey()
        except Interrupted:
            if not asked.at_once and not queried(server, state):
                save(server, identity, state)
            raise
        save(server, identity, state)  # before the scores, whose failure must not cost the rounds
        scores = {} if store.is_evaluated else last_scores(server, state)
        scored, calibration = posthoc.finish(server, state)
        if scored is not state:  # a private temperature has been charged
            state = scored
            save(server, identity, state)
        write_views(server, state)
        guarantee = spent_so_far(server, state.ledger).get("privacy")
        said: dict[str, Any] = {"test_examples": len(server.task.test_y)}
        if server.task.privacy is None:  # sizes of clients' data are nobody's business
            said["largest_client"] = int(server.hosts.num_examples.max())
        said |= {"layers": server.optimizer.model.layer_names} if config.noise_scale.layers else {}
        store.finish(state.summary() | said, guarantee, calibration, scores)


def spent_so_far(server: Server, known: Ledger) -> dict[str, Any]:
    """What a run has spent by a ledger and by its file, which knows what was sent in a round that broke off.

    Empty without privacy.
    """
    privacy = server.task.privacy
    if privacy is None:
        return {}
    releases = [*known.releases, *ledger.read(server.folder / ledger.FILE)]
    return spent(privacy, Ledger.of(privacy.terms.accounts, releases), private_runs_beside(server.folder))


def queried(server: Server, state: ServerState) -> bool:
    """Whether labels are asked for before this round, which may have begun a new model in the place of the state's."""
    active = server.task.active
    return active is not None and active.is_due(state.round, server.task.config.rounds)


def last_scores(server: Server, state: ServerState) -> Row:
    """Scores of the last parameters, where a budget or a target has ended the run between two evaluations."""
    scores = evaluation.on_server(server)
    refuse_divergence(scores)
    own = ("test_loss", *(f"test_{name}" for name in server.task.scoring.names))
    return {name: scores[name] for name in own} | average_scores(server, state.average)


def refuse_divergence(row: Mapping[str, Any]) -> None:
    """End a run whose model has no finite loss any more, by a row with scores.

    Raises:
        DivergedError: the loss is not finite.
    """
    loss = row["test_loss"]
    if not math.isfinite(loss):
        raise DivergedError(f"test_loss is {loss}: training has diverged; lower server_optimizer.lr")


def new_server(run: Task, grid: Grid) -> Server:
    """The fixed parts of the server."""
    config = run.config
    if config.faults:
        grid = cast(Grid, FaultyGrid(grid, build("faults", config.faults), config.seed))
    hosts = discover(grid, config.nodes, config.round_timeout_seconds, run.frozen, run.meaning)
    if len(hosts.clients) != config.population:
        raise ConfigError(
            f"population ({config.population}) differs from the {len(hosts.clients)} clients that the nodes host"
        )
    known = run.partition.sizes(np.arange(config.population, dtype=np.int64))
    check_hosts(hosts, known, exact=run.privacy is not None)
    asynchronous = asynchronous_of(config)
    if asynchronous is not None:
        phases, largest = run.controller.phases, getattr(run.controller, "max_cohort_size", None)
        check_buffers(config, asynchronous, phases, largest, (run.default_work, *run.works.values()), run.compression)
    return Server(
        task=run,
        grid=grid,
        hosts=hosts,
        optimizer=ServerOptimizer(run.new_model(), config.server_optimizer),
        learning_rate=build("learning_rate", config.learning_rate),
        time_model=build("time_model", config.time_model),
        averaging=build("averaging", config.averaging) if config.averaging else None,
        availability=availability_of(config),
        sampler=sampler_of(config),
        asynchronous=asynchronous,
        evaluation_sets=evaluation_sets_of(run),
        folder=Path(config.run_dir),
    )


def start(server: Server) -> ServerState:
    """The state before round 0."""
    warm_start(server.optimizer.model, server.task.config)
    noise, privacy = server.task.config.noise_scale, server.task.privacy
    return ServerState(
        round=0,
        params=server.optimizer.model.params,
        buffers=server.optimizer.model.buffers,
        optimizer=server.optimizer.state_dict(),
        control=server.task.controller.start(),
        averages=Averages.start(noise.decay, noise.z, noise.memory),
        ledger=Ledger(privacy.terms.accounts) if privacy else Ledger(),
        clip_norm=float(privacy.mechanism.clip_norm) if privacy else 0.0,
        noise_history=NoiseHistory(privacy.strategy) if privacy else UNCORRELATED,
    )
