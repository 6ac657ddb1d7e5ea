"""The figure of lesions side by side: what is drawn where."""

import numpy as np
import pytest
from bundle.experiments.figures import PICTURE_PX, Compared, write_lesion_figure
from bundle.labels import LESION_COLOURS, LESIONS
from PIL import Image

HEIGHT, WIDTH = 800, 1200


def compared(name="a.jpg", columns=("ours", "theirs"), drawn_by="theirs", side_px=1, lesion="MA", **changes):
    """A grey photograph without outlines; one column draws one small square of a lesion."""
    nothing = np.zeros((HEIGHT, WIDTH), np.uint8)
    square = nothing.copy()
    square[300 : 300 + side_px, 500 : 500 + side_px] = LESIONS.index(lesion) + 1
    fields = {
        "image": np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "truth": nothing,
        "predicted": {column: square if column == drawn_by else nothing for column in columns},
        "scores": {column: "Dice 0.00" for column in columns},
    }  # fmt: skip
    return Compared(name=name, **(fields | changes))


def coloured(path, lesion="MA"):
    """Return the columns (0-3) and rows (0-1) of the figure in which a lesion's colour is seen, above the legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    pixels = pixels[:-45]
    at = np.argwhere(np.abs(pixels - LESION_COLOURS[lesion]).max(axis=-1) < 60)
    return {(int(x * 4 / pixels.shape[1]), int(y * 2 / pixels.shape[0])) for y, x in at}


def test_a_lesion_of_one_pixel_is_seen_in_its_own_column_and_row_alone(tmp_path):
    write_lesion_figure(tmp_path / "f.png", [compared(), compared("b.jpg", drawn_by="ours", lesion="SE")])
    assert coloured(tmp_path / "f.png", "MA") == {(3, 0)}
    assert coloured(tmp_path / "f.png", "SE") == {(2, 1)}


def test_the_outlines_of_the_data_set_stand_in_the_second_column(tmp_path):
    square = compared(side_px=5).predicted["theirs"]
    write_lesion_figure(tmp_path / "f.png", [compared(truth=square, drawn_by=None)] * 2)
    assert coloured(tmp_path / "f.png") == {(1, 0), (1, 1)}


def test_a_figure_grows_with_its_columns_and_rows_and_stays_small(tmp_path):
    write_lesion_figure(tmp_path / "small.png", [compared(columns=("ours",))])
    write_lesion_figure(tmp_path / "large.png", [compared()] * 3)
    small, large = (Image.open(tmp_path / f"{name}.png").size for name in ("small", "large"))
    assert large[0] / small[0] == pytest.approx(4 / 3, abs=0.01)
    assert large[1] > 2 * small[1]
    assert small[0] >= 3 * PICTURE_PX
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.png", "small.png"]


@pytest.mark.parametrize(
    "photographs", [[], [compared(), compared(columns=("ours", "others"))]], ids=["none", "other columns"]
)
def test_rejects_photographs_that_do_not_go_together(tmp_path, photographs):
    with pytest.raises(ValueError, match="expected one photograph or more, all with the same columns"):
        write_lesion_figure(tmp_path / "f.png", photographs)
    assert not list(tmp_path.iterdir())
