"""A weights file names its network and loads into no other; it is written whole, the same content as the same bytes."""

import math
import multiprocessing
import os
import re
import resource
import signal

import pytest
import torch
import torchvision
from bundle.files import file_sha256, load_json
from bundle.networks import weights as module
from bundle.networks.graders import Grader
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.vgg import VGG16Encoder
from bundle.networks.weights import (
    check_facts,
    facts_of,
    grade_set_quantiles,
    grade_sets_in_words,
    halve,
    image_size,
    lesion_thresholds,
    load_grader,
    load_graders,
    load_teacher,
    load_weights,
    network_of,
    provenance,
    provenances,
    read_description,
    save_weights,
    save_whole,
    shared_fact,
    write_bare,
)
from torchvision.models.resnet import BasicBlock, ResNet

FACTS = {"width": 1 / 16, "image_size": 64, "seed": 3}
BARE_FACTS = {"width": 1 / 16, "image_size": 64, "pretrained": "/home/me/vgg16.pth"}


def unet(seed, width=1 / 16):
    torch.manual_seed(seed)
    return MultiTaskUNet(pretrained=False, width=width)


@pytest.fixture
def weights(tmp_path):
    save_weights(tmp_path / "model.pt", unet(0), FACTS)
    return tmp_path / "model.pt"


@pytest.fixture
def small_graders(monkeypatch):
    """A ResNet of four blocks stands in for the ResNeXts."""
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    )


def test_what_is_loaded_is_what_was_saved(weights):
    other = unet(1)
    assert load_weights(other, weights) == {**unet(0).settings(), **FACTS}
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), unet(0).state_dict().values(), strict=True)
    )


def test_a_halved_file_takes_half_and_is_within_the_rounding_of_16_bits(tmp_path):
    facts = FACTS | {"width": 0.25, "pretrained": "/home/me/vgg16.pth"}
    save_weights(tmp_path / "model.pt", unet(0, width=0.25), facts)
    halve(tmp_path / "model.pt", tmp_path / "half.pt")
    assert facts_of(tmp_path / "half.pt") == facts_of(tmp_path / "model.pt") | {"pretrained": "vgg16.pth"}
    ratio = (tmp_path / "half.pt").stat().st_size / (tmp_path / "model.pt").stat().st_size
    assert 0.5 < ratio < 0.55
    loaded = network_of(tmp_path / "half.pt")
    for name, value in unet(0, width=0.25).state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == value.dtype
        if value.ndim > 1:
            torch.testing.assert_close(found, value, rtol=2**-11, atol=2**-25)
        else:
            assert torch.equal(found, value)


def test_a_weight_beyond_16_bits_is_refused_and_named(tmp_path):
    layer = torch.nn.Linear(2, 3)
    layer.weight.data[0, 0] = 70000.0
    save_weights(tmp_path / "model.pt", layer, {})
    with pytest.raises(ValueError, match=r"expected weights up to 65504 in .*model.pt, got larger ones in weight"):
        halve(tmp_path / "model.pt", tmp_path / "half.pt")
    assert not (tmp_path / "half.pt").exists()


def test_a_fact_that_files_do_not_share_is_named(tmp_path):
    for name, size in (("one", 384), ("other", 512)):
        save_weights(tmp_path / f"{name}.pt", torch.nn.Linear(2, 3), {"image_size": size})
    with pytest.raises(ValueError, match=r"expected weights of image_size 384 in .*other.pt, got 512"):
        shared_fact([tmp_path / "one.pt", tmp_path / "other.pt"], "image_size")


def test_a_fact_of_no_file_is_refused_as_no_grader_is():
    with pytest.raises(ValueError, match="one or more weights of stage 1, got none"):
        shared_fact([], "image_size")


def test_a_teacher_is_a_frozen_copy_and_the_network_stays_as_it_was(weights):
    network = unet(1).train()
    before = network.segmentation_head.weight.clone()
    teacher = load_teacher(network, weights, {"seed": 3})
    assert torch.equal(teacher.segmentation_head.weight, unet(0).segmentation_head.weight)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert torch.equal(network.segmentation_head.weight, before)
    assert network.training
    assert network.segmentation_head.weight.requires_grad


