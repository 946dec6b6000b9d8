"""Each client's own parameters are a copy, in the layout of the global ones."""

import torch

from fedbatch.executors.client_layers import repeated


def test_a_repeated_parameter_keeps_layout_and_is_new_memory():
    for shape in [(), (5,), (4, 3), (4, 2, 3, 3), (4, 1, 3, 3), (4, 3, 1, 1)]:
        plain = torch.randn(shape)
        layouts = [plain, plain.contiguous(memory_format=torch.channels_last)] if len(shape) == 4 else [plain]
        for p in layouts:
            for clients in (1, 3):
                own = repeated(p, clients)
                assert own.shape == (clients, *shape) and own[0].stride() == p.stride()
                own += 1
                assert torch.equal(own[clients - 1], p + 1) and torch.equal(p, plain)
