"""The command ``fedbatch``: compose a config, run it, and look at what runs have left."""