def test_thresholds_come_in_the_order_of_the_channels_and_are_none_in_old_files(weights, tmp_path):
    assert lesion_thresholds(weights) is None
    said = {"SE": 0.4, "EX": 0.3, "HE": 0.2, "MA": 0.1}
    for name, thresholds in (("four.pt", said), ("fused.pt", {"lesion": 0.25}), ("none.pt", None)):
        save_weights(tmp_path / name, unet(0), {**FACTS, "lesion_thresholds": thresholds})
    assert lesion_thresholds(tmp_path / "four.pt") == (0.1, 0.2, 0.3, 0.4)
    assert lesion_thresholds(tmp_path / "fused.pt") == (0.25,)
    assert lesion_thresholds(tmp_path / "none.pt") is None


@pytest.mark.parametrize("wrong", [0.5, [0.1, 0.2, 0.3, 0.4], {}, {"MA": 0.1, "HE": 0.2}, {"lesion": 2.0}])
def test_thresholds_that_are_none_are_refused_by_the_file_they_stand_in(tmp_path, wrong):
    save_weights(tmp_path / "model.pt", unet(0), {**FACTS, "lesion_thresholds": wrong})
    with pytest.raises(ValueError, match=r"expected lesion_?\s?thresholds .*"):
        lesion_thresholds(tmp_path / "model.pt")


SETS = {"coverage": 0.9, "quantiles": [0.5, 0.7, 0.25, 0.7, 1], "fitted_on": "76 photographs of fold 0"}


def test_limits_of_sets_come_by_grade_and_old_files_have_none(weights, tmp_path):
    assert grade_set_quantiles(weights) is None
    assert grade_sets_in_words(weights, None) == "none"
    save_weights(tmp_path / "fitted.pt", unet(0), {**FACTS, "grade_sets": SETS})
    found = grade_set_quantiles(tmp_path / "fitted.pt")
    assert found == (0.5, 0.7, 0.25, 0.7, 1)
    words = grade_sets_in_words(tmp_path / "fitted.pt", found)
    assert "true grade in 90 % of photographs like 76 photographs of fold 0;" in words
    for path in (tmp_path / "fitted.pt", weights):  # somebody typed others
        assert grade_sets_in_words(path, [0.5] * 5).endswith("how often they include the true grade is not known")


@pytest.mark.parametrize(
    "wrong", [0.9, [0.5] * 5, {}, SETS | {"quantiles": [0.5]}, SETS | {"coverage": "0.9"}, SETS | {"fitted_on": None}]
)
def test_sets_that_are_none_are_refused_by_the_file_they_stand_in(tmp_path, wrong):
    save_weights(tmp_path / "model.pt", unet(0), {**FACTS, "grade_sets": wrong})
    with pytest.raises(ValueError, match=r"expected grade_sets of configs/calibrate\.yaml in .*model\.pt, got .*again"):
        grade_set_quantiles(tmp_path / "model.pt")


def test_nothing_but_the_file_itself_is_left_behind(weights):
    save_whole(weights, {"model": {}})
    assert [path.name for path in weights.parent.iterdir()] == ["model.pt"]


def test_provenance_tells_file_hash_network_and_facts(weights):
    found = provenance(weights)
    told = {"path": str(weights), "sha256": file_sha256(weights), "network": "MultiTaskUNet"}
    assert found == {**told, **unet(0).settings(), **FACTS}
    assert provenances(str(weights)) == provenances([weights]) == [found]


def test_graders_are_built_from_what_their_files_say(small_graders, tmp_path):
    graders = [Grader("resnext50_32x4d", False), Grader("resnext101_32x8d", False)]
    paths = [tmp_path / f"{grader.architecture}.pt" for grader in graders]
    for grader, path in zip(graders, paths, strict=True):
        save_weights(path, grader, {"architecture": grader.architecture})
    found = load_graders(paths)
    assert [grader.architecture for grader in found] == ["resnext50_32x4d", "resnext101_32x8d"]
    assert torch.equal(found[1].classifier.fc.weight, graders[1].classifier.fc.weight)
    assert len(load_graders(str(paths[0]))) == 1


