"""The console command `fundus`: `fundus NAME ...` is `python -m scripts.NAME ...`, from any folder.

fundus --help
fundus prepare --help
"""

from scripts.cli import main_of

NAMES = ("prepare", "pipeline", "run", "predict", "sweep", "compare", "figures", "export", "package", "benchmark")


def fundus() -> None:
    """Run the script that the first word names."""
    main_of({name: f"scripts.{name}" for name in NAMES})


if __name__ == "__main__":
    fundus()
