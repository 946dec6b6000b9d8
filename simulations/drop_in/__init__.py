"""An ordinary Flower app, as its PyTorch quickstart has it, with one line that measures the noise scale."""
