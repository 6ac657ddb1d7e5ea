"""A package that is missing is named, with what needs it and how to install it."""

import sys

import pytest
from bundle.optional import import_optional

BASELINES = "`pip install 'fundus-dr-multitask[baselines]'`, or `pip install -e '.[baselines]'` in this bundle's folder"
DEPLOY = "`pip install 'fundus-dr-multitask[deploy]'`, or `pip install -e '.[deploy]'` in this bundle's folder"


def test_a_module_of_an_installed_package_is_imported():
    assert import_optional("timm.version") is sys.modules["timm.version"]


@pytest.mark.parametrize(
    ("package", "needed_for", "expected", "install"),
    [
        ("timm", "nasnetalarge", "timm for nasnetalarge", "`pip install 'timm>=1.0'`"),
        ("segmentation_models_pytorch", "unet", "segmentation-models-pytorch for unet", BASELINES),
        ("onnx", "", "onnx", DEPLOY),
        ("pydicom", "DICOM photographs", "pydicom for DICOM photographs", DEPLOY.replace("deploy", "dicom")),
    ],
)
def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, package, needed_for, expected, install):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match="expected the package") as caught:
        import_optional(package, needed_for)
    assert str(caught.value) == f"expected the package {expected}, found none; say {install}"
    assert isinstance(caught.value.__cause__, ImportError)
