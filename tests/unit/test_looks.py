"""Flips and windows give the probabilities of a network that looks at each pixel alone, and mean what they say."""

from types import SimpleNamespace

import pytest
import torch
from bundle.looks import FlippedStep, WindowedStep, looking

ENGINE = SimpleNamespace(state=SimpleNamespace(device=torch.device("cpu")))


def pixelwise(engine, batch):
    """Look at each pixel alone: what is bright in a channel is a lesion."""
    image = batch["image"].float() / (255 if batch["image"].dtype == torch.uint8 else 1)
    lesions = torch.cat([1 - image.amax(dim=1, keepdim=True), image, image[:, :1]], dim=1).softmax(dim=1)
    return {"lesions": lesions, "grade": image.mean(dim=(2, 3))[:, [0, 1, 2, 0, 1]].softmax(dim=1), "maps": image}


def leftmost(engine, batch):
    """Look at where a pixel stands: the first column is a lesion, and the first row decides on the grade."""
    lesions = torch.zeros(len(batch["image"]), 5, *batch["image"].shape[-2:])
    lesions[:, 0] = 1
    lesions[..., 0] = torch.tensor([0.0, 1, 0, 0, 0])[:, None]
    grade = batch["image"][:, 0, 0, :1].float() @ torch.ones(1, 5)
    return {"lesions": lesions, "grade": grade, "maps": torch.zeros(1)}


def batch(height=40, width=64):
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    details = [image[0, :, :, :50], torch.cat([image[1], image[1]], dim=1)]
    return {"image": image, "detail": details}


def test_flips_change_nothing_for_a_network_that_sees_pixels():
    plain, seen = pixelwise(ENGINE, batch()), FlippedStep(pixelwise)(ENGINE, batch())
    assert torch.allclose(torch.stack(seen["lesions"]), plain["lesions"])
    assert torch.allclose(seen["grade"], plain["grade"])
    assert torch.equal(seen["maps"], plain["maps"])


def test_each_flip_counts_a_quarter():
    image = torch.zeros(1, 3, 4, 6)
    image[0, 0, 0, 0] = 1
    seen = FlippedStep(leftmost)(ENGINE, {"image": image})
    assert seen["lesions"][0][1, 0].tolist() == [0.5, 0, 0, 0, 0, 0.5]
    assert seen["grade"].tolist() == [[0.25] * 5]


def test_windows_put_together_are_the_whole():
    seen = WindowedStep(pixelwise, 32)(ENGINE, batch())
    assert [tuple(one.shape) for one in seen["lesions"]] == [(5, 40, 50), (5, 80, 64)]
    for lesions, detail in zip(seen["lesions"], batch()["detail"], strict=True):
        whole = pixelwise(ENGINE, {"image": detail[None].float() / 255})["lesions"][0]
        assert torch.allclose(lesions, whole, atol=1e-5)


def test_a_detail_smaller_than_a_window_is_looked_at_too():
    small = {"image": batch()["image"][:1], "detail": [batch()["detail"][0][:, :10, :20]]}
    assert tuple(WindowedStep(pixelwise, 32)(ENGINE, small)["lesions"][0].shape) == (5, 10, 20)


def test_grade_and_maps_are_of_the_whole():
    plain, seen = pixelwise(ENGINE, batch()), WindowedStep(pixelwise, 32)(ENGINE, batch())
    assert torch.equal(seen["grade"], plain["grade"])
    assert torch.equal(seen["maps"], plain["maps"])


def test_windows_are_flipped_too():
    both = looking(pixelwise, flips=True, window_px=32)(ENGINE, batch())
    for lesions, detail in zip(both["lesions"], batch()["detail"], strict=True):
        whole = pixelwise(ENGINE, {"image": detail[None].float() / 255})["lesions"][0]
        assert torch.allclose(lesions, whole, atol=1e-5)


def test_flipping_leaves_the_batch_and_the_output_as_they_were():
    kept, output = batch(), pixelwise(ENGINE, batch())
    FlippedStep(lambda engine, one: output)(ENGINE, kept)
    assert torch.equal(kept["image"], batch()["image"])
    assert torch.equal(output["lesions"], pixelwise(ENGINE, batch())["lesions"])


def test_nothing_chosen_is_the_step_itself():
    assert looking(pixelwise) is pixelwise


@pytest.mark.parametrize("window_px", [0, 16, 40])
def test_refuses_windows_that_the_network_does_not_take(window_px):
    with pytest.raises(ValueError, match=f"window_px to be a multiple of 32, got {window_px}"):
        looking(pixelwise, window_px=window_px)


def test_refuses_a_size_of_windows_without_windows():
    with pytest.raises(ValueError, match="expected window_px with lesion_size 2048"):
        looking(pixelwise, lesion_size=2048)
