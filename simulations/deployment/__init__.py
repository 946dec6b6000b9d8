"""Real SuperLink and SuperNode processes on this machine, with certificates and keys made on the spot."""
