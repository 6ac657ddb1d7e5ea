"""Measure the bundle against its peers, in one run on one machine.

python -m scripts.benchmark data --manifest idrid.json
python -m scripts.benchmark attribution
python -m scripts.benchmark labels --manifest phantom.json --folder outputs/labels
python -m scripts.benchmark meta
python -m scripts.benchmark inference --photographs DIR --checkpoint model.pt
"""

from scripts.benchmarks.attribution import attribution
from scripts.benchmarks.data import data
from scripts.benchmarks.inference import inference
from scripts.benchmarks.labels import labels
from scripts.benchmarks.meta import meta
from scripts.cli import main_of

if __name__ == "__main__":
    main_of({"attribution": attribution, "data": data, "inference": inference, "labels": labels, "meta": meta})
