import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.executors import fused, vmap
from fedbatch.executors.fused import fused as run_fused
from fedbatch.executors.memory import Memory, is_out_of_memory
from tests.executors.test_executors import make_job


class SmallDevice:
    """An executor that holds three clients at most, and counts the jobs it was given."""

    def __init__(self, error):
        self.error, self.sizes = error, []

    def __call__(self, job):
        self.sizes.append(len(job.clients))
        if len(job.clients) > 3:
            raise self.error
        return run_fused(job)


def test_what_did_not_fit_is_not_tried_again(caplog):
    job, whole = make_job(), run_fused(make_job())
    device, memory = SmallDevice(torch.OutOfMemoryError("CUDA out of memory")), Memory()
    with caplog.at_level(logging.WARNING, "fedbatch"):
        first = memory.run(device, job, "kind")
    assert device.sizes == [6, 3, 3] and "6 clients: going on with 3" in caplog.text
    caplog.clear()
    second = memory.run(device, job, "kind")
    assert device.sizes == [6, 3, 3, 3, 3] and not caplog.text
    for found in (first, second):
        torch.testing.assert_close(found.update_sum, whole.update_sum)
        np.testing.assert_allclose(found.sq_norms, whole.sq_norms)


def test_jobs_of_another_kind_are_tried_whole():
    device, memory = SmallDevice(MemoryError()), Memory()
    memory.run(device, make_job(), "large batches")
    memory.run(device, make_job(), "small batches")
    assert device.sizes == [6, 3, 3, 6, 3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
        "GET was unable to find an engine to execute this computation: Unable to find an engine to execute",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000000 bytes",
    ],
)
def test_errors_of_libraries_that_mean_too_little_memory(text):
    device = SmallDevice(RuntimeError(text))
    Memory().run(device, make_job(), "kind")
    assert is_out_of_memory(device.error) and device.sizes == [6, 3, 3]


def test_another_error_is_not_taken_for_one_of_memory():
    device = SmallDevice(RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x5 and 7x3)"))
    with pytest.raises(RuntimeError, match="mat1"):
        Memory().run(device, make_job(), "kind")
    assert device.sizes == [6]


@pytest.mark.parametrize("work", ["fedsgd", "steps_proximal"])
@pytest.mark.parametrize("memory_bytes", [1, 20_000, 60_000, 1e9])
def test_chunks_hold_every_client_once_and_fit(work, memory_bytes):
    name = "fused" if work == "fedsgd" else "vmap"
    job = make_job("mlp", work=work, batch=[4] * 6)
    job = replace(job, memory_bytes=memory_bytes)
    rows = list(fused.chunks(job) if name == "fused" else vmap.chunks(job, job.params.numel()))
    assert sorted(np.concatenate(rows)) == list(range(6))
    # (5, 70, 70, 3): outputs of layers twice, of activations between them too, and the input; all of eight bytes
    example = 8 * (5 + 2 * (70 + 70 + 70 + 70 + 3))
    client = 8 * (5 * 70 + 70 + 70 * 70 + 70 + 70 * 3 + 3) * (1 if name == "fused" else 4) + 4 * example
    assert all(len(chunk) == 1 or len(chunk) * client <= memory_bytes for chunk in rows)
    assert len(rows[0]) == min(6, max(1, int(memory_bytes // client)))


@pytest.mark.parametrize("model", ["mlp", "gpt"])
@pytest.mark.parametrize("work", ["fedsgd", "steps_proximal"])
def test_chunks_change_the_sums_by_rounding_only(model, work):
    executor = fused.fused if work == "fedsgd" else vmap.stacked
    whole = executor(make_job(model, work=work))
    for memory_bytes in (1, 1e5, 1e12):
        cut = executor(replace(make_job(model, work=work), memory_bytes=memory_bytes))
        torch.testing.assert_close(cut.update_sum, whole.update_sum)
        np.testing.assert_allclose(cut.sq_norms, whole.sq_norms)
