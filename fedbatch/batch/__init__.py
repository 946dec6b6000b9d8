"""The large batch: its noise scale, what a larger one would gain, the learning rate and the time that go with it."""

from fedbatch.batch.learning_rate import LearningRate
from fedbatch.batch.time_model import TimeModel

__all__ = ["LearningRate", "TimeModel"]
