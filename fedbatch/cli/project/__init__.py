"""``fedbatch new FOLDER``: a project of one's own, that runs: data, model, config and test from the texts beside."""

from pathlib import Path

from fedbatch.core.errors import ConfigError

TEXTS = Path(__file__).parent
SUFFIX = ".txt"  # so that nothing takes these files for code of fedbatch's own


def new(folder: Path) -> list[Path]:
    """Write the project to ``folder``, which must be new or empty.

    Returns:
        Paths of the files.

    Raises:
        ConfigError: something is there already, and would be mixed up with it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"new: {folder} is there already; give the name of a folder that is not")
    written = []
    for text in sorted(TEXTS.rglob(f"*{SUFFIX}")):
        path = folder / text.relative_to(TEXTS).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.read_text(encoding="utf-8"), encoding="utf-8")
        written.append(path)
    return written
