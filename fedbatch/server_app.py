"""The Flower ServerApp: build or resume the server, run the rounds, keep the record."""

from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedbatch import state as states
from fedbatch import task
from fedbatch.batch.tracker import Tracker
from fedbatch.build import build
from fedbatch.compose import config_json
from fedbatch.config import from_json
from fedbatch.errors import ConfigError
from fedbatch.hosts import discover
from fedbatch.results.progress import Progress
from fedbatch.results.store import RunStore
from fedbatch.rounds import Server, run_rounds
from fedbatch.server_step import ServerOptimizer
from fedbatch.state import ServerState
from fedbatch.task import Task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a whole experiment; the run folder holds everything that is left of it."""
    config = from_json(config_json(context.run_config))
    run = task.load(config.to_json())
    server = new_server(run, grid)
    store = RunStore(Path(config.run_dir), config)
    state = first = resume(server, store) if config.resume else start(server)
    checkpoints = store.folder / "checkpoints"
    with store.recording(state.round), Progress(config.rounds, state.round) as progress:
        for state, row in run_rounds(server, first):
            store.append(row)
            progress.show(row)
            if config.checkpoint_every_rounds and state.round % config.checkpoint_every_rounds == 0:
                states.save(state, checkpoints)
        states.save(state, checkpoints)
        store.finish(state)


def new_server(run: Task, grid: Grid) -> Server:
    """The fixed parts of the server."""
    config = run.config
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
    )


def start(server: Server) -> ServerState:
    """The state before round 0."""
    noise = server.task.config.noise_scale
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
    )


def resume(server: Server, store: RunStore) -> ServerState:
    """The state of the last valid checkpoint, loaded into the server's model and optimizer."""
    try:
        saved = states.load_latest(store.folder / "checkpoints")
    except FileNotFoundError as error:
        raise ConfigError(f"resume: {error}") from error
    model = server.optimizer.model
    with torch.no_grad():
        model.load(saved.params.to(model.params), saved.buffers.to(model.buffers))
    server.optimizer.load_state_dict(saved.optimizer)
    return replace(saved, params=model.params, buffers=model.buffers, optimizer=server.optimizer.state_dict())
