"""Runs on data sets that are given as objects, and their predictions after training."""

import numpy as np
import pytest
import torch

import fedbatch

TINY = ("controller=fixed", "report=none", "server_optimizer.lr=0.05")
SIZES = {"population": 10, "cohort_size": 4, "client_batch_size": 8, "rounds": 4, "evaluate_every_rounds": 2}


@pytest.fixture
def learn(tmp_path):
    """``learn(data, "task=regression")``: the result of a short run on a data set."""

    def run(data, *overrides, folder="run", **values):
        return fedbatch.run(*TINY, *overrides, dataset=lambda: data, run_dir=tmp_path / folder, **(SIZES | values))

    return run


@pytest.fixture
def predictions():
    """Outputs of a result's model for inputs, float64."""

    def of(result, x):
        with torch.no_grad():
            return result.model(torch.as_tensor(np.asarray(x))).double()

    return of
