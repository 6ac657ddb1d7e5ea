"""Pack code, configs and weights into the zip of a MONAI bundle, as the Model Zoo and the Hugging Face Hub accept it.

fundus package --checkpoint outputs/train/model.pt --out dist
"""

from bundle.deploy.packaging import ZOO_LIMIT_BYTES, write_package
from bundle.experiments.next_steps import after_package, say
from scripts.cli import main


def package(checkpoint: str, out: str = "dist", weights_url: str | None = None) -> None:
    """Write a zip whose configs build the network of its weights without any option.

    Args:
        checkpoint: weights of a training, such as outputs/train/model.pt; metrics.json next to it goes
            into the metadata, if it has the scores of these weights.
        out: folder for the zip.
        weights_url: address of the folder where the large files will be found, for large_files.yml.
    """
    made = write_package(checkpoint, out, weights_url)
    print(made)
    if made.large and not weights_url:
        print(
            f"{', '.join(made.large)}: above the {ZOO_LIMIT_BYTES // 10**6} MB that the zoo takes in a pull request. "
            f"The zip is whole as it is; for a pull request put these files where all can fetch them, and package "
            f"again with --weights_url ADDRESS_OF_THEIR_FOLDER, which writes large_files.yml"
        )
    elif weights_url and not made.large:
        print(f"no file is above {ZOO_LIMIT_BYTES // 10**6} MB: there is no large_files.yml, for none is needed")
    say(after_package, made.path)


if __name__ == "__main__":
    main(package)
