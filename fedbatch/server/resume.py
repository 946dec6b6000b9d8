"""Going on with a run: what it is made of, its checkpoints, and refusing to go on as another."""

import logging
import pickle
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch

from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.data.mapped import compared
from fedbatch.privacy import ledger
from fedbatch.privacy.ledger import Ledger
from fedbatch.privacy.noise_history import NoiseHistory
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.results import identity as identities
from fedbatch.results.folder import refuse_changes
from fedbatch.results.identity import Identity
from fedbatch.runtime.faults import FaultyGrid
from fedbatch.server import checkpoint
from fedbatch.server.charging import cost_of_resuming
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState

log = logging.getLogger("fedbatch")
BEST = "best"
"""Folder of the checkpoint with the best ``target_metric``, in that of the run."""


def begin(server: Server, state: ServerState) -> tuple[Identity, ServerState]:
    """A new run in the folder, and the state it starts from."""
    identity = fingerprint(server).begun()
    identities.write(server.folder, identity)
    return identity, state


def save(
    server: Server, identity: Identity, state: ServerState, durable: bool = True, place: str = "checkpoints"
) -> None:
    """Write a checkpoint of this run to the folder ``place`` in its own."""
    if server.task.config.faults:
        state = replace(state, answered=tuple(sorted(cast(FaultyGrid, server.grid).answered)))
    if server.task.privacy:
        state = replace(state, noise_history=state.noise_history.sealed(server.task.privacy.randomness))
    checkpoint.save(state, server.folder / place, asdict(identity), durable)


def resume(server: Server) -> tuple[Identity, ServerState]:
    """The run of the folder, and the state of its last valid checkpoint, loaded into the server's model and optimizer.

    Raises:
        ConfigError: no checkpoint, or config, data or code are not those of the run.
    """
    folder, now = server.folder, fingerprint(server)
    identity = identities.read(folder)
    try:
        saved, header = checkpoint.load(folder / "checkpoints", identity.run if identity else None)
    except FileNotFoundError as error:
        raise ConfigError(f"resume: {error}") from error
    except pickle.UnpicklingError as error:  # it asks for more than tensors and plain values
        raise ConfigError(f"resume: the checkpoint in {folder} is not what fedbatch writes; delete it") from error
    if identity is None and "run" in header:
        identity = identities.of_header(header)
    refuse_changes(folder, server.task.config, identity, now)
    state = replace(load(server, saved), ledger=charged(server, saved))
    if server.task.privacy:
        state = replace(state, noise_history=history(server.task.privacy, state))
    if server.task.privacy and (cost := cost_of_resuming(server, server.task.privacy, state)):
        log.warning("%s", cost)
    if server.task.config.faults:
        cast(FaultyGrid, server.grid).answered.update(state.answered)
    if identity is None:
        log.warning("%s is of an earlier fedbatch: whether data and code are as they were cannot be told", folder)
        identity = now.begun()
        save(server, identity, state)
    identities.write(folder, identity)
    return identity, state


def load(server: Server, saved: ServerState) -> ServerState:
    """The state with the server's own tensors, which get the values that were saved."""
    model = server.optimizer.model
    try:
        with torch.no_grad():
            model.load(saved.params.to(model.params), model.of_all_floats(saved.buffers.to(model.buffers)))
        server.optimizer.load_state_dict(saved.optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"resume: the checkpoint is of another model or server_optimizer ({reason})") from error
    return replace(
        saved,
        params=model.params,
        buffers=model.buffers,
        optimizer=server.optimizer.state_dict(),
        average={name: values.to(model.params.device) for name, values in saved.average.items()},
        shared={name: values.to(model.params.device) for name, values in saved.shared.items()},
        under_way=saved.under_way.to(model.params.device),
    )


def charged(server: Server, saved: ServerState) -> Ledger:
    """The ledger with what its file has beyond the checkpoint: rounds that a crash undid were sent and stay charged."""
    return Ledger.of(saved.ledger.accounts, [*saved.ledger.releases, *ledger.read(server.folder / ledger.FILE)])


def history(privacy: PrivacyPlan, saved: ServerState) -> NoiseHistory:
    """The noise of earlier rounds, opened.

    Raises:
        ConfigError: the run began with another number of bands, or with another secret.
    """
    bands, now = len(saved.noise_history.coefficients), privacy.terms.bands
    if bands != now:
        raise ConfigError(
            f"resume: the run began with noise over {bands} bands, and privacy.bands=auto now takes {now}; resume it "
            "with the rounds with which it began"
        )
    return saved.noise_history.opened(privacy.randomness, saved.params)


def fingerprint(server: Server) -> Identity:
    """What this run is made of."""
    held, hosts = server.task, server.hosts
    arrays = [*compared(held.train_x), *(each.cpu().numpy() for each in (held.train_y, held.test_x, held.test_y))]
    read = [*tables(server.availability), *tables(server.sampler), *tables(server.time_model)]
    data = identities.hash_arrays([*arrays, *ends(held.partition), hosts.clients, hosts.num_examples, *read])
    if held.privacy is not None:  # a bare hash would confirm a guess of all examples but one
        data = held.privacy.randomness.digest(("data",), [data.encode()])
    return Identity(
        config=held.config.identity(),
        data=data,
        code=identities.hash_code(asdict(held.config), map(type, server.optimizer.model.module.modules())),
        frozen=held.frozen,
    )


def tables(part: object) -> Sequence[np.ndarray]:
    """What a part has read from files of its own."""
    return getattr(part, "tables", ())


def ends(partition: HoldoutPartition) -> tuple[Ints, Ints, Ints]:
    """Sizes of the clients, and the first and the last example of each that has one: what tells partitions apart."""
    clients = np.arange(len(partition), dtype=np.int64)
    sizes = partition.sizes(clients)
    some = clients[sizes > 0]
    return sizes, partition.lookup(some, np.zeros_like(some)), partition.lookup(some, sizes[some] - 1)
