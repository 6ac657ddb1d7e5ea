"""Draw the paper's Figures 6 and 7 from the finished runs of a sweep, with a note of what was run.

python -m scripts.figures --sweep outputs/table1 --manifest idrid.json --out outputs/figures
python -m scripts.figures --sweep outputs/table1 --manifest idrid.json --rows pldmlt,unet --fold 1 --photographs 2
"""

import sys
from pathlib import Path

from bundle.reporting.figures import Asked, write_figures
from bundle.reporting.runs import Repeat
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
    """Set lesions beside those of other networks, and show which grades the heat maps support.

    Args:
        sweep: folder of `scripts.sweep`.
        manifest: that the sweep ran on.
        out: folder of figure6.png, figure7.png and figures.md; they show photographs of the data set.
        suite: the table that was swept.
        rows: of the table that outline lesions, separated by commas: the columns of Figure 7.
        fold: that was held out.
        seed: of the runs.
        photographs: how many rows Figure 7 has: the first that were held out.
    """
    asked = Asked(
        sweep=Path(sweep), manifest=Path(manifest), suite=suite, rows=rows.split(","), repeat=Repeat(fold, seed),
        photographs=photographs,
    )  # fmt: skip
    print(write_figures(out, asked, sys.argv))


if __name__ == "__main__":
    main(figures)
