"""The residual network is He et al.'s: its layers, its sizes, its shortcuts."""

import pytest
import torch
from torch import nn

from etude.nn import ResidualNetwork, activations


def test_resnet_20_has_the_papers_number_of_parameters():
    net = ResidualNetwork(widths=(16, 32, 64), blocks=3)
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # the paper counts parameter-free shortcuts
    assert sum(p.numel() for p in net.parameters()) - projections == 269_722
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) == 19
    assert sum(layer.kernel_size == (1, 1) for layer in convolutions) == 2


def test_stages_halve_the_image():
    net = ResidualNetwork(3, 7, (4, 8, 16), 2)
    shapes = [tuple(value.shape[1:]) for value in activations(net, torch.randn(2, 3, 16, 16)).values()]
    assert shapes[0] == (4, 16, 16)
    assert shapes[-2:] == [(16, 4, 4), (7,)]
    assert (8, 8, 8) in shapes


def test_a_block_whose_branch_is_zero_passes_its_input():
    block = ResidualNetwork(widths=(4,)).blocks[0].eval()
    nn.init.zeros_(block.second[1].weight)
    x = torch.randn(2, 4, 6, 6).relu()
    assert torch.equal(block(x), x)


def test_weights_come_from_the_generator():
    one, again, other = (ResidualNetwork(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters()))
    assert not torch.equal(one.output.weight, other.output.weight)
    assert not torch.equal(one.stem[0].weight, other.stem[0].weight)


@pytest.mark.parametrize(("options", "message"), [({"widths": ()}, "widths"), ({"blocks": 0}, "blocks=0")])
def test_sizes_below_one_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ResidualNetwork(**options)
