"""Models: functions ``(input_shape, num_classes, **size) -> torch.nn.Module``, one file each, and `FlatModel`."""
