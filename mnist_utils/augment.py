"""Random distortion of a whole batch at once, on the images' own device; each draws its own.

distort = Affine(degrees=10, translate=0.07, scale=0.1, shear=6, elastic=0.03)
images = distort(images, torch.Generator().manual_seed(0))
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Affine:
    """Rotation, shift, scaling, shear and elastic distortion of images, in one resampling.

    Called with float32 images (B, 1, S, S), background 0, and a generator on their device; returns
    images of the same shape. Drawn evenly from -`degrees`..`degrees` (rotation), -`translate`..
    `translate` (shift along each axis, share of the side), 1 - `scale`..1 + `scale` (size) and
    -`shear`..`shear` (degrees, along x): as torchvision's RandomAffine, but for shifts of parts of
    a pixel. `elastic` is the standard deviation of a smooth random displacement, in halves of the
    side (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks", 2003).
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        count, side = len(images), images.shape[-1]
        draws = torch.rand(5, count, generator=generator, device=images.device) * 2 - 1
        angle, shear = math.radians(self.degrees) * draws[0], math.radians(self.shear) * draws[3]
        grid = affine_grid(
            side, angle, self.translate * draws[1:3].T, 1 + self.scale * draws[4], shear
        )
        if self.elastic:
            grid = grid + self.elastic * _smooth_noise(count, side, images.device, generator)
        return F.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)


def affine_grid(side: int, angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Where each pixel of the result comes from: float32 (B, 2, side, side), x and y in -1..1.

    `angle` and `shear` in radians, `scale` a factor, each (B,); `shift` (B, 2) in sides. The matrix
    is the inverse of shift * rotation * shear * scaling, as in torchvision's `affine`. x and y lie
    in planes of their own, unlike in `F.affine_grid`, which takes three times as long.
    """
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    # What x adds to x and y, then what y adds to them.
    columns = torch.stack([cos - sin * slant, -sin, sin + cos * slant, cos])
    from_x, from_y = (columns / scale).view(2, 2, -1).mT[..., None]  # (B, 2, 1) each
    line = (2 * torch.arange(side, device=angle.device) + 1) / side - 1  # pixel centres
    shift = 2 * shift
    across = from_x * (line - shift[:, :1])[:, None]  # (B, 2, side)
    down = from_y * (line - shift[:, 1:])[:, None]
    return across[:, :, None, :] + down[:, :, :, None]


def _smooth_noise(
    count: int, side: int, device: torch.device, generator: Generator | None
) -> Tensor:
    """Smoothed normal noise: float32 (count, 2, side, side), standard deviation 1."""
    lattice = 8
    pixels = torch.linspace(0, 1, side, device=device)
    knots = torch.linspace(0, 1, lattice, device=device)
    smooth = F.normalize(torch.exp(-(((pixels[:, None] - knots) * lattice / 1.5) ** 2)), dim=1)
    noise = torch.randn(count, 2, lattice, lattice, generator=generator, device=device)
    return smooth @ noise @ smooth.T