def test_graders_are_cut_where_heat_maps_are_asked_for(small_graders, tmp_path):
    grader = Grader("resnext50_32x4d", False)
    save_weights(tmp_path / "a.pt", grader, {"architecture": "resnext50_32x4d"})
    image = torch.rand(1, 3, 64, 96)
    strides = {32: (2, 3), 16: (4, 6)}
    for stride, size in strides.items():
        (found,) = load_graders([tmp_path / "a.pt"], heat_map_stride=stride).eval()
        assert tuple(found.features(image).shape[-2:]) == size


def test_a_grader_has_the_temperature_of_its_file_and_1_where_none_was_fitted(small_graders, tmp_path):
    facts = {"architecture": "resnext50_32x4d"}
    save_weights(tmp_path / "a.pt", Grader("resnext50_32x4d", False), {**facts, "temperature": 1.5})
    save_weights(tmp_path / "b.pt", Grader("resnext50_32x4d", False), facts)
    assert [grader.temperature for grader in load_graders([tmp_path / "a.pt", tmp_path / "b.pt"])] == [1.5, 1.0]


def test_a_grader_has_the_shift_of_its_class_weights_and_none_where_it_was_trained_without(small_graders, tmp_path):
    facts = {"architecture": "resnext50_32x4d"}
    weighed = facts | {"class_weights": [4.0, 1.0, 1.0, 0.0, 0.5]}
    save_weights(tmp_path / "a.pt", Grader("resnext50_32x4d", False), weighed)
    save_weights(tmp_path / "b.pt", Grader("resnext50_32x4d", False), facts)
    first, second = load_graders([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert first.prior_shift == pytest.approx((1.3863, 0, 0, 0, -0.6931), abs=1e-4)
    assert second.prior_shift == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("weights", [[1.0] * 4, [1, 1, 1, 1, -1.0], "heavy", {"a": 1}, 3])
def test_class_weights_that_are_none_are_refused(small_graders, tmp_path, weights):
    facts = {"architecture": "resnext50_32x4d", "class_weights": weights}
    save_weights(tmp_path / "a.pt", Grader("resnext50_32x4d", False), facts)
    with pytest.raises(ValueError, match=r"expected 5 class weights .* got .* in .*a\.pt; train this grader again"):
        load_grader(tmp_path / "a.pt")


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "warm", None])
def test_a_temperature_that_is_none_is_refused(small_graders, tmp_path, temperature):
    facts = {"architecture": "resnext50_32x4d", "temperature": temperature}
    save_weights(tmp_path / "a.pt", Grader("resnext50_32x4d", False), facts)
    with pytest.raises(ValueError, match=rf"expected a temperature above 0 in .*a\.pt, got {temperature!r}"):
        load_grader(tmp_path / "a.pt")


def test_a_grader_of_another_number_of_grades_is_refused_in_one_line(small_graders, tmp_path):
    grader = Grader("resnext50_32x4d", False)
    grader.classifier.fc = torch.nn.Linear(grader.classifier.fc.in_features, 6)
    save_weights(tmp_path / "six.pt", grader, {"architecture": "resnext50_32x4d"})
    with pytest.raises(ValueError, match=r"weights of this Grader in .*six\.pt, .*size mismatch.*\[6") as refused:
        load_graders([tmp_path / "six.pt"])
    assert "\n" not in str(refused.value)


def test_a_grader_of_an_unknown_architecture_is_refused(small_graders, tmp_path):
    save_weights(tmp_path / "a.pt", Grader("resnext50_32x4d", False), {"architecture": "alexnet"})
    with pytest.raises(ValueError, match=r"expected architecture in .*got 'alexnet'"):
        load_graders([tmp_path / "a.pt"])


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(ValueError, match=r"weights of VGG16Encoder in .*model\.pt, got weights of MultiTaskUNet"):
        load_weights(VGG16Encoder(False, 1 / 16), weights)
    with pytest.raises(ValueError, match=r"weights of a grader in .*model\.pt, got weights of MultiTaskUNet"):
        load_grader(weights)


