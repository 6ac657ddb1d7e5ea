"""The data sets that can be read, and the options of each."""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from bundle.datasets.readers.ddr import read_ddr
from bundle.datasets.readers.diaretdb1 import read_diaretdb1
from bundle.datasets.readers.folder import read_folder
from bundle.datasets.readers.idrid import read_idrid
from bundle.datasets.readers.raw import Reading

READERS: Mapping[str, Callable[..., Reading]] = {
    "idrid": read_idrid,
    "ddr": read_ddr,
    "diaretdb1": read_diaretdb1,
    "folder": read_folder,
    "phantom": read_idrid,
}


def read(dataset: str, root: str | os.PathLike, **options: Any) -> Reading:  # noqa: ANN401  (of each reader)
    """Read a data set with the given options; an option that is None counts as not given.

    Args:
        dataset: one of ``READERS``, or the dotted name of any other reader, such as ``my_clinic.read_clinic``.
        root: folder of the data set.
        options: options of the reader.

    Raises:
        ValueError: if the data set is unknown, its reader does not have an option, or as in the reader.

    Example:
        >>> read("idrid", "/data", masks="MA=masks")
        Traceback (most recent call last):
            ...
        ValueError: --masks is no option of --dataset idrid, which has --allow_missing
    """
    reader = READERS[dataset] if dataset in READERS else _imported(dataset)
    known = [name for name in inspect.signature(reader).parameters if name != "root"]
    given = {name: value for name, value in options.items() if value is not None}
    foreign = [name for name in given if name not in known]
    if foreign:
        raise ValueError(
            f"--{foreign[0]} is no option of --dataset {dataset}, which has {', '.join(f'--{name}' for name in known)}"
        )
    return reader(root, **given)


def _imported(dataset: str) -> Callable[..., Reading]:
    """Import a reader by its dotted name, as configs import their components."""
    module, _, name = dataset.rpartition(".")
    if not module:
        raise ValueError(f"expected --dataset out of {', '.join(READERS)}, joined, got {dataset!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"expected --dataset out of {', '.join(READERS)}, joined, or the dotted name of a function that Python "
            f"finds, got {dataset!r}: {error}"
        ) from error
