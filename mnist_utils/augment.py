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

    With `deskew` each image is straightened, as by `straighten`, but in the same resampling: a
    second one would blur it again.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    deskew: bool = False

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        count, side = len(images), images.shape[-1]
        draws = torch.rand(5, count, generator=generator, device=images.device) * 2 - 1
        angle, shear = math.radians(self.degrees) * draws[0], math.radians(self.shear) * draws[3]
        shift, scale = self.translate * draws[1:3].T, 1 + self.scale * draws[4]
        grid = affine_grid(side, angle, shift, scale, shear)
        if self.elastic:
            grid = grid + self.elastic * _smooth_noise(count, side, images.device, generator)
        if self.deskew:
            grid = _slanted(grid, images)
        return F.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)


def straighten(images: Tensor) -> Tensor:
    """The images upright, their ink in the middle: (..., S, S), uint8 or float32 in 0..255.

    Shape and type stay; an empty image stays empty. The slant is how many columns the ink moves to
    the side for each row further down, by least squares. Each row is moved back by as much, and the
    centre of the ink into the middle, in one bilinear resampling. LeCun, Bottou, Bengio and
    Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, straightened MNIST so.
    """
    side = images.shape[-1]
    pixels = images.reshape(-1, 1, side, side).float()
    line = _pixel_centres(side, images.device)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy")).expand(len(pixels), 2, side, side)
    grid = _slanted(grid, pixels).permute(0, 2, 3, 1)
    straight = F.grid_sample(pixels, grid, align_corners=False).reshape(images.shape)
    if images.dtype == torch.uint8:
        straight = straight.round()
    return straight.to(images.dtype)


def _slanted(grid: Tensor, images: Tensor) -> Tensor:
    """For places in the straightened images, the places in `images` that they come from.

    `grid` is float32 (B, 2, H, W), x and y in -1..1; `images` float32 (B, 1, S, S).
    """
    line = _pixel_centres(images.shape[-1], images.device)
    images = images.squeeze(1)
    rows, columns = images.sum(dim=2), images.sum(dim=1)  # ink of each row and column, (B, S)
    # An empty image has its centre in the middle.
    ink = rows.sum(dim=1).clamp(min=1e-6)
    x, y = columns @ line / ink, rows @ line / ink  # the centre of the ink, (B,) each
    # How far each row's ink, and the row, are from that centre, (B, S) each.
    across, down = images @ line - x[:, None] * rows, line - y[:, None]
    # The slant is 0 where all the ink is in one row.
    spread = (rows * down * down).sum(dim=1)
    slant = (across * down).sum(dim=1) / spread.clamp(min=1e-6)
    x, y, slant = (numbers[:, None, None] for numbers in (x, y, slant))
    return torch.stack([x + grid[:, 0] + slant * grid[:, 1], y + grid[:, 1]], dim=1)


def _pixel_centres(side: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(side, device=device) + 1) / side - 1


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
    line = _pixel_centres(side, angle.device)
    shift = 2 * shift
    across = from_x * (line - shift[:, :1])[:, None]  # (B, 2, side)
    down = from_y * (line - shift[:, 1:])[:, None]
    return across[:, :, None, :] + down[:, :, :, None]


def _smooth_noise(count: int, side: int, device, generator: Generator | None) -> Tensor:
    """Smoothed normal noise: float32 (count, 2, side, side), standard deviation 1."""
    lattice = 8
    pixels = torch.linspace(0, 1, side, device=device)
    knots = torch.linspace(0, 1, lattice, device=device)
    smooth = F.normalize(torch.exp(-(((pixels[:, None] - knots) * lattice / 1.5) ** 2)), dim=1)
    noise = torch.randn(count, 2, lattice, lattice, generator=generator, device=device)
    return smooth @ noise @ smooth.T
