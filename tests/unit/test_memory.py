"""What is said when a device runs out of memory."""

from types import SimpleNamespace

import pytest
import torch
from bundle.steps import explain_out_of_memory

ENGINE = SimpleNamespace(state=SimpleNamespace(device=torch.device("cuda", 1)))
BATCH = {"image": torch.zeros(2, 3, 64, 96)}


class Step:
    """Fails as it is told, or returns what it was given."""

    def __init__(self, error=None):
        self.error = error

    @explain_out_of_memory
    def __call__(self, engine, batch, more=0):
        if self.error:
            raise self.error
        return batch, more


def test_a_step_that_fits_returns_what_it_returned():
    assert Step()(ENGINE, BATCH, more=3) == (BATCH, 3)


def test_out_of_memory_names_the_device_the_batch_and_the_settings_to_lower():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
    with pytest.raises(RuntimeError) as caught:
        Step(error)(ENGINE, BATCH)
    assert str(caught.value) == (
        "expected cuda:1 to hold a step of 2 photographs of 96x64 px, got: CUDA out of memory. Tried to allocate "
        "2.00 GiB. Lower batch_size or image_size, set amp to true, or take a smaller width"
    )
    assert caught.value.__cause__ is error


def test_any_other_error_is_left_alone():
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"):
        Step(RuntimeError("mat1 and mat2"))(ENGINE, BATCH)
