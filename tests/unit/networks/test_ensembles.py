"""Several networks together say the mean of what each says, and their files are read as one."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from bundle.labels import LESIONS
from bundle.method.heat_maps import NonFiniteLogits
from bundle.networks import ensembles
from bundle.networks.ensembles import Ensemble, seen_px
from bundle.networks.explained import ExplainedNetwork, MultiTaskNetwork
from bundle.networks.graders import Grader
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import save_weights
from bundle.steps import EvaluationStep, ExplainedStep
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
GRADES = {"sure": [0.7, 0.1, 0.1, 0.05, 0.05], "torn": [0.1, 0.3, 0.2, 0.2, 0.2]}
LESION = {"sure": [0.9, 0.1], "torn": [0.2, 0.8]}
FEATURES = {"sure": [1.0, 2.0], "torn": [3.0]}
MAP = {"sure": [0.0, 1.0, 0.5], "torn": [1.0, 0.0, 0.5]}


class Says(MultiTaskNetwork):
    """A network that says the same of every image, and keeps the images that it has seen."""

    def __init__(self, name):
        super().__init__()
        self.name, self.seen = name, []

    def forward(self, image):
        return self.both_tasks(image)["lesions"]

    def both_tasks(self, image):
        self.seen.append(image)
        lesions = torch.tensor(LESION[self.name]).log().view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])
        return {"lesions": lesions, "grade": torch.tensor(GRADES[self.name]).log().expand(len(image), -1)}

    def explained(self, image):
        maps = torch.tensor(MAP[self.name]).expand(len(image), 5, 1, -1)
        return {**self.both_tasks(image), "maps": maps, "features": torch.tensor(FEATURES[self.name])[None]}

    def ends(self):
        return []


def unet(seed, **settings):
    torch.manual_seed(seed)
    settings = {"width": 1 / 16, "batch_norm": True, **settings}
    network = MultiTaskUNet(pretrained=False, lesion_prior=None, **settings)
    nn.init.normal_(network.grade_head.weight, mean=0.3)
    return network.eval()


def linknet(seed):
    torch.manual_seed(seed)
    network = GradedSegmenter("linknet", "resnet18", pretrained=False, lesion_prior=None)
    nn.init.normal_(network.grade_head.weight, std=0.1)
    return network.eval()


def dilated(seed):
    torch.manual_seed(seed)
    network = GradedSegmenter("deeplabv3plus", "resnet18", pretrained=False, lesion_prior=None)
    nn.init.normal_(network.grade_head.weight, mean=0.3)
    return network.eval()


def saved(path, network=None, **facts):
    save_weights(path, unet(0) if network is None else network, {"image_size": 64, **facts})
    return path


def engine(network):
    return SimpleNamespace(
        network=network, state=SimpleNamespace(device=torch.device("cpu")), fire_event=lambda event: None
    )


def test_the_probabilities_of_two_networks_are_the_mean_of_each():
    together = Ensemble([Says("sure"), Says("torn")], image_sizes=[64, 64])
    found = together.explained(IMAGE)
    assert found["grade"].softmax(dim=1)[1].tolist() == pytest.approx([0.4, 0.2, 0.15, 0.125, 0.125])
    assert found["lesions"].softmax(dim=1)[1, :, 40, 90].tolist() == pytest.approx([0.55, 0.45])
    assert found["maps"][1, 4, 0].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=1e-6)
    assert found["features"].tolist() == [[1, 2, 3]]
    tasks = together.both_tasks(IMAGE)
    assert all(torch.equal(tasks[name], found[name]) for name in ("grade", "lesions"))
    assert torch.equal(together(IMAGE), found["lesions"])


@torch.no_grad()
def test_the_mean_is_that_of_the_networks_by_hand_whatever_their_classes_and_encoders():
    networks = [unet(1), linknet(2), unet(3, decoder_norm="group")]
    found = Ensemble(networks, image_sizes=[64] * 3).both_tasks(IMAGE)
    for task in ("lesions", "grade"):
        by_hand = sum(network.both_tasks(IMAGE)[task].softmax(dim=1) for network in networks) / 3
        assert (found[task].softmax(dim=1) - by_hand).abs().max() < 1e-6
        assert by_hand.std() > 0.01


@pytest.mark.parametrize(("made", "copies"), [(unet, 1), (unet, 3), (linknet, 2), (dilated, 2)])
@torch.no_grad()
def test_copies_of_one_network_are_that_network(made, copies):
    alone = ExplainedNetwork(made(0))
    together = ExplainedNetwork(Ensemble([made(0) for _ in range(copies)], image_sizes=[64] * copies))
    batch = {"image": IMAGE}
    expected, found = (ExplainedStep()(engine(network), batch) for network in (alone, together))
    features = found.pop("features"), torch.cat([expected.pop("features")] * copies, dim=1)
    assert torch.equal(*features)
    assert {name: value.shape for name, value in found.items()} == {n: value.shape for n, value in expected.items()}
    assert all((found[name] - expected[name]).abs().max() < 1e-5 for name in expected)
    assert expected["maps"].max() > 0.9


@torch.no_grad()
def test_the_order_of_the_networks_changes_nothing():
    networks = [unet(1), linknet(2), unet(3)]
    expected, *others = [
        Ensemble(order, image_sizes=[64] * 3).both_tasks(IMAGE) for order in itertools.permutations(networks)
    ]
    assert all((one[task] - expected[task]).abs().max() < 1e-5 for one in others for task in expected)


def test_each_network_sees_the_eye_at_its_own_size():
    small, large = Says("sure"), Says("torn")
    image = torch.zeros(1, 3, 128, 192)
    image[..., 96:] = 1  # the right half is white
    found = Ensemble([small, large], image_sizes=[512, 1024]).explained(image)
    assert large.seen[0] is image
    assert small.seen[0].shape == (1, 3, 64, 96)
    row = small.seen[0][0, 0, 30]
    assert row.tolist() == pytest.approx((1 - row.flip(0)).tolist())  # the edge stays in the middle
    assert (row.min(), row[:45].max(), row[51:].min(), row.max()) == (0, 0, 1, 1)
    assert found["lesions"].shape == (1, 2, 128, 192)
    assert found["lesions"].softmax(dim=1)[0, 1].mean().item() == pytest.approx(0.45)


@torch.no_grad()
def test_lesions_of_a_smaller_network_come_back_to_their_place():
    class Bright(Says):
        """Lesions where it is bright."""

        def both_tasks(self, image):
            return {**super().both_tasks(image), "lesions": 20 * torch.cat([0.5 - image[:, :1], image[:, :1] - 0.5], 1)}

    image = torch.zeros(1, 3, 128, 192)
    image[..., 32:96, 128:160] = 1
    lesion = Ensemble([Bright("sure"), Bright("torn")], image_sizes=[512, 1024])(image).softmax(dim=1)[0, 1]
    assert torch.equal(lesion > 0.5, image[0, 0] > 0.5)


@given(side=st.integers(1, 64), small=st.integers(1, 64), more=st.integers(0, 64))
def test_what_a_smaller_network_sees_is_a_multiple_of_32_and_its_own_size_of_a_whole_photograph(side, small, more):
    side, small, large = 32 * side, 32 * small, 32 * (small + more)
    seen = seen_px(side, small, large)
    assert seen % 32 == 0
    assert 0 <= seen - side * small / large < 32
    assert seen_px(large, small, large) == small


@torch.no_grad()
def test_where_all_are_sure_beyond_float32_the_logits_are_finite():
    class Sure(Says):
        def both_tasks(self, image):
            return {name: torch.where(one == one.amax(1, keepdim=True), 500.0, -500.0)
                    for name, one in super().both_tasks(image).items()}  # fmt: skip

    found = Ensemble([Sure("sure"), Sure("sure")], image_sizes=[64, 64]).both_tasks(IMAGE)
    assert all(value.isfinite().all() for value in found.values())
    assert found["grade"].softmax(dim=1)[0].tolist() == pytest.approx([1, 0, 0, 0, 0])


def test_a_network_without_a_share_in_the_grade_counts_for_the_lesions():
    found = Ensemble([Says("sure"), Says("torn")], image_sizes=[64, 64], grade_shares=[1.0, 0.0]).explained(IMAGE)
    assert found["grade"].softmax(dim=1)[1].tolist() == pytest.approx(GRADES["sure"])
    assert found["maps"][1, 4, 0].tolist() == pytest.approx(MAP["sure"], abs=1e-6)
    assert found["lesions"].softmax(dim=1)[1, :, 40, 90].tolist() == pytest.approx([0.55, 0.45])


@pytest.mark.parametrize("shares", [None, [1.0, 0.0]])
def test_one_network_that_is_broken_is_not_averaged_away(shares):
    broken = unet(1)
    nn.init.constant_(broken.grade_head.bias, float("nan"))
    network = ExplainedNetwork(Ensemble([unet(0), broken], image_sizes=[64, 64], grade_shares=shares))
    with pytest.raises(NonFiniteLogits, match=r"got NaN or infinity for image \[0, 1\]"):
        ExplainedStep()(engine(network), {"image": IMAGE})


def test_networks_keep_their_modes_and_their_weights_are_not_copied():
    networks = [unet(0).train(), unet(1)]
    together = Ensemble(networks, image_sizes=[64, 64])
    assert [network.training for network in networks] == [True, False]
    assert together.networks[0] is networks[0]
    assert together.training


@torch.no_grad()
def test_an_evaluation_takes_several_networks_as_it_takes_one():
    batch = {"image": IMAGE}
    networks = [unet(0), unet(1)]
    found = EvaluationStep()(engine(BothTasks(Ensemble(networks, image_sizes=[64, 64]))), batch)
    each = [EvaluationStep()(engine(BothTasks(network)), batch) for network in networks]
    assert all((found[task] - (each[0][task] + each[1][task]) / 2).abs().max() < 1e-6 for task in found)


# ---- files


def test_files_build_one_network_in_evaluation_mode_and_frozen(tmp_path):
    paths = [saved(tmp_path / "a.pt", unet(1), image_size=64), saved(tmp_path / "b.pt", linknet(2), image_size=96)]
    together = ensembles.network_of(paths)
    assert [type(network).__name__ for network in together.networks] == ["MultiTaskUNet", "GradedSegmenter"]
    assert together.image_sizes == [64, 96]
    assert not any(module.training for module in [together, *together.networks])
    assert not any(parameter.requires_grad for parameter in together.parameters())
    with torch.no_grad():
        assert torch.equal(together.networks[0](IMAGE), unet(1)(IMAGE))


def test_one_file_is_its_own_network_and_says_what_it_said(tmp_path):
    fitted = dict(zip(LESIONS, (0.1, 0.2, 0.3, 0.7), strict=True))
    areas = dict(zip(LESIONS, (3.0, 4.0, 5.0, 0.1), strict=True))
    path = saved(tmp_path / "a.pt", unet(1), lesion_thresholds=fitted, min_area_ppm=areas, taught_grades=[2, 4])
    for paths in (path, str(path), [path]):
        assert isinstance(ensembles.network_of(paths), MultiTaskUNet)
        assert ensembles.image_size(paths) == 64
        assert ensembles.lesion_thresholds(paths) == tuple(fitted.values())
        assert ensembles.min_area_ppm(paths) == areas
        assert ensembles.taught_grades(paths) == [2, 4]
        assert ensembles.names(paths).startswith(f"{tmp_path.name}/a.pt, sha256 ")
        assert ensembles.sizes(paths, 128) == "128 px"
        assert ensembles.provenance(paths)["path"] == str(path)


def test_what_was_fitted_for_each_is_averaged(tmp_path):
    one = {"lesion_thresholds": dict(zip(LESIONS, (0.1, 0.2, 0.3, 0.7), strict=True)), "min_area_ppm": 5.0}
    other = {"lesion_thresholds": dict(zip(LESIONS, (0.3, 0.2, 0.4, 0.1), strict=True)), "image_size": 96}
    paths = [saved(tmp_path / "a.pt", **one), saved(tmp_path / "b.pt", **other)]
    assert ensembles.lesion_thresholds(paths) == pytest.approx((0.2, 0.2, 0.35, 0.4))
    assert ensembles.min_area_ppm(paths) == dict.fromkeys(LESIONS, 4.0)  # of 5, and of 3, as where none was fitted
    assert ensembles.image_size(paths) == 96
    assert ensembles.sizes(paths, 96) == "64 + 96 px"
    assert ensembles.sizes(paths, 192) == "128 + 192 px"
    assert ensembles.names(paths).count(", sha256 ") == 2
    assert [one["path"] for one in ensembles.provenance(paths)] == list(map(str, paths))


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=5
    )  # a threshold, and a probability, of each network
)
def test_the_mean_threshold_never_overrules_networks_that_agree(each):
    thresholds, probabilities = zip(*each, strict=True)
    above = [p > t + 1e-9 for t, p in each]
    mean_above = sum(probabilities) / len(each) > sum(thresholds) / len(each)
    assert mean_above or not all(above)
    assert not mean_above or any(p > t - 1e-9 for t, p in each)


def test_the_grade_is_of_the_networks_that_were_taught_all_grades_of_the_others(tmp_path):
    of = {"all": {"taught_grades": [0, 1, 2]}, "two": {"taught_grades": [1, 2]}, "again": {"taught_grades": [2, 1, 0]}}
    everything, two, again, silent = (
        saved(tmp_path / f"{name}.pt", **facts) for name, facts in {**of, "-": {}}.items()
    )
    assert ensembles.grade_shares([everything, two]) == [1, 0]
    assert ensembles.grade_shares([two, everything, again, silent]) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert ensembles.network_of([two, everything]).grade_shares == [0, 1]
    assert ensembles.taught_grades([two, everything]) == [0, 1, 2]
    assert ensembles.taught_grades([two, silent]) is None
    first, second = ensembles.names([two, everything]).split("; ")
    assert first.endswith(" (lesions alone: not taught grade 0)")
    assert "(" not in second


def test_networks_of_which_none_was_taught_all_grades_of_the_others_are_refused(tmp_path):
    paths = [saved(tmp_path / f"{taught[0]}.pt", taught_grades=taught) for taught in ([0, 2], [1, 2, 3])]
    with pytest.raises(
        ValueError, match=r"got 1, 3 not in .*0\.pt, 0 not in .*1\.pt; give files that were taught the same"
    ):
        ensembles.network_of(paths)
    saved(paths[0], taught_grades="all")
    with pytest.raises(ValueError, match=r"expected taught_grades as a list of grades in .*0\.pt, got 'all'"):
        ensembles.network_of(paths)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], r"expected one weights file or more in --checkpoint, got an empty list"),
        (["a.pt", "./a.pt"], r"expected each weights file once in --checkpoint, .* it would count twice; leave one"),
        (["a.pt", "link.pt"], r"expected each weights file once .*a\.pt and .*link\.pt, which are the same"),
        (["a.pt", "fused.pt"], r"expected 4 lesion_classes in .*fused\.pt, as in .*a\.pt, got 1"),
        (["a.pt", "grader.pt"], r"expected weights of a network among .*grader\.pt, got weights of 'Grader'"),
        (["a.pt", "nowhere.pt"], r"expected weights at .*nowhere\.pt, found no such file"),
        (["a.pt", "sizeless.pt"], r"expected an image_size in pixels in .*sizeless\.pt, got None"),
    ],
)
def test_files_that_do_not_go_together_are_refused_and_named(tmp_path, made, message):
    saved(tmp_path / "a.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    saved(tmp_path / "fused.pt", unet(0, lesion_classes=1), fuse=True)
    saved(tmp_path / "sizeless.pt", image_size=None)
    if "grader.pt" in made:
        saved(tmp_path / "grader.pt", Grader("tf_efficientnet_lite0", pretrained=False))
    with pytest.raises(ValueError, match=message):
        ensembles.network_of([f"{tmp_path}/{name}" for name in made])


def test_fused_lesions_are_refused_wherever_they_stand_in_the_list(tmp_path):
    paths = [saved(tmp_path / "a.pt"), saved(tmp_path / "fused.pt", unet(0, lesion_classes=1), fuse=True)]
    assert ensembles.is_fused(paths)
    for order in (paths, paths[::-1]):
        with pytest.raises(ValueError, match=r"tell the four lesions apart in .*fused\.pt"):
            ensembles.refuse_fused(order)


def test_thresholds_beside_the_most_probable_class_are_refused_with_the_way_out(tmp_path):
    paths = [saved(tmp_path / "a.pt", lesion_thresholds=dict.fromkeys(LESIONS, 0.5)), saved(tmp_path / "b.pt")]
    with pytest.raises(ValueError, match=r"got 4 in .*a\.pt and none in .*b\.pt; give --lesion_thresholds"):
        ensembles.lesion_thresholds(paths)
    assert ensembles.lesion_thresholds(paths[1:]) is None


def test_another_size_than_that_of_the_largest_is_refused_in_an_evaluation(tmp_path):
    paths = [saved(tmp_path / "a.pt"), saved(tmp_path / "b.pt", image_size=96)]
    ensembles.check_facts(paths, {"image_size": 96, "fuse": False})
    with pytest.raises(ValueError, match=r"expected weights of image_size 64 in .*a\.pt \+ .*b\.pt, got 96"):
        ensembles.check_facts(paths, {"image_size": 64, "fuse": False})


def test_limits_of_likely_grades_hold_for_one_file_alone(tmp_path):
    fitted = {"coverage": 0.9, "quantiles": [0.75] * 5, "fitted_on": "76 photographs of fold 0"}
    for name in "ab":
        save_weights(tmp_path / name, nn.Linear(2, 3), {"grade_sets": fitted})
    a, b = tmp_path / "a", tmp_path / "b"
    assert ensembles.grade_set_quantiles(a) == ensembles.grade_set_quantiles([b]) == (0.75,) * 5
    assert ensembles.grade_set_quantiles([a, b]) is None
    assert ensembles.grade_sets_in_words([a, b], None) == "none"
    assert "90 % of photographs" in ensembles.grade_sets_in_words([a], [0.75] * 5)
    assert ensembles.grade_sets_in_words([a, b], [0.75] * 5).startswith("by other limits")
