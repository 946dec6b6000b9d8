"""What ``fedbatch COMMAND`` does besides running: look at runs, score and export what they trained."""

import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedbatch.config.compose import search_also
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.core.visible import visible


def run_command(name: str, *arguments: str) -> int:
    """Exit status of a command: 0, or 2 with one line that says what is wrong."""
    if {"--help", "-h"} & set(arguments):
        print(inspect.getdoc(COMMANDS[name]))
        return 0
    try:
        left, trusted = without_trust(arguments)
        if name in COMPOSING:
            left, folder = without_config_dir(left)
            if folder:
                search_also(folder)
                left += ["--folder", folder] if name in WRITING and not {"--folder"} & set(left) else []
        COMMANDS[name](left, trusted)
    except PermissionError as error:
        print(f"fedbatch: {name}: {visible(error.filename)}: {error.strerror}", file=sys.stderr)
        return 1
    except RunFailedError as error:
        print(f"fedbatch: {name}: {visible(error)}", file=sys.stderr)
        return 1
    except (ConfigError, FileNotFoundError, NotADirectoryError) as error:
        print(f"fedbatch: {name}: {visible(str(error).removeprefix(f'{name}: '))}", file=sys.stderr)
        return 2
    return 0


def without_trust(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that are left, and the modules that ``--trust MODULE`` or ``--trust=MODULE`` name.

    Raises:
        ConfigError: a --trust without a name.
    """
    left, trusted = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        if word != "--trust" and not word.startswith("--trust="):
            left.append(word)
            continue
        name = next(words, "") if word == "--trust" else word.removeprefix("--trust=")
        if not name:
            raise ConfigError("--trust: give the name of a module, e.g. --trust my_loss")
        trusted += name.split(",")
    return left, trusted


def without_config_dir(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The arguments that are left, and the folder of ``--config-dir FOLDER``, Hydra's name for it; "" without.

    Raises:
        ConfigError: a --config-name, for these commands compose the usual config.
    """
    left, folder = list[str](), ""
    words = iter(arguments)
    for word in words:
        if word in ("--config-dir", "-cd"):
            folder = next(words, "")
        elif word.startswith("--config-dir="):
            folder = word.partition("=")[2]
        elif word.startswith(("--config-name", "-cn")):
            raise ConfigError(f"{word}: give the overrides that the file's comment has in its place, as for a run")
        else:
            left.append(word)
    return left, folder


def without_best(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--best``, and whether it was among them."""
    return [word for word in arguments if word != "--best"], "--best" in arguments


def status(folders: list[str], _: list[str]) -> None:
    """The runs there, and how to go on with those that are not done: ``fedbatch status FOLDER...``."""
    from rich.console import Console

    from fedbatch.results.status import status_table

    for folder in folders or ["runs"]:
        Console().print(status_table(folder))


def spent(folders: list[str], _: list[str]) -> None:
    """What private runs on the same data have spent together: ``fedbatch spent FOLDER...``."""
    from rich.console import Console

    from fedbatch.results.spent import sentences, spent, spent_table

    runs = spent(folders or ["runs"])
    Console().print(spent_table(runs))
    for line in sentences(runs):
        Console(markup=False, highlight=False).print(line, soft_wrap=True)


def report(folders: list[str], trust: list[str]) -> None:
    """One page on them all: ``fedbatch report RUN_OR_SWEEP... [--trust MODULE]``."""
    from fedbatch.report.page import announcement, write_report
    from fedbatch.report.read import strangers

    paths = [Path(folder) for folder in folders or ["runs"]]
    print(announcement(write_report(paths, trust=trust)))
    for line in strangers(paths, trust):
        print(f"fedbatch: report: {visible(line)}", file=sys.stderr)


def watch(arguments: list[str], trust: list[str]) -> None:
    """A page that follows runs under way: ``fedbatch watch [RUN_OR_SWEEP...] [--port N] [--trust MODULE]``.

    It is served to browsers of this machine only, until Ctrl-C.
    """
    from fedbatch.cli.arguments import Arguments
    from fedbatch.report.watch import address, server

    parser = Arguments("watch")
    parser.add_argument("folders", nargs="*", default=["runs"])
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args(arguments)
    with server([Path(folder) for folder in given.folders], given.port, trust) as served:
        print(f"{address(served)}   (Ctrl-C ends it)", flush=True)
        try:
            served.serve_forever()
        except KeyboardInterrupt:
            print()


def doctor(arguments: list[str], _: list[str]) -> None:
    """What is there, and how to get what is missing: ``fedbatch doctor``.

    With overrides, what a run of them would need of this machine: ``fedbatch doctor model=cnn population=1000``.
    With other arguments, what would keep this machine out of a federation: ``fedbatch doctor [HOST:PORT] [FILE...]``
    makes a TLS handshake with the SuperLink by the authority's certificate among the files, and sees that others on
    this machine cannot read the other files, such as keys. Exit status 1 if something is wrong.
    """
    overrides = [argument for argument in arguments if "=" in argument]
    if arguments and not overrides:
        from fedbatch.cli.connection import main

        if not main(arguments):
            sys.exit(1)
        return
    from rich.console import Console

    from fedbatch.cli.doctor import tables

    logging.getLogger("fedbatch").setLevel(logging.WARNING)  # data sets say what they left out
    for table in tables(overrides):
        Console().print(table, "", highlight=False)


def critical(arguments: list[str], trust: list[str]) -> None:
    """What other batches would need: ``fedbatch critical RUN [RUN...] [--loss L] [--batches 16,64] [--cohorts 8,32]``.

    What the first run says of the rounds, examples, bytes and seconds that other batches would need; other runs are set
    beside it. --loss: a training loss to get to, may be given again. --batches: global batches; --cohorts: clients.
    """
    from fedbatch.cli.critical import main

    main(arguments, trust)


def audit(arguments: list[str], trust: list[str]) -> None:
    """Whether its epsilon holds against an attack: ``fedbatch audit privacy=... [overrides] [--canaries N]``.

    The run that these overrides would be is done with canaries for its data, and an attacker who sees every release
    guesses which of them are there. --canaries: how many, 1,000 if not given. --no-control: without a second attack on
    a tenth of the noise, which shows whether the first would have found a fault. Exit status 1 if the claim is refuted.
    """
    from fedbatch.cli.audit import main

    if not main(arguments, trust):
        sys.exit(1)


def plan(arguments: list[str], _: list[str]) -> None:
    """What a private run needs, before it: ``fedbatch plan privacy=client_central privacy.target_epsilon=8 [...]``.

    The noise for batches that double and for other numbers of rounds, the batch beyond which little is gained, a
    picture (plan.png) and a config to run (plan.yaml). Overrides are those of the run. --norm: length of a
    contribution, or --run: a run folder, from which the sampling noise is known. --folder: where the files go.
    """
    from fedbatch.cli.plan import main

    main(arguments)


def advise(arguments: list[str], _: list[str]) -> None:
    """Which batch to take, by a short probe: ``fedbatch advise [--minutes 2] [overrides]``.

    The probe is a run of this config at a small batch; all other batches are predicted from it. The table has a line
    for each cost: rounds, examples, bytes, seconds by LAN, by WAN and by the config's own time_model (yours).
    --minutes: that the probe may take. --cost NAME=ROUND,CLIENT,EXAMPLE,BYTE: a cost of your own, may be given again.
    --for NAME: the cost that advice.yaml is for. --folder: where it goes; run it by --config-name=advice.
    """
    from fedbatch.cli.advise import main

    main(arguments)


def evaluate(arguments: list[str], trust: list[str]) -> None:
    """Scores of its model on the test split, as JSON: ``fedbatch evaluate RUN [dataset=... metrics=...] [--best]``."""
    from fedbatch.trained import evaluate

    arguments, best = without_best(arguments)
    if not arguments:
        raise ConfigError("give the folder of a run, e.g. fedbatch evaluate runs/a dataset=digits")
    print(json.dumps(evaluate(arguments[0], *arguments[1:], trust=trust, best=best), indent=2))


def export(arguments: list[str], trust: list[str]) -> None:
    """Its model's parameters and buffers as FILE.safetensors or FILE.pt: ``fedbatch export RUN FILE [--best]``.

    A model of Hugging Face goes to a folder, merged: ``fedbatch export RUN FOLDER``.
    --best: of the best target_metric, in a run with keep_best=true.
    """
    from fedbatch.trained import export

    arguments, best = without_best(arguments)
    if len(arguments) != 2:
        raise ConfigError("give the folder of a run and a file, e.g. fedbatch export runs/a model.safetensors")
    export(arguments[0], arguments[1], trust=trust, best=best)
    target = Path(arguments[1])
    written = sum(path.stat().st_size for path in [target, *target.glob("*")] if path.is_file())
    print(f"{visible(arguments[1])}: {written / 1e6:.2f} MB")


def new(folders: list[str], _: list[str]) -> None:
    """A project of your own that runs, with data, model, config and test to change: ``fedbatch new FOLDER``."""
    from fedbatch.cli.project import new

    if len(folders) != 1:
        raise ConfigError("give the name of a folder, e.g. fedbatch new my_project")
    paths = new(Path(folders[0]))
    for path in paths:
        print(f"  {visible(str(path))}")
    print("\nTo run it:")
    print(f"  cd {visible(folders[0])}")
    print("  fedbatch --config-dir conf experiment=first")
    print("  python -m pytest -q")


COMPOSING, WRITING = ("audit", "plan", "advise", "doctor"), ("plan", "advise")
"""Commands that take overrides of a run; and those that write a config, beside the parts that it names."""
COMMANDS: Mapping[str, Callable[[list[str], list[str]], None]] = {
    "status": status,
    "spent": spent,
    "report": report,
    "watch": watch,
    "critical": critical,
    "audit": audit,
    "plan": plan,
    "advise": advise,
    "evaluate": evaluate,
    "export": export,
    "new": new,
    "doctor": doctor,
}
