import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from mnist_utils.augment import Affine, Erase, Shift, affine_grid, straighten
from mnist_utils.data import load_digits


@pytest.fixture(scope="module")
def images():
    return load_digits("test").train_images[:200].unsqueeze(1).float()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


EVERY = [Affine(10, 0.07, 0.1, 6), Affine(elastic=0.05), Affine(10, 0.1, 0.1, 5, 0.03), Shift(2), Erase()]


@pytest.mark.parametrize("angle", [0.0, 12.0, -30.0])
@pytest.mark.parametrize("shift, scale, shear", [((0, 0), 1.0, 0.0), ((3, -2), 0.8, 0.0), ((0, 1), 1.2, 9.0)])
def test_a_fixed_affine_is_torchvisions(images, angle, shift, scale, shear):
    count = len(images)
    same = lambda value: torch.full((count,), value)  # noqa: E731
    grid = affine_grid(
        28, same(math.radians(angle)), torch.tensor(shift).expand(count, 2) / 28, same(scale), same(math.radians(shear))
    )
    ours = torch.nn.functional.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)
    theirs = affine(images, angle, list(shift), scale, [shear, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)  # of 255


@pytest.mark.parametrize("nothing", [Affine(), Shift(0), Erase(chance=0.0)])
def test_nothing_asked_for_is_nothing_done(images, nothing):
    torch.testing.assert_close(nothing(images, seeded()), images, atol=1e-3, rtol=0)  # of 255


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
    assert torch.equal(copies, before) and results.shape == copies.shape and results.dtype == torch.float32


def test_the_draws_fill_their_ranges_evenly():
    """Read back from a single bright pixel off the centre, which a pure rotation or shift moves to a known place."""
    images = torch.zeros(4000, 1, 29, 29)
    images[:, :, 14, 24] = 1.0  # ten pixels right of the centre
    axis = torch.arange(29.0) - 14
    turned = Affine(degrees=30)(images, seeded()).squeeze(1)
    mass = turned.sum(dim=(1, 2))
    x, y = (turned.sum(dim=1) * axis).sum(dim=1) / mass, (turned.sum(dim=2) * axis).sum(dim=1) / mass
    angles = torch.rad2deg(torch.atan2(y, x))
    assert angles.abs().max() < 31 and angles.abs().max() > 29
    assert abs(angles.mean()) < 1 and angles.std() == pytest.approx(30 / 3**0.5, rel=0.05)
    moved = Affine(translate=0.1)(images, seeded()).squeeze(1)
    x = (moved.sum(dim=1) * axis).sum(dim=1) / moved.sum(dim=(1, 2)) - 10
    assert x.abs().max() == pytest.approx(2.9, abs=0.1) and x.std() == pytest.approx(2.9 / 3**0.5, rel=0.05)


def test_shift_moves_by_whole_pixels_and_by_each_of_them_alike(images):
    block = torch.zeros(5000, 1, 28, 28)
    block[:, 0, 10, 12] = 1.0
    shifted = Shift(2)(block, seeded())
    places = shifted.flatten(1).argmax(dim=1)
    assert torch.equal(shifted.sum(dim=(1, 2, 3)), torch.ones(5000))
    counts = torch.stack([places // 28 - 10, places % 28 - 12], dim=1).unique(dim=0, return_counts=True)
    assert counts[0].tolist() == [[row, column] for row in range(-2, 3) for column in range(-2, 3)]
    assert counts[1].min() > 130 and counts[1].max() < 280  # 200 expected of each


def test_erase_hides_rectangles_of_the_asked_size_at_the_asked_rate():
    images = torch.ones(3000, 1, 28, 28)
    hidden = (Erase(chance=0.4, smallest=3, largest=6)(images, seeded()) == 0).squeeze(1)
    touched = hidden.any(dim=(1, 2)) if hidden.ndim == 3 else hidden
    assert touched.float().mean() == pytest.approx(0.4, abs=0.03)
    heights, widths = hidden.any(dim=2).sum(dim=1)[touched], hidden.any(dim=1).sum(dim=1)[touched]
    assert torch.equal(hidden.sum(dim=(1, 2))[touched], heights * widths)  # filled rectangles
    assert {int(n) for n in heights.unique()} == {int(n) for n in widths.unique()} == {3, 4, 5, 6}
    assert hidden.any(dim=0).all()  # reaches every pixel, the corners too


def test_elastic_displacement_is_smooth_and_of_the_asked_size():
    ramp = torch.linspace(-1, 1, 28).expand(500, 1, 28, 28).contiguous()  # value = x: resampled, it is the new x
    moved = (Affine(elastic=0.05)(ramp, seeded()) - ramp)[:, 0, 8:-8, 8:-8] * 28 / 27
    assert moved.std() == pytest.approx(0.05, rel=0.1)
    assert (moved[:, :, 1:] - moved[:, :, :-1]).std() < 0.4 * moved.std()


def bar(left=12, top=5, dtype=torch.uint8):
    image = torch.zeros(28, 28, dtype=dtype)
    image[top : top + 18, left : left + 4] = 200
    return image


def sheared(images, slant):
    """The images, float32 (B, 1, 28, 28), each row moved right by `slant` pixels for each row further up."""
    same = lambda value: torch.full((len(images),), value)  # noqa: E731
    grid = affine_grid(28, same(0.0), torch.zeros(len(images), 2), same(1.0), same(math.atan(slant)))
    return torch.nn.functional.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)


def test_an_upright_bar_in_the_middle_stays_as_it_is():
    assert torch.equal(straighten(bar()), bar())
    torch.testing.assert_close(straighten(bar(dtype=torch.float32)), bar(dtype=torch.float32), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (3, 9), (20, 2), (24, 10)])
def test_an_upright_bar_elsewhere_is_moved_into_the_middle(left, top):
    assert torch.equal(straighten(bar(left, top)), bar())


@pytest.mark.parametrize("nothing", [torch.zeros(28, 28), torch.zeros(3, 28, 28), torch.eye(28)[:1].expand(28, 28) * 0])
def test_an_empty_image_is_left_alone(nothing):
    assert torch.equal(straighten(nothing), nothing)
    assert torch.equal(straighten(nothing.to(torch.uint8)), nothing.to(torch.uint8))
    assert not Affine(10, 0.1, 0.1, 5, 0.03, deskew=True)(torch.zeros(2, 1, 28, 28), seeded()).any()


@pytest.mark.parametrize("slant", [-0.6, -0.2, 0.3, 0.7])
def test_a_slanted_bar_is_set_upright(slant):
    slanted = sheared(bar(dtype=torch.float32)[None, None], slant)
    columns = torch.arange(28.0)
    middles = [(image[0, 0, 5:23] @ columns / image[0, 0, 5:23].sum(dim=1)) for image in (slanted, straighten(slanted))]
    assert middles[0].std() > abs(slant) * 5
    torch.testing.assert_close(middles[1], torch.full((18,), 13.5), atol=0.05, rtol=0)


@pytest.mark.parametrize("slant", [-0.3, 0.3])
def test_straightening_undoes_a_shear_of_digits(images, slant):
    straight, again = straighten(images), straighten(sheared(images, slant))
    slanted = sheared(images, slant)
    assert (again - straight).abs().mean() < 0.35 * (slanted - images).abs().mean()


def test_straightening_twice_does_hardly_more_than_once(images):
    once = straighten(images)
    moved, again = (once - images).abs().mean(), (straighten(once) - once).abs().mean()
    assert again < 0.1 * moved


def test_the_ink_is_kept_and_comes_to_lie_in_the_middle(images):
    inside = images[images[..., [0, 1, 2, 3, -4, -3, -2, -1]].sum(dim=(1, 2, 3)) == 0]
    straight = straighten(inside)
    torch.testing.assert_close(straight.sum(dim=(1, 2, 3)), inside.sum(dim=(1, 2, 3)), atol=0, rtol=0.02)
    columns = (straight.sum(dim=2) @ torch.arange(28.0)) / straight.sum(dim=(2, 3))
    torch.testing.assert_close(columns, torch.full_like(columns, 13.5), atol=0.05, rtol=0)


def test_each_image_is_straightened_by_itself_in_any_shape_and_in_bytes_as_in_floats(images):
    whole = straighten(images)
    torch.testing.assert_close(straighten(images[7, 0]), whole[7, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(straighten(images.squeeze(1)), whole.squeeze(1), atol=1e-3, rtol=0)
    in_bytes = straighten(images.to(torch.uint8))
    assert in_bytes.dtype == torch.uint8
    torch.testing.assert_close(in_bytes.float(), whole, atol=0.51, rtol=0)


def test_straightened_and_distorted_in_one_resampling_is_sharper_than_in_two(images):
    torch.testing.assert_close(Affine(deskew=True)(images), straighten(images), atol=1e-2, rtol=0)
    distort = Affine(10, 0.07, 0.1, 6, 0.02)
    once = Affine(10, 0.07, 0.1, 6, 0.02, deskew=True)(images, seeded())
    twice = distort(straighten(images), seeded())
    assert (once - twice).abs().mean() < 0.2 * (once - distort(images, seeded())).abs().mean()
    assert once.std() > twice.std()
