"""Studies: one file each, its tables and figures beside it. Run one with ``python -m simulations.NAME``."""
