"""Write a trained network for another runtime, and check it against the original on photographs.

fundus export --checkpoint model.pt --format torchscript|pt2|onnx|openvino
fundus export --checkpoint model.pt --format openvino --precision int8 --calibration idrid.json
"""

from bundle.deploy.export import export as export_network
from bundle.deploy.export import export_int8
from bundle.deploy.runtimes import FLOAT32, INT8
from bundle.experiments.next_steps import after_export, say
from scripts.cli import main


def export(
    checkpoint: str,
    format: str,
    out: str | None = None,
    photograph: str | None = None,
    image_size: int | None = None,
    precision: str = "float32",
    calibration: str | None = None,
) -> None:
    """Export a network; the file appears only if its outputs match the network's. See docs/export.md.

    Args:
        checkpoint: model.pt of a training.
        format: torchscript, pt2, onnx or openvino.
        out: file to write; without it, next to the checkpoint, where inference looks for int8.
        photograph: photograph to compare on; without it, one is drawn.
        image_size: side of the photograph in the network; without it, as in training.
        precision: float32; or int8 for openvino and onnx.
        calibration: for int8, a manifest, whose training photographs are used, or a folder of photographs.
    """
    if precision not in (FLOAT32, INT8):
        raise ValueError(f"expected --precision {FLOAT32} or {INT8}, got {precision!r}")
    if (precision == INT8) != (calibration is not None):
        raise ValueError(f"expected --calibration with --precision {INT8}, and only then, got {calibration}")
    if calibration is None:
        print(export_network(checkpoint, format, out, photograph, image_size))
    elif photograph is not None:
        raise ValueError(f"expected no --photograph with --precision {INT8}: those of --calibration are compared")
    else:
        print(export_int8(checkpoint, format, calibration, out, image_size))
    say(after_export)


if __name__ == "__main__":
    main(export)
