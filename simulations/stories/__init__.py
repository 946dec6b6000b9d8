"""Three short stories, each one command, under five minutes, with a picture: ``python -m simulations.stories.NAME``."""
