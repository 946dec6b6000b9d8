"""What a simulated round costs in fedbatch, in plain PyTorch and in other simulators, measured side by side.

Needs more than fedbatch itself: see ``requirements.txt`` in this folder.
"""
