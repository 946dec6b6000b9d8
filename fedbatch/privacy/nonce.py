"""The nonce of a run: what makes the draws of a second run of one config with one secret others than the first's.

Two runs that shared noise, one of them without a record, would tell that record by their difference. The nonce lies in
the run folder beside the ledger and is no secret. Without a secret file there is none: draws then follow from the seed,
so that two runs of one config are equal bit for bit, and the guarantee says that whoever knows the seed sees through.
"""

import os
from pathlib import Path

from fedbatch.privacy.mechanism import Mechanism

FILE = "nonce"


def nonce_of(mechanism: Mechanism, folder: Path, begun: bool) -> str:
    """The nonce of the run in ``folder``: 32 hexadecimal digits, or nothing where draws follow from the seed.

    Args:
        mechanism: tells where its secret is from.
        folder: the run folder.
        begun: whether the run has made a release; one that has not takes a new nonce, whatever lies in the folder.
    """
    if mechanism.secret_file is None:
        return ""
    path = folder / FILE
    if begun and path.exists():
        return path.read_text().strip()
    # A folder that has lost it goes on with another: the ledger then takes what is done again for new releases.
    nonce = os.urandom(16).hex()
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.write(nonce + "\n")
        file.flush()
        os.fsync(file.fileno())
    return nonce
