"""The figure that shows what a pseudo-label was decided on."""

import numpy as np
import pytest
import torch
from bundle.labels import GRADES
from bundle.reporting.panel import write_panel
from PIL import Image

HEIGHT, WIDTH = 60, 80
RNG = np.random.default_rng(7)
PHOTOGRAPH = RNG.integers(60, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LESIONS_HW = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
LESIONS_HW[20:30, 40:55] = 3
MAPS = np.linspace(0, 1, 5 * HEIGHT * WIDTH, dtype=np.float32).reshape(5, HEIGHT, WIDTH)
ROW = {
    "id": "idrid/a/train/$x_1$", "proposed": 0, "decided": 3, "action": "move", "rule": "R2", "weight": 0.6,
    "reason": "grade 0 was proposed, but hard exudates are outlined: feasible are 2, 3, 4; decided 3",
}  # fmt: skip
for _grade in GRADES:
    ROW |= {
        f"probability_{_grade}": 0.2, f"soft_label_{_grade}": 0.2, f"feasible_{_grade}": _grade > 1,
        f"lift_{_grade}": 3.1, f"coverage_{_grade}": 0.4, f"optic_disc_{_grade}": None, f"supported_{_grade}": True,
    }  # fmt: skip


def draw(path, row=ROW, image=PHOTOGRAPH, lesions=LESIONS_HW, maps=MAPS):
    write_panel(path, image, lesions, maps, row)
    return np.asarray(Image.open(path)).astype(int)


def test_a_panel_is_one_jpeg_below_a_quarter_megabyte(tmp_path):
    noise = RNG.integers(0, 255, (500, 500, 3), dtype=np.uint8)  # compresses worse than any photograph
    smooth = np.asarray(Image.fromarray(noise).resize((125, 125)).resize((500, 500)))
    draw(tmp_path / "panel.jpg", image=smooth, lesions=np.eye(500, dtype=np.uint8), maps=np.ones((5, 9, 9)))
    assert [file.name for file in tmp_path.iterdir()] == ["panel.jpg"]
    assert Image.open(tmp_path / "panel.jpg").size == (1340, 920)
    assert (tmp_path / "panel.jpg").stat().st_size < 250_000


def test_channels_may_come_first_or_last_and_as_tensors(tmp_path):
    square, lesions = PHOTOGRAPH[:, :HEIGHT], LESIONS_HW[:, :HEIGHT]
    last = draw(tmp_path / "last.jpg", image=square, lesions=lesions)
    first = draw(
        tmp_path / "first.jpg", image=torch.tensor(square).permute(2, 0, 1), lesions=torch.tensor(lesions),
        maps=torch.tensor(MAPS),
    )  # fmt: skip
    assert (first == last).all()


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "because"},
        {"action": "abstain"},
        {"lift_4": 9.9},
        {"relative_lift_4": 0.7},
        {"relative_coverage_1": 0.9},
        {"soft_label_2": 0.9},
        {"decided": 4},
        {"empty_3": True},
    ],
)
def test_every_part_of_the_decision_is_visible(tmp_path, change):
    assert (draw(tmp_path / "a.jpg") != draw(tmp_path / "b.jpg", row=ROW | change)).any()


def test_a_lesion_of_one_pixel_survives_the_shrinking(tmp_path):
    large, lesions = np.full((900, 1200, 3), 80, dtype=np.uint8), np.zeros((900, 1200), dtype=np.uint8)
    without = draw(tmp_path / "without.jpg", image=large, lesions=lesions)
    lesions[451, 601] = 3
    panel = draw(tmp_path / "with.jpg", image=large, lesions=lesions)
    outlined = slice(40, 420), slice(470, 880)
    assert np.abs(panel - without)[outlined].max() > 60


def test_rejects_four_heat_maps(tmp_path):
    with pytest.raises(ValueError, match=r"expected 5 heat maps and lesions of size \(60, 80\), got maps \(4,"):
        draw(tmp_path / "panel.jpg", maps=MAPS[:4])


def test_rejects_a_row_without_a_decision(tmp_path):
    with pytest.raises(ValueError, match=r"expected an audit row, got one without \['decided', 'reason'\]"):
        draw(tmp_path / "panel.jpg", row={key: ROW[key] for key in ROW if key not in ("decided", "reason")})
