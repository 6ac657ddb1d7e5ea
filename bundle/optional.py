"""Packages that only some uses need, imported when they are needed."""

import importlib
from types import ModuleType

EXTRA = "`pip install 'fundus-dr-multitask[{0}]'`, or `pip install -e '.[{0}]'` in this bundle's folder"
INSTALL = {
    "timm": "`pip install 'timm>=1.0'`",
    "segmentation_models_pytorch": EXTRA.format("baselines"),
    **dict.fromkeys(("openvino", "onnx", "onnxscript", "onnxruntime", "nncf"), EXTRA.format("deploy")),
    **dict.fromkeys(("pydicom", "highdicom"), EXTRA.format("dicom")),
    "ray": EXTRA.format("cluster"),
    "h5py": EXTRA.format("keras"),
}
"""How to install each package that is not installed under its own name."""


def import_optional(module: str, needed_for: str = "", instead: str = "") -> ModuleType:
    """Import a package that only some uses need, or one of its modules.

    Args:
        module: dotted name.
        needed_for: what needs it, for the error message.
        instead: what to do without the package, for the error message.

    Raises:
        ValueError: if it is not installed.

    Example:
        >>> import_optional("openvino.no_such_module")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: expected the package openvino, found none; say `pip install 'fundus-dr-multitask[deploy]'`,
            or `pip install -e '.[deploy]'` in this bundle's folder
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        how = INSTALL.get(package, f"`pip install {package}`")
        expected = package.replace("_", "-") + f" for {needed_for}" * bool(needed_for)
        how += f"; or {instead}" * bool(instead)
        raise ValueError(f"expected the package {expected}, found none; say {how}") from error
