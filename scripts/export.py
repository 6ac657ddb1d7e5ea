"""Write a trained network for another runtime, and check it against the original on a photograph.

fundus export --checkpoint model.pt --format torchscript|pt2|onnx|openvino
"""

from bundle.deploy.export import export as export_network
from bundle.experiments.next_steps import after_export, say
from scripts.cli import main


def export(
    checkpoint: str, format: str, out: str | None = None, photograph: str | None = None, image_size: int | None = None
) -> None:
    """Export a network; the file appears only if its outputs match the network's. See docs/export.md.

    Args:
        checkpoint: model.pt of a training.
        format: torchscript, pt2, onnx or openvino.
        out: file to write; without it, next to the checkpoint.
        photograph: photograph to compare on; without it, one is drawn.
        image_size: side of the photograph in the network; without it, as in training.
    """
    print(export_network(checkpoint, format, out, photograph, image_size))
    say(after_export)


if __name__ == "__main__":
    main(export)
