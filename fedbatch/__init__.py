"""fedbatch: federated learning with large global batches, on Flower and PyTorch."""

__version__ = "0.1.0"
