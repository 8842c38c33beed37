"""Random distortions of a whole batch at once, on the images' own device; each image draws its own.

    augment = Affine(degrees=10, translate=0.07, scale=0.1, shear=6, elastic=0.03)
    images = augment(images, torch.Generator().manual_seed(0))

Every transform is called with float32 images (B, 1, H, W), background 0, and a generator on their device, and returns
images of the same shape. An augmented image still counts as one image of its epoch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Affine:
    """Rotation, shift, scaling and shear about the centre, then elastic distortion, in one bilinear resampling.

    Drawn evenly from -`degrees`..`degrees` (rotation, degrees), -`translate`..`translate` (shift along each axis,
    fraction of the side), 1 - `scale`..1 + `scale` (size) and -`shear`..`shear` (degrees, along x): as torchvision's
    RandomAffine(degrees, (translate, translate), (1 - scale, 1 + scale), shear), but for shifts of parts of a pixel.
    `elastic` is the standard deviation of a smooth random displacement, fraction of half the side (Simard, Steinkraus
    and Platt, "Best Practices for Convolutional Neural Networks", 2003). Images must be square.

    With `deskew` each image is straightened first, as by `straighten`, but in the same resampling: a second one would
    blur it again.
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
        grid = affine_grid(side, angle, self.translate * draws[1:3].T, 1 + self.scale * draws[4], shear)
        if self.elastic:
            grid = grid + self.elastic * _smooth_noise(count, side, images.device, generator)
        if self.deskew:
            grid = _slanted(grid, images)
        return F.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)


@dataclass(frozen=True)
class Shift:
    """A shift by whole pixels, drawn from -`pixels`..`pixels` along each axis; what enters is background."""

    pixels: int = 2

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        count, side, width = len(images), images.shape[-1], self.pixels
        draws = torch.randint(0, 2 * width + 1, (2, count, 1), generator=generator, device=images.device)
        rows, columns = draws + torch.arange(side, device=images.device)
        which = torch.arange(count, device=images.device)[:, None, None]
        padded = F.pad(images.squeeze(1), (width,) * 4)
        return padded[which, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


@dataclass(frozen=True)
class Erase:
    """With chance `chance`, one rectangle of each image becomes background, each side `smallest`..`largest` pixels.

    After Zhong et al., "Random Erasing Data Augmentation", 2017; sides are drawn apart, not from area and ratio.
    """

    chance: float = 0.5
    smallest: int = 2
    largest: int = 8

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        count, side, device = len(images), images.shape[-1], images.device
        sides = torch.randint(self.smallest, self.largest + 1, (2, count, 1), generator=generator, device=device)
        places = torch.rand(2, count, 1, generator=generator, device=device) * (side - sides + 1)
        pixels = torch.arange(side, device=device)
        inside = (pixels >= places.floor()) & (pixels < places.floor() + sides)
        chosen = torch.rand(count, generator=generator, device=device) < self.chance
        hidden = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, None, None]
        return images.masked_fill(hidden.unsqueeze(1), 0.0)


def straighten(images: Tensor) -> Tensor:
    """The images upright, their ink in the middle, in the same shape and type: (..., S, S), uint8 or float32 in 0..255.

    The slant is how many columns the ink moves to the side for each row further down, by least squares: a quotient of
    second moments of the pixels. Each row is moved back by as much, and the centre of the ink into the middle, in one
    bilinear resampling. LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition",
    1998, deslanted MNIST so. No label is looked at. An empty image stays empty.
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
    rows, columns = images.sum(dim=2), images.sum(dim=1)  # the ink of each row and of each column, (B, S)
    ink = rows.sum(dim=1).clamp(min=1e-6)  # an empty image has its centre in the middle
    x, y = columns @ line / ink, rows @ line / ink  # the centre of the ink, (B,) each
    across, down = images @ line - x[:, None] * rows, line - y[:, None]  # from the centre, (B, S) each
    spread = (rows * down * down).sum(dim=1)
    slant = (across * down).sum(dim=1) / spread.clamp(min=1e-6)  # 0 where all the ink is in one row
    x, y, slant = (numbers[:, None, None] for numbers in (x, y, slant))
    return torch.stack([x + grid[:, 0] + slant * grid[:, 1], y + grid[:, 1]], dim=1)


def _pixel_centres(side: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(side, device=device) + 1) / side - 1


def affine_grid(side: int, angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Where each pixel of the result comes from: float32 (B, 2, side, side), x and y in -1..1.

    `angle` and `shear` in radians, `scale` a factor, each (B,); `shift` (B, 2) in sides. The matrix is the inverse of
    shift * rotation * shear * scaling, as in torchvision.transforms.functional.affine. The two coordinates lie in
    planes of their own, which `F.affine_grid` does not do: that takes three times as long.
    """
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    columns = torch.stack([cos - sin * slant, -sin, sin + cos * slant, cos])  # of x: to x, y; of y: to x, y
    from_x, from_y = (columns / scale).view(2, 2, -1).mT[..., None]  # (B, 2, 1) each
    line = _pixel_centres(side, angle.device)
    shift = 2 * shift
    across = from_x * (line - shift[:, :1])[:, None]  # (B, 2, side)
    down = from_y * (line - shift[:, 1:])[:, None]
    return across[:, :, None, :] + down[:, :, :, None]


def _smooth_noise(count: int, side: int, device: torch.device, generator: Generator | None) -> Tensor:
    """Normal noise on a coarse lattice, smoothed by a Gaussian: (count, 2, side, side), standard deviation 1."""
    lattice = 8
    pixels, knots = torch.linspace(0, 1, side, device=device), torch.linspace(0, 1, lattice, device=device)
    smooth = F.normalize(torch.exp(-(((pixels[:, None] - knots) * lattice / 1.5) ** 2)), dim=1)
    noise = torch.randn(count, 2, lattice, lattice, generator=generator, device=device)
    return smooth @ noise @ smooth.T