def test_weights_of_another_width_are_refused_and_the_right_settings_named(weights):
    with pytest.raises(ValueError, match=r"those of another size \(size mismatch.*trained with: .*'width': 0\.0625"):
        load_weights(unet(0, width=1 / 8), weights)


def test_weights_that_another_program_wrote_are_refused(tmp_path):
    torch.save(unet(0).state_dict(), tmp_path / "plain.pt")
    with pytest.raises(ValueError, match=r"that this bundle wrote in .*plain\.pt, got a file without 'model'"):
        load_weights(unet(0), tmp_path / "plain.pt")


def test_a_file_that_was_cut_off_is_refused(weights):
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*model\.pt"):
        load_weights(unet(0), weights)


def test_no_grader_at_all_is_refused():
    with pytest.raises(ValueError, match=r"expected --graders .*one or more weights of stage 1, got none"):
        load_graders([])


LIGHT = {"encoder": "tf_efficientnet_lite0", "decoder_norm": "group", "freeze_batch_norm": True}


@pytest.mark.parametrize(
    "build",
    [
        lambda: MultiTaskUNet(False, **LIGHT),
        lambda: MultiTaskUNet(False, width=1 / 16, batch_norm=True, lesion_classes=1),
        lambda: GradedSegmenter("linknet", "resnet18", pretrained=False),
    ],
)
def test_a_file_builds_the_network_that_it_names(build, tmp_path):
    torch.manual_seed(0)
    trained = build()
    save_weights(tmp_path / "model.pt", trained, {"image_size": 64})
    network, image = network_of(tmp_path / "model.pt"), torch.rand(1, 3, 64, 96)
    assert network.settings() == trained.settings()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        assert torch.equal(network(image), trained.eval()(image))


def test_a_file_from_before_there_were_encoders_is_of_vgg16(tmp_path):
    facts = {"width": 1 / 16, "batch_norm": False, "decoder_norm": "batch", "fuse": True}
    old = {"model": MultiTaskUNet(False, 1 / 16, lesion_classes=1).state_dict(), "network": "MultiTaskUNet"}
    torch.save({**old, "facts": facts}, tmp_path / "model.pt")
    assert network_of(tmp_path / "model.pt").settings()["encoder"] == "vgg16"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder_norm": None}, r"expected decoder_norm among the facts of .*model\.pt, found none: .* again"),
        ({"encoder": "lenet"}, r"expected settings of MultiTaskUNet in .*: expected encoder in \['vgg16'"),
        ({"encoder": ["vgg16"]}, r"expected settings of MultiTaskUNet in .*: expected encoder in \['vgg16'"),
        ({"width": "wide"}, r"expected settings of MultiTaskUNet in .*model\.pt, got .*'width': 'wide'"),
        ({"width": math.inf}, r"expected settings of MultiTaskUNet in .*model\.pt, got .*'width': inf"),
        (
            {"width": 1 / 8},
            r"the MultiTaskUNet that .*model\.pt names, with encoder\S+ of shape \[8, 3, 3, 3\], got \[4,",
        ),
        ({"width": 1000.0}, r"of shape \[64000, 3, 3, 3\], got \[4, 3, 3, 3\]; its facts belong to other weights"),
        ({"width": 1e18}, r"expected settings of MultiTaskUNet in .*model\.pt, got .*'width': 1e\+18"),
    ],
)
def test_settings_that_the_class_or_the_tensors_refuse_are_named(changed, message, tmp_path):
    network = MultiTaskUNet(False, width=1 / 16)
    facts = {name: value for name, value in {**network.settings(), **changed}.items() if value is not None}
    torch.save({"model": network.state_dict(), "network": "MultiTaskUNet", "facts": facts}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        network_of(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "name", ["Grader", "os.system", "bundle.networks.multitask_unet.MultiTaskUNet", "GradedNetwork", "Mine", ["a"], 3]
)
def test_a_class_outside_of_the_table_is_refused(name, tmp_path):
    network = MultiTaskUNet(False, width=1 / 16)
    torch.save({"model": network.state_dict(), "network": name, "facts": network.settings()}, tmp_path / "model.pt")
    known = r"\['GradedSegmenter', 'MultiTaskUNet'\]"
    with pytest.raises(
        ValueError, match=rf"a network among {known} in .*model.pt, got weights of .*{re.escape(str(name))}"
    ):
        network_of(tmp_path / "model.pt")


class Mine(MultiTaskUNet):
    """A network that is not one of bundle/networks/."""


def test_nothing_is_imported_for_a_class_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = {"model": unet(0).state_dict(), "network": "elsewhere.Network", "facts": unet(0).settings()}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"got weights of 'elsewhere\.Network'"):
        network_of(tmp_path / "model.pt")


