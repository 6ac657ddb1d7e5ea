"""Weights say what they were trained on, and are not scored on what they have seen."""

import pytest
from bundle.networks.trained_on import held_out, is_own, refuse_seen, trained_on, trained_with
from bundle.networks.weights import save_weights
from torch import nn

OWN, OTHER = "a" * 64, "b" * 64


def saved(path, **facts):
    save_weights(path, nn.Linear(2, 3), facts)
    return path


def test_drawings_are_called_drawings_and_each_data_set_is_counted(tmp_path):
    data = {"phantom": {"outlined": 40, "graded": 0}, "idrid": {"outlined": 1, "graded": 300}}
    found = trained_on(saved(tmp_path / "model.pt", data=data))
    assert found == (
        "phantom (synthetic drawings), 40 outlined photographs; idrid, 1 outlined and 300 graded photographs"
    )


def test_weights_from_before_say_that_they_do_not_say(tmp_path):
    assert trained_on(saved(tmp_path / "model.pt")) == "what its weights file does not say"


@pytest.mark.parametrize("data", ["idrid", ["idrid"], {"idrid": 40}, {"idrid": {"outlined": "many"}}])
def test_data_that_is_none_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"expected data as .* in .*model\.pt, got"):
        trained_on(saved(tmp_path / "model.pt", data=data))


def test_the_fold_is_that_of_the_training_on_its_own_manifest_alone(tmp_path):
    path = saved(tmp_path / "model.pt", manifest_sha256=OWN, fold=2)
    assert (held_out(path, OWN), held_out(path, OTHER)) == (2, None)


def test_another_manifest_is_scored_whatever_the_fold_and_the_split(tmp_path):
    path = saved(tmp_path / "model.pt", manifest_sha256=OWN, fold=2)
    refuse_seen(path, OTHER, 0, ["all", "train"])
    refuse_seen(path, OWN, 2, ["test", "fold 2", "none"])


def test_what_training_saw_is_refused(tmp_path):
    path = saved(tmp_path / "model.pt", manifest_sha256=OWN, fold=2)
    with pytest.raises(ValueError, match=r"expected weights of fold 1 in .*model\.pt, got 2"):
        refuse_seen(path, OWN, 1, ["fold 1"])
    for split in ("all", "train"):
        with pytest.raises(ValueError, match=rf"expected --split test or fold .* got '{split}': .* has seen these"):
            refuse_seen(path, OWN, 2, ["test", split])


def test_the_facts_of_several_weights_are_joined_where_they_differ(tmp_path):
    paths = [saved(tmp_path / f"{seed}.pt", fold=1, options={"seed": seed, "beta": 0.5}) for seed in (3, 4)]
    assert trained_with(paths) == {"network": "Linear", "fold": 1, "options": {"seed": "3+4", "beta": 0.5}}


def test_options_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected options by name in .*model\.pt, got \['seed'\]; train it again"):
        trained_with(str(saved(tmp_path / "model.pt", options=["seed"])))


def test_data_sets_of_several_files_are_all_told_and_equal_ones_once(tmp_path):
    of = {"a": {"idrid": {"outlined": 43}}, "b": {"ddr": {"graded": 9}}, "c": {"idrid": {"outlined": 43}}}
    paths = [saved(tmp_path / f"{name}.pt", data=data) for name, data in of.items()]
    assert trained_on(paths) == "idrid, 43 outlined photographs + ddr, 9 graded photographs"


def test_several_files_hold_out_a_fold_only_if_all_of_them_did(tmp_path):
    folds = {"a": (OWN, 2), "b": (OWN, 2), "c": (OWN, 1), "d": (OTHER, 0), "e": (OWN, None)}
    a, b, c, d, e = (
        saved(tmp_path / f"{name}.pt", manifest_sha256=sha, fold=fold) for name, (sha, fold) in folds.items()
    )
    assert [held_out(paths, OWN) for paths in ([a, b], [a, d], [a, c], [a, e], [d])] == [2, 2, None, None, None]
    assert [is_own(paths, OWN) for paths in ([a, c], [d, a], [d])] == [True, True, False]


def test_of_several_that_held_out_different_folds_only_the_test_is_scored(tmp_path):
    paths = [saved(tmp_path / f"{fold}.pt", manifest_sha256=OWN, fold=fold) for fold in (0, 1)]
    refuse_seen(paths, OWN, None, ["test", "none"])
    with pytest.raises(ValueError, match=r"expected weights of fold 1 in .*0\.pt \+ .*1\.pt, got None"):
        refuse_seen(paths, OWN, 1, ["fold 1"])
    with pytest.raises(ValueError, match=r"expected --split test .* got 'train': .*0\.pt \+ .*1\.pt has seen these"):
        refuse_seen(paths, OWN, None, ["train"])
