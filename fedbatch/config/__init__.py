"""The config of a run: its keys and their ranges, how it is composed from conf/, and how its parts are built."""
