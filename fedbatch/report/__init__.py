"""One HTML page for a run or a study: opens from disk, asks the network for nothing."""
