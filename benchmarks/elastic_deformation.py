"""Elastic deformation of a batch of 250 images of 28x28: ours, the authors' loop over scipy, and elasticdeform.

elasticdeform draws displacements on a coarse grid and interpolates them by splines, another deformation of the same
kind; here in steps of 4 pixels, as the Gaussian's width is 4. Build it from source where numpy is 2 or newer:
`pip install --no-binary elasticdeform elasticdeform`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from benchmarks.measuring import Row, installed, medians
from etude.data import elastic_deform

SIGMA, ALPHA = 4.0, 20.0


def by_scipy(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The loop that people write."""
    height, width = images.shape[1:]
    rows, columns = np.mgrid[0:height, 0:width]
    made = np.empty_like(images)
    for image, out in zip(images, made):
        noise = generator.uniform(-1, 1, (2, height, width))
        down, right = (ALPHA * ndimage.gaussian_filter(field, SIGMA, mode="constant") for field in noise)
        out[:] = ndimage.map_coordinates(image, [rows + down, columns + right], order=1)
    return made


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    batch, repetitions = (50, 3) if quick else (250, 15)
    images = torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    arrays, torch_draws, numpy_draws = images[:, 0].numpy(), torch.Generator().manual_seed(1), np.random.default_rng(1)
    sides = {
        "ours": lambda: elastic_deform(images, SIGMA, ALPHA, torch_draws),
        "scipy": lambda: by_scipy(arrays, numpy_draws),
    }
    if installed("elasticdeform"):
        import elasticdeform

        def by_elasticdeform() -> list[np.ndarray]:
            return [elasticdeform.deform_random_grid(image, sigma=0.8, points=7, order=1) for image in arrays]

        sides["elasticdeform"] = by_elasticdeform
    seconds = medians(sides, repetitions)
    what = f"elastic deformation of {batch} images"
    rows = [Row(f"{what}, a loop over scipy / ours", seconds["ours"], seconds["scipy"], aim=">= 10x", inverse=True)]
    if "elasticdeform" in seconds:
        rows.append(Row(f"{what}, elasticdeform / ours", seconds["ours"], seconds["elasticdeform"], inverse=True))
    return rows
