"""The MLflow run that is the parent of a sweep's runs."""

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
    """Keep the run of a sweep open and yield its id; the same folder and suite always get the same run.

    The run is marked finished when the block ends, and failed when the block raises. The tags ``command`` and
    ``commit`` are those of the latest call.

    Args:
        output_dir: folder of the sweep; becomes the tag ``sweep``. It also holds the default store.
        tags: tags of the run, including ``suite``.
        tracking_uri: URI of the store; None uses ``MLFLOW_TRACKING_URI`` or the default.
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
        # Compared here because an MLflow filter cannot contain a folder name with an apostrophe.
        if all(run.data.tags.get(name) == tags[name] for name in ("sweep", "suite")):
            for name, value in tags.items():
                client.set_tag(run.info.run_id, name, value)
            client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id
    return client.create_run(experiment_id, run_name=f"{STAGE}-{tags['suite']}", tags=dict(tags)).info.run_id