def test_a_class_of_the_room_is_found_by_its_name_wherever_its_file_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(Mine, "__module__", "bundle.networks.mine")
    save_weights(tmp_path / "model.pt", Mine(False, width=1 / 16), {})
    assert type(network_of(tmp_path / "model.pt")) is Mine


@pytest.mark.parametrize("name", ["resnet152", "", "vgg16_bn"])
def test_an_encoder_that_does_not_exist_is_named_with_those_that_do(name):
    with pytest.raises(ValueError, match=rf"expected encoder in \['vgg16', 'resnet18'.*got '{name}'"):
        MultiTaskUNet(pretrained=False, encoder=name)


@pytest.mark.parametrize("found", [None, "64", 0, True, 64.0])
def test_a_file_without_its_image_size_is_refused(found, tmp_path):
    save_weights(tmp_path / "model.pt", unet(0), {} if found is None else {"image_size": found})
    with pytest.raises(ValueError, match=rf"expected an image_size in pixels in .*model\.pt, got {found!r}; train"):
        image_size(tmp_path / "model.pt")


def test_facts_are_read_once_and_again_after_any_change(weights, monkeypatch):
    reads = []
    monkeypatch.setattr(module, "read_weights", lambda path, read=module.read_weights: reads.append(path) or read(path))
    module._read_facts.cache_clear()
    facts_of(weights)["seed"] = 4  # the caller's copy
    assert (image_size(weights), facts_of(weights)["seed"], provenance(weights)["seed"]) == (64, 3, 3)
    assert len(reads) == 1
    for seed in range(5, 9):  # of the same size, one right after the other
        save_weights(weights, unet(0), {**FACTS, "seed": seed})
        assert facts_of(weights)["seed"] == seed
    write_bare(weights, unet(0).state_dict(), "MultiTaskUNet", {"image_size": 64})
    assert image_size(weights) == 64
    description = weights.with_suffix(".json")
    description.write_text(description.read_text().replace('"image_size": 64', '"image_size": 96'))
    assert image_size(weights) == 96
    weights.unlink()
    with pytest.raises(ValueError, match="found no such file"):
        image_size(weights)


def test_messages_name_the_path_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^expected weights at nope/model\.pt, found no such file"):
        facts_of("nope/model.pt")


def test_facts_of_a_relative_path_are_those_of_the_current_folder(tmp_path, monkeypatch):
    for seed in (5, 6):
        save_weights(tmp_path / str(seed) / "model.pt", unet(0), {**FACTS, "seed": seed})
        monkeypatch.chdir(tmp_path / str(seed))
        assert facts_of("model.pt")["seed"] == seed


def test_the_same_content_has_the_same_bytes_in_every_folder(tmp_path):
    for name in ("a/model.pt", "b/model.pt"):
        save_whole(tmp_path / name, {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "facts": {"seed": 7}})
    first, second = ((tmp_path / name).read_bytes() for name in ("a/model.pt", "b/model.pt"))
    assert first == second
    assert str(os.getpid()).encode() not in first


