"""Which run a folder holds: an id, and fingerprints of all that makes a resumed run the same run."""

import hashlib
import inspect
import sys
import sysconfig
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hydra.utils import get_object

import fedbatch
from fedbatch.core.errors import ConfigError
from fedbatch.core.files import from_json, to_json, write_atomically

FILE, VERSION = "run.json", 1
TRUSTED = ("fedbatch", "torch", "flwr", "builtins")
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class Identity:
    """A run and what it is made of.

    Attributes:
        run: 32 random hexadecimal digits, drawn when the run starts and kept when it is resumed.
        config: `RunConfig.identity` of the config.
        data: hash of examples, labels and whose they are.
        code: hash of the source file of each module outside fedbatch that the config or the model names.
        fedbatch: version that started the run.
        frozen: digest of the model's frozen part; empty where there is none, and in runs of earlier versions.
    """

    config: str
    data: str
    code: dict[str, str]
    fedbatch: str = fedbatch.__version__
    run: str = ""
    frozen: str = ""

    def begun(self) -> "Identity":
        """The same with a fresh id."""
        return replace(self, run=uuid.uuid4().hex)

    def changes(self, now: "Identity") -> list[str]:
        """What differs now, in words; not the config, whose keys say it better."""
        data = ["the data have"] if now.data != self.data else []
        data += ["the frozen part of the model has"] if self.frozen and now.frozen != self.frozen else []
        names = sorted(self.code | now.code)
        return data + [f"the code of {name} has" for name in names if self.code.get(name) != now.code.get(name)]


def read(folder: Path) -> Identity | None:
    """What ``run.json`` says; None where there is none, as in a folder of an earlier fedbatch.

    Raises:
        ConfigError: it is damaged, or of a newer fedbatch.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return parse(from_json(path.read_bytes()))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged; delete it to go on without comparing data and code") from error


def parse(values: Mapping[str, Any]) -> Identity:
    """The identity that `asdict` and a version were made of.

    Raises:
        ConfigError: of a newer version.
    """
    if values["version"] > VERSION:
        raise ConfigError(f"was written by a newer fedbatch (version {values['version']}); update fedbatch")
    code = {str(name): str(digest) for name, digest in values["code"].items()}
    config, data, version, run = (str(values[name]) for name in ("config", "data", "fedbatch", "run"))
    return Identity(config, data, code, version, run, str(values.get("frozen", "")))


def of_header(header: Mapping[str, Any]) -> Identity:
    """The identity in the header of a checkpoint, which stands in where ``run.json`` is lost."""
    return parse({**header, "version": VERSION})


def write(folder: Path, identity: Identity) -> None:
    """Write ``run.json``."""
    text = to_json({"version": VERSION, **asdict(identity)}, indent=2)
    write_atomically(folder / FILE, (text + "\n").encode())


def hash_arrays(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    """Hash of shapes, dtypes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def hash_code(config: Mapping[str, Any], classes: Iterable[type]) -> dict[str, str]:
    """Hash of each source file that is not fedbatch's: of targets of a config, of classes, and of what they import."""
    modules: dict[str, ModuleType] = {}
    for name in [*map(_module_of, _targets(config)), *(each.__module__ for each in classes)]:
        _add(name, modules)
    return {
        name: hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
        for name, module in sorted(modules.items())
    }


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(target := node.get("_target_"), str):
            yield target
        for value in node.values():
            yield from _targets(value)
    if isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def _module_of(target: str) -> str:
    """The module that defines a target, which need not be the one it is named after."""
    if target.split(".")[0] in TRUSTED:
        return ""
    module = inspect.getmodule(get_object(target))
    return module.__name__ if module else ""


def _add(name: str, modules: dict[str, ModuleType]) -> None:
    """Add a module, and of one that is not installed those that it uses."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or name in modules or name.split(".")[0] in TRUSTED or not file or not Path(file).is_file():
        return
    modules[name] = module
    if file.startswith(INSTALLED):
        return
    for value in list(vars(module).values()):
        used = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        used_file = getattr(sys.modules.get(str(used)), "__file__", None)
        if isinstance(used, str) and used_file and not used_file.startswith(INSTALLED):
            _add(used, modules)
