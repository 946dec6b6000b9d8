import inspect
from pathlib import Path

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
CHOICES = [path for group in ("dataset", "partitioner") for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_choice_lists_every_argument_and_the_command_that_uses_it(path):
    assert f"{path.parent.name}={path.stem}" in path.read_text().splitlines()[0]
    given = {key for key in OmegaConf.load(path) if key not in ("_target_", "_convert_")}
    target = get_method(OmegaConf.load(path)._target_)
    named = {name for name, p in inspect.signature(target).parameters.items() if p.kind is not p.VAR_KEYWORD}
    named -= {"dataset", "label_kind"}  # the caller passes these
    if "kind" in given:
        from flwr_datasets import partitioner

        named |= set(inspect.signature(getattr(partitioner, OmegaConf.load(path).kind)).parameters)
    assert given == named


def test_a_choice_splits_the_data_set_passed_by_the_caller():
    from hydra.utils import instantiate

    from fedbatch.data.bundled import digits

    conf = OmegaConf.create({"seed": 0, "population": 12, "partitioner": OmegaConf.load(CONF / "partitioner/iid.yaml")})
    assert len(instantiate(conf.partitioner, digits())) == 12
