"""Blocks: where the signal is, that the rest says nothing, and that placements are drawn."""

import pytest
import torch

from etude.data import block_images, images, signal_blocks, square_patch


def pictures(n=40, channels=1, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, size, size, generator=generator), torch.randint(2, (n,), generator=generator)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_relevant_block_is_the_picture_and_the_other_the_patch(axis, channels):
    x, y = pictures(channels=channels)
    blocks = block_images(x, y, axis=axis, generator=torch.Generator().manual_seed(1))
    assert blocks.x.shape == blocks.relevant.shape == (40, channels, *((16, 8) if axis == 0 else (8, 16)))
    patch = square_patch(x)
    halves = blocks.x.chunk(2, 2 + axis)
    first = blocks.relevant.chunk(2, 2 + axis)[0].flatten(1).all(1)
    for image, top, one, two in zip(x, first, *halves):
        assert torch.equal(one if top else two, image)
        assert torch.equal(two if top else one, patch)
    assert (blocks.relevant.flatten(1).sum(1) == channels * 64).all()
    assert 5 < first.sum() < 35
    assert blocks.y is y


def test_the_picture_is_on_top_where_it_should_be():
    x, y = pictures()
    blocks = block_images(x, y, placement="top")
    assert torch.equal(blocks.x[:, :, :8], x)
    assert blocks.relevant[:, :, :8].all()
    assert not blocks.relevant[:, :, 8:].any()


def test_the_patch_is_a_textured_square_as_bright_as_the_pictures():
    for x in (images("digits").train.x, pictures(channels=3, size=28)[0] * 0.5):
        patch = square_patch(x)
        assert torch.allclose(patch.mean((1, 2)), x.mean((0, 2, 3)))
        assert patch.min() >= 0
        assert patch.max() <= 1
        assert patch[:, 0].eq(0).all()
        assert len(patch[0].unique()) == 3


def test_a_patch_of_ones_own():
    x, y = pictures()
    blocks = block_images(x, y, null=torch.full((1, 8, 8), 0.25), placement="top")
    assert (blocks.x[:, :, 8:] == 0.25).all()


def test_placements_are_the_generators():
    x, y = pictures()
    one, two, other = (block_images(x, y, generator=torch.Generator().manual_seed(s)).x for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"placement": "left"}, "placement='left'"),
        ({"axis": 2}, "axis=2"),
        ({"null": "circle"}, "null='circle'"),
        ({"null": torch.zeros(1, 4, 4)}, "null: "),
        ({"null": torch.full((1, 8, 8), torch.nan)}, "null: "),
        ({"labels": torch.zeros(3)}, "signal_images: .* with 3 labels"),
        ({"signal_images": torch.zeros(40, 64)}, "signal_images: shape"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    x, y = pictures()
    with pytest.raises(ValueError, match=message):
        block_images(**{"signal_images": x, "labels": y, **change})


def test_signal_blocks_are_as_the_theorem_has_them():
    blocks = signal_blocks(4000, 8, 3, 0.5, torch.Generator().manual_seed(0), dtype=torch.float64)
    x, relevant = blocks.x.view(4000, 8, 3), blocks.relevant.view(4000, 8, 3)
    assert (relevant.all(2).sum(1) == 1).all()
    assert not relevant[:, 4:].any()
    counts = relevant.all(2).sum(0)[:4]
    assert ((counts - 1000).abs() < 150).all()
    signal = blocks.y[:, None] / 3**0.5
    noise = torch.where(relevant, x - signal[..., None], x)
    radius = noise.norm(dim=2) / 0.5
    assert radius.max() <= 1
    assert abs(float((radius**3).mean()) - 0.5) < 0.01
    assert set(blocks.y.tolist()) == {-1, 1}
    clean = signal_blocks(10, 2, 1, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(clean.x, torch.stack([clean.y, 0 * clean.y], 1).float())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"d": 3}, "d=3: .*even"), ({"n": 0}, "n=0"), ({"block_size": 0}, "block_size=0"), ({"noise": -1.0}, "noise=-1")],
)
def test_bad_signal_blocks_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        signal_blocks(**{"n": 4, "d": 4, "block_size": 2, "noise": 0.1, "generator": torch.Generator(), **change})
