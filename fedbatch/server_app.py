"""The Flower ServerApp: build or resume the server, run the rounds, keep the record."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedbatch import posthoc, task
from fedbatch import state as states
from fedbatch.batch.tracker import Tracker
from fedbatch.build import build, trackers
from fedbatch.compose import config_json
from fedbatch.config import from_json
from fedbatch.errors import ConfigError
from fedbatch.faults import FaultyGrid
from fedbatch.hosts import discover
from fedbatch.privacy import ledger
from fedbatch.privacy.ledger import Ledger
from fedbatch.privacy.statement import statement
from fedbatch.results.progress import Progress
from fedbatch.results.store import RunStore
from fedbatch.rounds import run_rounds
from fedbatch.server import Server
from fedbatch.server_step import ServerOptimizer
from fedbatch.state import ServerState
from fedbatch.task import Task
from fedbatch.trackers.following import following

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a whole experiment; the run folder holds everything that is left of it."""
    config = from_json(config_json(context.run_config))
    run = task.load(config.to_json())
    server = new_server(run, grid)
    state = first = resume(server) if config.resume else start(server)
    store = RunStore(server.folder, config)
    checkpoints = store.folder / "checkpoints"
    shown = Progress(config.rounds, state.round)
    followed = following(trackers(config), store.folder, asdict(config), state.round)
    with store.recording(state.round), shown as progress, followed as follow:
        for state, row in run_rounds(server, first):
            store.append(row)
            progress.show(row)
            follow(row)
            if config.checkpoint_every_rounds and state.round % config.checkpoint_every_rounds == 0:
                states.save(state, checkpoints)
        state, calibration = posthoc.finish(server, state)
        states.save(state, checkpoints)
        guarantee = statement(run.privacy, state.ledger) if run.privacy else None
        store.finish(state, guarantee, calibration)


def new_server(run: Task, grid: Grid) -> Server:
    """The fixed parts of the server."""
    config = run.config
    if config.faults:
        grid = cast(Grid, FaultyGrid(grid, build("faults", config.faults), config.seed))
    hosts = discover(grid, config.nodes, config.round_timeout_seconds)
    if len(hosts.clients) != config.population:
        raise ConfigError(
            f"population ({config.population}) differs from the {len(hosts.clients)} clients that the nodes host"
        )
    return Server(
        task=run,
        grid=grid,
        hosts=hosts,
        optimizer=ServerOptimizer(run.new_model(), config.server_optimizer),
        learning_rate=build("learning_rate", config.learning_rate),
        time_model=build("time_model", config.time_model),
        folder=Path(config.run_dir),
    )


def start(server: Server) -> ServerState:
    """The state before round 0."""
    noise, privacy = server.task.config.noise_scale, server.task.privacy
    if (server.folder / ledger.FILE).exists():
        raise ConfigError(
            f"run_dir: {server.folder} has the ledger of an earlier private run; resume it or take another"
        )
    tracker = Tracker(noise.decay, noise.z)
    return ServerState(
        round=0,
        params=server.optimizer.model.params,
        buffers=server.optimizer.model.buffers,
        optimizer=server.optimizer.state_dict(),
        control=server.task.controller.start(),
        noise=tracker,
        within=tracker,
        between=tracker,
        ledger=Ledger(privacy.terms.accounts) if privacy else Ledger(),
        clip_norm=float(privacy.mechanism.clip_norm) if privacy else 0.0,
    )


def resume(server: Server) -> ServerState:
    """The state of the last valid checkpoint, loaded into the server's model and optimizer."""
    try:
        saved = states.load_latest(server.folder / "checkpoints")
    except FileNotFoundError as error:
        raise ConfigError(f"resume: {error}") from error
    model = server.optimizer.model
    with torch.no_grad():
        model.load(saved.params.to(model.params), saved.buffers.to(model.buffers))
    server.optimizer.load_state_dict(saved.optimizer)
    # The file is ahead of the checkpoint by the rounds that a crash undid: what was sent stays charged.
    charged = Ledger.of(saved.ledger.accounts, [*saved.ledger.releases, *ledger.read(server.folder / ledger.FILE)])
    saved = replace(saved, ledger=charged)
    return replace(saved, params=model.params, buffers=model.buffers, optimizer=server.optimizer.state_dict())
