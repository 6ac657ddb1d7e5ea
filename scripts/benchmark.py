"""Measure the bundle against its peers, in one run on one machine.

fundus benchmark data --manifest idrid.json
fundus benchmark attribution
fundus benchmark labels --manifest phantom.json --folder outputs/labels
fundus benchmark meta
fundus benchmark inference --photographs DIR --checkpoint model.pt
"""

from scripts.cli import main_of

SUITES = ("attribution", "data", "inference", "labels", "meta")

if __name__ == "__main__":
    main_of({name: f"scripts.benchmarks.{name}" for name in SUITES})
