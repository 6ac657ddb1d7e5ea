"""A photograph may be a NIfTI; a volume is none."""

import nibabel
import numpy as np
import pytest
from bundle.transforms.nifti import PICTURE_AFFINE, affine_of, is_nifti, read_nifti, write_label_nifti

WIDTH, HEIGHT = 6, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
WHC = PIXELS.swapaxes(0, 1)
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
AFFINE = np.array([[-0.5, 0, 0, 7], [0, -0.5, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])


def saved(tmp_path, array, name="eye.nii.gz"):
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    "array",
    [
        np.ascontiguousarray(WHC).view(RGB24).reshape(WIDTH, HEIGHT),
        np.ascontiguousarray(WHC).view(RGB24).reshape(WIDTH, HEIGHT, 1),
        WHC,
        WHC[:, :, None],
        WHC[:, :, None, None],
        WHC.astype(np.float32),
        WHC.astype(np.uint16) * 256 + 255,
        np.concatenate([WHC, np.full((WIDTH, HEIGHT, 1), 255, np.uint8)], axis=-1),
    ],
    ids=["rgb24", "rgb24 x 1", "W H 3", "W H 1 3", "W H 1 1 3", "floats", "16 bits", "opaque"],
)
def test_the_first_axis_runs_to_the_right_and_the_second_down(tmp_path, array):
    assert np.array_equal(read_nifti(saved(tmp_path, array)), PIXELS)


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (WIDTH, HEIGHT, 1)])
def test_grey_is_the_same_in_every_channel(tmp_path, shape):
    found = read_nifti(saved(tmp_path, WHC[..., 0].reshape(shape), "grey.nii"))
    assert np.array_equal(found, np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 4, 5, 3), (6, 4, 2)])
def test_a_volume_is_refused_with_its_size(tmp_path, shape):
    volume = saved(tmp_path, np.ones(shape, np.uint8))
    with pytest.raises(ValueError, match=rf"eye\.nii\.gz, got .* a volume of {' x '.join(map(str, shape))}; give one"):
        read_nifti(volume)


@pytest.mark.parametrize("value", [-1.0, 0.5, 256.0, np.nan])
def test_values_that_are_no_bytes_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not whole numbers from 0 to 255"):
        read_nifti(saved(tmp_path, np.full((6, 4), value, np.float32)))


def test_a_cut_off_file_is_refused_by_name(tmp_path):
    path = saved(tmp_path, WHC)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"eye\.nii\.gz"):
        read_nifti(path)


def test_a_file_that_is_none_and_one_that_is_missing_are_refused_by_name(tmp_path):
    (tmp_path / "text.nii").write_text("no image")
    for name in ("text.nii", "missing.nii"):
        with pytest.raises(ValueError, match=rf"expected a whole NIfTI in .*{name}"):
            read_nifti(tmp_path / name)


def test_a_header_that_declares_too_much_is_refused_before_anything_is_read(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((30_000, 30_000, 1))
    header["vox_offset"] = 352
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(ValueError, match="30000 x 30000 pixels, above the limit"):
        read_nifti(tmp_path / "huge.nii")


def test_a_label_map_lies_where_its_photograph_does(tmp_path):
    source = saved(tmp_path, WHC)
    write_label_nifti(tmp_path / "labels.nii.gz", PIXELS[..., 0] % 5, affine_of(source))
    labels = nibabel.load(tmp_path / "labels.nii.gz")
    assert labels.shape == (WIDTH, HEIGHT, 1)
    assert labels.get_data_dtype() == np.uint8
    assert np.allclose(labels.affine, AFFINE)
    assert np.array_equal(np.asarray(labels.dataobj)[..., 0].T, PIXELS[..., 0] % 5)


def test_a_picture_lies_where_itk_would_put_it():
    assert np.array_equal(affine_of("eye.png"), PICTURE_AFFINE)
    assert np.diag(PICTURE_AFFINE).tolist() == [-1, -1, 1, 1]


def test_a_nifti_is_told_by_its_name():
    assert [is_nifti(name) for name in ("a.nii", "a.NII.GZ", "a.gz", "nii.png")] == [True, True, False, False]
