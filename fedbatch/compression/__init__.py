"""Compression of what clients send: stages with a client half and a server half, which own their bytes."""

from fedbatch.compression.chain import Compression
from fedbatch.compression.half import Half
from fedbatch.compression.power_sgd import PowerSGD
from fedbatch.compression.qsgd import QSGD
from fedbatch.compression.rand_k import RandK
from fedbatch.compression.sign import Sign
from fedbatch.compression.stage import Side, Stage, uniform
from fedbatch.compression.top_k import TopK

__all__ = ["QSGD", "Compression", "Half", "PowerSGD", "RandK", "Side", "Sign", "Stage", "TopK", "uniform"]
