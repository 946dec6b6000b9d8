"""What ``fedbatch COMMAND`` does besides running: look at runs, score and export what they trained."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fedbatch.core.errors import ConfigError


def run_command(name: str, *arguments: str) -> int:
    """Exit status of a command: 0, or 2 with one line that says what is wrong."""
    if {"--help", "-h"} & set(arguments):
        print(COMMANDS[name].__doc__)
        return 0
    try:
        COMMANDS[name](list(arguments))
    except (ConfigError, FileNotFoundError, NotADirectoryError) as error:
        print(f"fedbatch: {name}: {str(error).removeprefix(f'{name}: ')}", file=sys.stderr)
        return 2
    return 0


def status(folders: list[str]) -> None:
    """Fedbatch status FOLDER...: the runs there, and how to go on with those that are not done."""
    from rich.console import Console

    from fedbatch.results.status import status_table

    for folder in folders or ["runs"]:
        Console().print(status_table(folder))


def report(folders: list[str]) -> None:
    """Fedbatch report RUN_OR_SWEEP...: one page on them all."""
    from fedbatch.report.page import told, write_report

    print(told(write_report([Path(folder) for folder in folders or ["runs"]])))


def doctor(_: list[str]) -> None:
    """Fedbatch doctor: what is there, and how to get what is missing."""
    from rich.console import Console

    from fedbatch.cli.doctor import tables

    logging.getLogger("fedbatch").setLevel(logging.WARNING)  # data sets say what they left out
    for table in tables():
        Console().print(table, "", highlight=False)


def evaluate(arguments: list[str]) -> None:
    """Fedbatch evaluate RUN [dataset=... metrics=...]: scores of its model on the test split, as JSON."""
    from fedbatch.trained import evaluate

    if not arguments:
        raise ConfigError("give the folder of a run, e.g. fedbatch evaluate runs/a dataset=digits")
    print(json.dumps(evaluate(arguments[0], *arguments[1:]), indent=2))


def export(arguments: list[str]) -> None:
    """Fedbatch export RUN FILE: its model's parameters and buffers as FILE.safetensors or FILE.pt."""
    from fedbatch.trained import export

    if len(arguments) != 2:
        raise ConfigError("give the folder of a run and a file, e.g. fedbatch export runs/a model.safetensors")
    export(*arguments)
    print(f"{arguments[1]}: {Path(arguments[1]).stat().st_size / 1e6:.2f} MB")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "status": status,
    "report": report,
    "evaluate": evaluate,
    "export": export,
    "doctor": doctor,
}