def written_with_little_room(path, answers):
    """Say why weights of 40 kB cannot be written where a file may have 10 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        save_whole(path, {"model": torch.zeros(10_000)})
    except OSError as error:
        answers.send(str(error))


def test_a_full_disk_is_called_by_its_name_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands for the disk; it is set in a process of its own, for it stays."""
    context = multiprocessing.get_context("fork")
    answer, answers = context.Pipe()
    process = context.Process(target=written_with_little_room, args=(tmp_path / "model.pt", answers))
    process.start()
    process.join()
    assert answer.poll()
    message = answer.recv()
    assert message.endswith("model.pt: File too large; make room there, and run the same command again")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bare(tmp_path):
    write_bare(tmp_path / "model.pt", unet(0).state_dict(), "MultiTaskUNet", BARE_FACTS)
    return tmp_path / "model.pt"


def test_a_bare_file_is_the_state_dict_alone(bare):
    state = torch.load(bare, weights_only=True)
    assert list(state) == list(unet(0).state_dict())
    unet(1).load_state_dict(state)


def test_what_is_loaded_from_a_bare_file_is_what_was_written_with_its_facts(bare):
    other = unet(1)
    facts = load_weights(other, bare, {"image_size": 64})
    assert facts == {**BARE_FACTS, "pretrained": "vgg16.pth"}
    assert torch.equal(other.segmentation_head.weight, unet(0).segmentation_head.weight)
    assert provenance(bare)["network"] == "MultiTaskUNet"


def test_lesion_thresholds_are_kept_beside_a_bare_file(tmp_path):
    facts = {**BARE_FACTS, "lesion_thresholds": {"MA": 0.2, "HE": 1 / 3, "EX": 0.45, "SE": 0.5}}
    write_bare(tmp_path / "fitted.pt", unet(0).state_dict(), "MultiTaskUNet", facts)
    assert lesion_thresholds(tmp_path / "fitted.pt") == (0.2, 1 / 3, 0.45, 0.5)


def test_sets_of_grades_are_kept_beside_a_bare_file(tmp_path):
    write_bare(tmp_path / "fitted.pt", unet(0).state_dict(), "MultiTaskUNet", {**BARE_FACTS, "grade_sets": SETS})
    assert grade_set_quantiles(tmp_path / "fitted.pt") == (0.5, 0.7, 0.25, 0.7, 1)


def test_facts_of_a_bare_file_are_checked(bare):
    with pytest.raises(ValueError, match=r"expected weights of image_size 128 in .*, got 64"):
        load_weights(unet(1), bare, {"image_size": 128})
    check_facts(bare, read_description(bare)["facts"], {"image_size": 64})


def test_the_same_bare_weights_give_the_same_bytes_whatever_the_name(bare, tmp_path):
    write_bare(tmp_path / "deep" / "other.pt", unet(0).state_dict(), "MultiTaskUNet", BARE_FACTS)
    assert bare.read_bytes() == (tmp_path / "deep" / "other.pt").read_bytes()
    assert load_json(bare.with_suffix(".json")) == load_json(tmp_path / "deep" / "other.json")


def test_a_bare_file_without_its_description_is_refused(bare):
    bare.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"without 'model' and 'network', and no model\.json next to it"):
        load_weights(unet(1), bare)


def test_other_weights_under_the_description_are_refused(bare):
    torch.save(unet(1).state_dict(), bare)
    with pytest.raises(ValueError, match=r"expected the weights that .*model\.json was written for"):
        load_weights(unet(1), bare)


def test_a_description_of_something_else_is_refused(bare):
    bare.with_suffix(".json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"expected 'network', 'facts' and 'sha256' in .*model\.json, got other"):
        load_weights(unet(1), bare)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"bias": torch.ones(4)}, r"a tensor bias of \(4,\) in .*, got \(3,\)"),
        ({"head": torch.ones(3)}, r"a tensor head of \(3,\) in .*, got none"),
    ],
)
def test_a_tensor_that_the_file_has_no_place_for_is_refused(tmp_path, tensors, found):
    save_weights(tmp_path / "a.pt", torch.nn.Linear(2, 3), {"fold": 0})
    with pytest.raises(ValueError, match=found):
        module.say_also(tmp_path / "a.pt", tmp_path / "b.pt", {}, tensors)
    assert not (tmp_path / "b.pt").exists()
