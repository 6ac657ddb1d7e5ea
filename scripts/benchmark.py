"""Measure the bundle against its peers, in one run on one machine.

fundus benchmark data --manifest idrid.json
fundus benchmark attribution
fundus benchmark labels --manifest phantom.json --folder outputs/labels
fundus benchmark meta
fundus benchmark inference --photographs DIR --checkpoint model.pt
fundus benchmark unlike --manifest idrid.json
"""

from scripts.cli import main_of

SUITES = ("attribution", "data", "inference", "labels", "meta", "unlike")

if __name__ == "__main__":
    main_of({name: f"scripts.benchmarks.{name}" for name in SUITES})
