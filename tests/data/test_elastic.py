"""Elastic deformation beside the loop of scipy that it replaces, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from etude.data import elastic_deform
from etude.data.elastic import resample


def by_scipy(images, sigma, alpha, generator):
    """Image by image, as the authors do, but fading at the edge."""
    n, channels, height, width = images.shape
    noise = torch.empty(n, 2, height, width).uniform_(-1, 1, generator=generator).double().numpy()
    rows, columns = np.mgrid[0:height, 0:width]
    made = np.empty_like(images.numpy())
    for i in range(n):
        down, right = (alpha * ndimage.gaussian_filter(field, sigma, mode="constant") for field in noise[i])
        for c in range(channels):
            places = [rows + down, columns + right]
            made[i, c] = ndimage.map_coordinates(images[i, c].numpy(), places, order=1, mode="grid-constant")
    return made


@pytest.mark.parametrize(("shape", "sigma", "alpha"), [((5, 1, 28, 28), 4.0, 20.0), ((3, 2, 9, 13), 1.3, 7.0)])
def test_deformation_is_that_of_the_loop_over_images(shape, sigma, alpha):
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = elastic_deform(images, sigma, alpha, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(
        ours.numpy(), by_scipy(images, sigma, alpha, torch.Generator().manual_seed(1)), atol=1e-12
    )


def test_a_whole_displacement_shifts():
    images = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    there = torch.zeros(2, 2, 6, 5, dtype=torch.float64)
    assert torch.allclose(resample(images, there), images, atol=1e-12)
    there[:, 0], there[:, 1] = 2, -1
    shifted = torch.zeros_like(images)
    shifted[:, :, :4, 1:] = images[:, :, 2:, :4]
    assert torch.allclose(resample(images, there), shifted, atol=1e-12)


def test_no_scale_no_deformation_and_the_range_is_kept():
    images = torch.rand(20, 1, 28, 28)
    assert torch.allclose(elastic_deform(images, alpha=0.0), images, atol=1e-5)
    bent = elastic_deform(images, generator=torch.Generator().manual_seed(0))
    assert bent.amin() >= -1e-6
    assert bent.amax() <= 1 + 1e-6
    assert not torch.allclose(bent, images, atol=0.1)
    assert not torch.allclose(*elastic_deform(images[:1].expand(2, -1, -1, -1)), atol=0.01)  # each in its own way


def test_the_generator_alone_decides():
    images = torch.rand(4, 1, 8, 8)
    one, again, other = (elastic_deform(images, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_displacements_deviate_by_as_many_pixels_as_said():
    ramp = torch.arange(60.0, dtype=torch.float64).expand(200, 1, 60, 60)
    moved = elastic_deform(ramp, generator=torch.Generator().manual_seed(0)) - ramp
    assert moved[:, :, 30, 30].std() == pytest.approx(0.8, abs=0.15)


def test_gradients_flow_to_the_images():
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: elastic_deform(x, 1.0, 2.0, torch.Generator().manual_seed(0)), images)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(2, 1, 4, 4, dtype=torch.uint8),), TypeError, "images: torch.uint8"),
        ((np.ones((2, 1, 4, 4)),), TypeError, "images: ndarray"),
        (([1.0],), TypeError, "images: list"),
        ((torch.ones(1, 4, 4),), ValueError, r"images: shape \(1, 4, 4\)"),
        ((torch.ones(2, 1, 4, 4), 0.0), ValueError, "sigma=0.0"),
        ((torch.ones(2, 1, 4, 4), 4.0, -1.0), ValueError, "alpha=-1.0"),
        ((torch.ones(2, 1, 4, 4), 4.0, float("nan")), ValueError, "alpha=nan"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        elastic_deform(*arguments)
