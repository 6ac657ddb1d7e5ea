"""Draw the paper's Figures 6 and 7 from the finished runs of a sweep, with a note of what was run.

fundus figures --sweep outputs/table1 --manifest idrid.json --out outputs/figures
fundus figures --sweep outputs/table1 --manifest idrid.json --rows pldmlt,unet --fold 1 --photographs 2
"""

import sys
from pathlib import Path

from bundle.experiments.figures import Asked, write_figures
from bundle.experiments.runs import Repeat
from scripts.cli import main


def figures(
    sweep: str,
    manifest: str,
    out: str = "outputs/figures",
    suite: str = "table1",
    rows: str = "pldmlt,unet,linknet",
    fold: int = 0,
    seed: int = 0,
    photographs: int = 3,
) -> None:
    """Show lesions next to those of other networks, and show which grades the heat maps support.

    Args:
        sweep: folder written by `fundus sweep`.
        manifest: manifest that the sweep ran on.
        out: folder of figure6.png, figure7.png and figures.md; they show photographs of the data set.
        suite: the table that was swept.
        rows: rows of the table that outline lesions, separated by commas: the columns of Figure 7.
        fold: held-out fold.
        seed: seed of the runs.
        photographs: number of rows of Figure 7: the first photographs held out.
    """
    asked = Asked(
        sweep=Path(sweep), manifest=Path(manifest), suite=suite, rows=rows.split(","), repeat=Repeat(fold, seed),
        photographs=photographs,
    )  # fmt: skip
    print(write_figures(out, asked, sys.argv))


if __name__ == "__main__":
    main(figures)
