"""Scripts that made the bundled data sets, and one that fetches a larger one."""
