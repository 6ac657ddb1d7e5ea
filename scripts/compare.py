"""Write the table of a suite next to the paper's: from MLflow to a page, a CSV file and a picture.

fundus compare --suite table1 --sweep outputs/table1 --out docs/results
"""

import sys

from bundle.experiments.comparison_page import write_comparison
from bundle.experiments.next_steps import after_compare, say
from bundle.experiments.runs import read_runs, store_uri
from bundle.experiments.suites import homes, suite_named
from scripts.cli import main


def compare(suite: str, sweep: str | None = None, out: str = "docs/results", tracking_uri: str | None = None) -> None:
    """Compare the finished runs of a suite; missing runs are listed.

    Args:
        suite: name of the table, such as table1.
        sweep: folder of the sweep, whose mlflow.db is read; without it, outputs/<suite>.
        out: folder of the page, the CSV file and the picture.
        tracking_uri: address of another MLflow store; without it, MLFLOW_TRACKING_URI or the sweep's own.
    """
    asked = suite_named(suite)
    store = store_uri(tracking_uri, sweep or f"outputs/{suite}")
    found = read_runs(store, suite, homes(suite))
    print(write_comparison(out, suite, asked, found, sys.argv))
    say(after_compare, store)


if __name__ == "__main__":
    main(compare)
