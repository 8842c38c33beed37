import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from mnist_utils.augment import Affine, affine_grid
from mnist_utils.data import load_digits


@pytest.fixture(scope="module")
def images():
    return load_digits("test").train_images[:200].unsqueeze(1).float()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


EVERY = [Affine(10, 0.07, 0.1, 6), Affine(elastic=0.05), Affine(10, 0.1, 0.1, 5, 0.03)]


@pytest.mark.parametrize("angle", [0.0, 12.0, -30.0])
@pytest.mark.parametrize(
    "shift, scale, shear", [((0, 0), 1.0, 0.0), ((3, -2), 0.8, 0.0), ((0, 1), 1.2, 9.0)]
)
def test_a_fixed_affine_is_torchvisions(images, angle, shift, scale, shear):
    count = len(images)
    same = lambda value: torch.full((count,), value)  # noqa: E731
    grid = affine_grid(
        28,
        same(math.radians(angle)),
        torch.tensor(shift).expand(count, 2) / 28,
        same(scale),
        same(math.radians(shear)),
    )
    ours = torch.nn.functional.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)
    theirs = affine(images, angle, list(shift), scale, [shear, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)  # of 255


def test_nothing_asked_for_is_nothing_done(images):
    torch.testing.assert_close(Affine()(images, seeded()), images, atol=1e-3, rtol=0)  # of 255


@pytest.mark.parametrize("augment", EVERY)
def test_a_generator_repeats_its_draws(images, augment):
    assert torch.equal(augment(images, seeded(1)), augment(images, seeded(1)))
    assert not torch.equal(augment(images, seeded(1)), augment(images, seeded(2)))


@pytest.mark.parametrize("augment", EVERY)
def test_each_image_draws_its_own_and_the_originals_stay(images, augment):
    copies = images[:1].repeat(60, 1, 1, 1)
    before = copies.clone()
    results = augment(copies, seeded())
    assert len({bytes(result.numpy()) for result in results}) > 15
    assert (
        torch.equal(copies, before)
        and results.shape == copies.shape
        and results.dtype == torch.float32
    )


def test_the_draws_fill_their_ranges_evenly():
    """Seen from a bright pixel off the centre, which rotations and shifts move to a known place."""
    images = torch.zeros(4000, 1, 29, 29)
    images[:, :, 14, 24] = 1.0  # ten pixels right of the centre
    axis = torch.arange(29.0) - 14
    turned = Affine(degrees=30)(images, seeded()).squeeze(1)
    mass = turned.sum(dim=(1, 2))
    x, y = (
        (turned.sum(dim=1) * axis).sum(dim=1) / mass,
        (turned.sum(dim=2) * axis).sum(dim=1) / mass,
    )
    angles = torch.rad2deg(torch.atan2(y, x))
    assert angles.abs().max() < 31 and angles.abs().max() > 29
    assert abs(angles.mean()) < 1 and angles.std() == pytest.approx(30 / 3**0.5, rel=0.05)
    moved = Affine(translate=0.1)(images, seeded()).squeeze(1)
    x = (moved.sum(dim=1) * axis).sum(dim=1) / moved.sum(dim=(1, 2)) - 10
    assert x.abs().max() == pytest.approx(2.9, abs=0.1) and x.std() == pytest.approx(
        2.9 / 3**0.5, rel=0.05
    )


def test_elastic_displacement_is_smooth_and_of_the_asked_size():
    ramp = (
        torch.linspace(-1, 1, 28).expand(500, 1, 28, 28).contiguous()
    )  # value = x: resampled, it is the new x
    moved = (Affine(elastic=0.05)(ramp, seeded()) - ramp)[:, 0, 8:-8, 8:-8] * 28 / 27
    assert moved.std() == pytest.approx(0.05, rel=0.1)
    assert (moved[:, :, 1:] - moved[:, :, :-1]).std() < 0.4 * moved.std()
