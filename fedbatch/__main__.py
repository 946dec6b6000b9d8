"""``python -m fedbatch`` is the command ``fedbatch``."""

from fedbatch.cli.app import main

main()
