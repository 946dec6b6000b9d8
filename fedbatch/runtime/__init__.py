"""Where client work runs: in this process, or wherever Flower runs it."""
