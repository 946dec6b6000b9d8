"""An ordinary Flower app, as its PyTorch quickstart has it, without evaluation."""
