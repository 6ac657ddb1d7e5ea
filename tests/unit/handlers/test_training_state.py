"""A training that was killed and goes on ends with the very weights of one that was not."""

import pytest
import torch
from bundle.handlers.training_state import DropState, SaveWeights, SeedEpochs, TrainingState
from bundle.networks.weights import load_weights
from bundle.steps import GradingStep
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, RandFlipd, RandGaussianNoised
from torch import nn

EPOCHS = 3


class Killed(BaseException):
    """What a signal looks like from inside."""


class KillAfter:
    """End the training after an epoch, once its state is written."""

    def __init__(self, epoch):
        self.epoch = epoch

    def attach(self, engine):
        @engine.on(Events.EPOCH_COMPLETED)
        def kill(engine):
            if engine.state.epoch == self.epoch:
                raise Killed


class RecordsNothing:
    """A record of the run that fails when the training has finished, such as a server that is gone."""

    def attach(self, engine):
        @engine.on(Events.COMPLETED)
        def fail(engine):
            raise Killed


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(24, 5))


def train(
    folder, settings=None, resume=True, kill_after=None, max_epochs=EPOCHS, num_workers=0, seed=7, recorder_fails=False
):
    """Train on random flips and noise, with dropout, a shuffled loader, Adam and one cycle of its rate."""
    learner = network()
    items = [{"image": torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(i)), "grade": i} for i in range(5)]
    noise = RandGaussianNoised(keys="image", prob=0.8, std=0.5)
    data_set = Dataset(items, Compose([RandFlipd(keys="image", prob=0.5, spatial_axis=1), noise]))
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=3 * max_epochs, cycle_momentum=False)
    settings, state = {"manifest_sha256": "a", "seed": seed} | (settings or {}), str(folder / "state.pt")
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(data_set, batch_size=2, shuffle=True, num_workers=num_workers),
        network=learner,
        optimizer=optimizer,
        loss_function=None,
        iteration_update=GradingStep(nn.CrossEntropyLoss()),
        decollate=False,
        train_handlers=[
            SeedEpochs(seed, data_set),
            LrScheduleHandler(cycle, print_lr=False, epoch_level=False),
            TrainingState(state, {"network": learner, "optimizer": optimizer, "scheduler": cycle}, settings, resume),
            *([KillAfter(kill_after)] if kill_after else []),
            SaveWeights(str(folder / "model.pt"), learner, settings),
            *([RecordsNothing()] if recorder_fails else []),
            DropState(state),
        ],
    )
    first = trainer.state.epoch
    trainer.run()
    return learner, trainer.state.epoch - first


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.fixture
def undisturbed(tmp_path):
    (tmp_path / "undisturbed").mkdir()
    return train(tmp_path / "undisturbed")[0]


@pytest.mark.parametrize("killed_after", [1, 2])
def test_killed_after_an_epoch_and_resumed_it_ends_with_the_same_weights(tmp_path, undisturbed, killed_after):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=killed_after)
    torch.rand(killed_after)  # a new process has drawn other numbers before
    resumed, epochs = train(tmp_path)
    assert epochs == EPOCHS - killed_after
    assert same(resumed, undisturbed)


def test_the_same_holds_with_loader_processes(tmp_path):
    (tmp_path / "undisturbed").mkdir()
    expected, _ = train(tmp_path / "undisturbed", num_workers=1, max_epochs=2)
    with pytest.raises(Killed):
        train(tmp_path, num_workers=1, max_epochs=2, kill_after=1)
    assert same(train(tmp_path, num_workers=1, max_epochs=2)[0], expected)


def test_the_seed_decides(tmp_path, undisturbed):
    assert not same(train(tmp_path, seed=8)[0], undisturbed)


def test_epochs_draw_different_numbers():
    drawn = []
    data_set = Dataset([], Compose([RandFlipd(keys="image")]))
    handler = SeedEpochs(0, data_set)
    for epoch in (1, 2, 1):
        handler(type("Engine", (), {"state": type("State", (), {"epoch": epoch})}))
        drawn.append((torch.rand(()).item(), data_set.transform.R.random()))
    assert drawn[0] == drawn[2]
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


def test_a_finished_training_leaves_its_weights_and_no_state(tmp_path):
    learner, _ = train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    other = network()
    facts = load_weights(other, tmp_path / "model.pt")
    assert facts == {"manifest_sha256": "a", "seed": 7, "epochs": EPOCHS, "steps": 3 * EPOCHS}
    assert same(other, learner)


def test_a_training_whose_record_fails_at_the_end_repeats_its_last_epoch_alone(tmp_path, undisturbed):
    folder = tmp_path / "again"
    folder.mkdir()
    with pytest.raises(Killed):
        train(folder, recorder_fails=True)
    assert sorted(path.name for path in folder.iterdir()) == ["model.pt", "state.pt"]
    again, epochs = train(folder)
    assert epochs == 1
    assert same(again, undisturbed)
    assert [path.name for path in folder.iterdir()] == ["model.pt"]


def test_a_training_that_was_cut_off_leaves_its_state_and_no_weights(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=1)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_without_resume_it_starts_anew(tmp_path, undisturbed):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=1)
    anew, epochs = train(tmp_path, resume=False)
    assert epochs == EPOCHS
    assert same(anew, undisturbed)


def test_going_on_with_other_settings_is_refused_and_they_are_named(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=1)
    with pytest.raises(ValueError, match=r"state\.pt was written with other settings \(manifest_sha256\); start again"):
        train(tmp_path, settings={"manifest_sha256": "b"})


def test_nested_settings_are_compared_one_by_one(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, settings={"options": {"beta": 0.8, "folds": [0, 1]}}, kill_after=1)
    with pytest.raises(ValueError, match=r"with other settings \(beta, gamma\)"):
        train(tmp_path, settings={"options": {"beta": 0.9, "folds": [0, 1], "gamma": 2.0}})
    assert train(tmp_path, settings={"options": {"beta": 0.8, "folds": [0, 1]}})[1] == EPOCHS - 1


def test_a_part_that_is_switched_off_is_left_out_and_missed_when_it_is_switched_on(tmp_path):
    path, learner = str(tmp_path / "state.pt"), network()
    engine = Engine(lambda engine, batch: None)
    engine.state.max_epochs = 2
    TrainingState(path, {"network": learner, "labels": None}, {}, resume=True).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, engine.terminate)
    engine.run([0], max_epochs=2)
    with pytest.raises(ValueError, match=r"other settings \(labels\)"):
        TrainingState(path, {"network": learner, "labels": network()}, {}, resume=True).attach(engine)


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_going_on_to_an_epoch_that_is_over_is_refused(tmp_path, max_epochs):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=2)
    message = rf"expected max_epochs above the 2 that .*state\.pt has, got {max_epochs}; start again"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, max_epochs=max_epochs)
