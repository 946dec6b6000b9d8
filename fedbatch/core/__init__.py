"""What every room may use: keyed random draws, errors, files, signals. Nothing here knows what fedbatch does."""
