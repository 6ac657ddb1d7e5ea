"""The head of a page tells how its numbers were made, without folders and secrets."""

from bundle.provenance import origin, portable


def test_secrets_of_an_address_stay_out_of_the_page():
    words = ["python", "-m", "scripts.sweep", "--tracking_uri", "https://me:pw@host:5000/api?token=s"]
    assert portable(words) == "python -m scripts.sweep --tracking_uri https://host:5000/api"


def test_the_head_of_a_page_leaves_the_machines_folders_out():
    words = ["/home/me/scripts/pipeline.py", "--manifest", "/data/idrid.json", "--output_dir=/home/me/my runs"]
    lines = origin(words, manifest_sha256="a1")
    assert lines[0] == "- command: `python -m scripts.pipeline --manifest idrid.json '--output_dir=my runs'`"
    assert lines[-1] == "- manifest: sha256 a1"
    assert "/home" not in "".join(lines)
    assert len(origin(words)) == 4
