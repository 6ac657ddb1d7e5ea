"""The MLflow run that the runs of a sweep hang below."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.handlers.tracking import find_experiment, open_store
from bundle.provenance import commit

if TYPE_CHECKING:
    from mlflow import MlflowClient

STAGE = "sweep"


@contextmanager
def sweep_run(output_dir: Path, tags: Mapping[str, str], tracking_uri: str | None = None) -> Iterator[str]:
    """Keep the run of a sweep open, and yield its id; the same folder and suite always have the same run.

    It is finished when the block ends, and failed when the block raises. The tags ``command`` and ``commit`` are those
    of the last time.

    Args:
        output_dir: of the sweep; becomes the tag ``sweep``. It also holds the default store.
        tags: of the run; ``suite`` is one of them.
        tracking_uri: of the store; None takes ``MLFLOW_TRACKING_URI`` or the default.
    """
    client = open_store(tracking_uri, output_dir)
    own = {"stage": STAGE, "sweep": str(output_dir.resolve()), "commit": commit(), "command": " ".join(sys.argv)}
    run_id = _opened(client, {**tags, **own})
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _opened(client: "MlflowClient", tags: Mapping[str, str]) -> str:
    experiment_id = find_experiment(client)
    for run in client.search_runs([experiment_id], f"tags.stage = '{STAGE}'"):
        # Compared here, for a filter of MLflow's cannot name a folder with an apostrophe.
        if all(run.data.tags.get(name) == tags[name] for name in ("sweep", "suite")):
            for name, value in tags.items():
                client.set_tag(run.info.run_id, name, value)
            client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id
    return client.create_run(experiment_id, run_name=f"{STAGE}-{tags['suite']}", tags=dict(tags)).info.run_id
