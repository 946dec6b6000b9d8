"""Models: functions of input shape and number of classes that give a new ``nn.Module``."""

from fedbatch.models.adapted import named_output
from fedbatch.models.convolutional import cnn
from fedbatch.models.dense_autoencoder import autoencoder
from fedbatch.models.hugging_face import hf_causal_lm, hf_classifier
from fedbatch.models.linear import logistic, mlp
from fedbatch.models.resnet import resnet18
from fedbatch.models.transformer import bert, gpt

__all__ = [
    "autoencoder",
    "bert",
    "cnn",
    "gpt",
    "hf_causal_lm",
    "hf_classifier",
    "logistic",
    "mlp",
    "named_output",
    "resnet18",
]
