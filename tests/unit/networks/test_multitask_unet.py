"""One pass gives lesions at full resolution and a grade; the meta gradient sees the same parameters by name."""

import math

import pytest
import torch
from bundle.networks.encoders import ENCODERS
from bundle.networks.multitask_unet import BothTasks, GradeTask, MultiTaskUNet
from bundle.networks.vgg import VGG16Encoder
from bundle.networks.weights import load_weights, refuse_fused, save_weights
from monai.networks.nets.basic_unet import UpCat
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MultiTaskUNet(pretrained=False, width=1 / 16).eval()


def test_both_tasks_have_five_classes(network):
    tasks = network.both_tasks(IMAGE)
    assert {task: tuple(logits.shape) for task, logits in tasks.items()} == {"lesions": (2, 5, 64, 96), "grade": (2, 5)}
    assert sum(p.numel() for p in network.grade_head.parameters()) == 32 * 5 + 5


def test_a_fused_network_has_one_class_beside_the_background_and_five_grades():
    tasks = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_classes=1).both_tasks(IMAGE)
    assert {task: tuple(logits.shape) for task, logits in tasks.items()} == {"lesions": (2, 2, 64, 96), "grade": (2, 5)}


def test_rejects_a_network_without_a_lesion_class():
    with pytest.raises(ValueError, match="expected one lesion class or more, got lesion_classes 0"):
        MultiTaskUNet(pretrained=False, width=1 / 16, lesion_classes=0)


def saved(path, lesion_classes, **facts):
    save_weights(path, MultiTaskUNet(pretrained=False, width=1 / 16, lesion_classes=lesion_classes), facts)
    return path


def test_weights_of_a_fused_network_load_where_fuse_is_asked_for_and_nowhere_else(network, tmp_path):
    path = saved(tmp_path / "model.pt", 1, fuse=True)
    fused = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_classes=1)
    assert load_weights(fused, path, expected={"fuse": True}) == {**fused.settings(), "fuse": True}
    with pytest.raises(ValueError, match=r"expected weights of fuse False in .*model\.pt, got True"):
        load_weights(network, path, expected={"fuse": False})
    with pytest.raises(ValueError, match=r"tell the four lesions apart in .*model\.pt, got weights .* fuse: true"):
        refuse_fused(path)


@pytest.mark.parametrize("facts", [{"fuse": False}, {}])
def test_weights_of_four_lesions_need_not_say_so(network, tmp_path, facts):
    """Those that were written before there was a choice do not."""
    path = saved(tmp_path / "model.pt", 4, **facts)
    refuse_fused(path)
    assert load_weights(network, path, expected={"fuse": False}) == {**network.settings(), **facts}
    fused = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_classes=1)
    with pytest.raises(ValueError, match=r"expected weights of fuse True in .*model\.pt, got False"):
        load_weights(fused, path, expected={"fuse": True})


def test_a_consumer_of_one_tensor_gets_the_lesions_of_both_tasks(network):
    assert torch.equal(network(IMAGE), network.both_tasks(IMAGE)["lesions"])


def test_the_grade_is_the_head_of_the_features(network):
    features = network.features(IMAGE)
    assert tuple(features.shape) == (2, 32, 2, 3)
    assert torch.equal(network.head(features), network.both_tasks(IMAGE)["grade"])
    expected = features.mean(dim=(2, 3)) @ network.grade_head.weight.T + network.grade_head.bias
    assert torch.allclose(network.head(features), expected, atol=1e-6)


def test_the_full_resolution_skip_changes_three_pixels_about_its_own(network):
    """Three 3x3 convolutions lie between block1_conv2 and the logits; any path through a coarser level is wider."""
    before = network(IMAGE)

    def one_pixel(module, inputs, features):
        full = features[0].clone()
        full[:, :, 21, 50] += 1
        return [full, *features[1:]]

    network.encoder.register_forward_hook(one_pixel)
    changed = (network(IMAGE) - before).abs().amax(dim=(0, 1)) > 0
    rows, columns = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (18, 24, 47, 53)


def test_the_decoder_starts_he_normal_without_bias():
    torch.manual_seed(0)
    convolution = MultiTaskUNet(False, width=1 / 4).decoder[0].convs.conv_0.conv
    fan_in = 9 * (128 + 128)
    assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert convolution.bias is None or convolution.bias.abs().max() == 0


def test_the_grade_task_is_a_part_of_both_tasks_by_name_and_value(network):
    both, grade = BothTasks(network), GradeTask(network)
    assert torch.equal(grade(IMAGE), both(IMAGE)["grade"])
    of_both, labelled = dict(both.named_parameters()), grade.label_parameters()
    assert len(labelled) == 26 + 2  # weights and biases of 13 convolutions and of the head
    assert set(labelled) < set(of_both)
    assert all(value is of_both[name] for name, value in labelled.items())


def test_the_grading_loss_has_gradients_exactly_in_its_label_parameters(network):
    task = GradeTask(network)
    task(IMAGE).square().sum().backward()
    with_gradient = {name for name, p in task.named_parameters() if p.grad is not None}
    assert with_gradient == set(task.label_parameters())


def test_torchscript_gives_the_same_lesions(network):
    scripted = torch.jit.script(network)
    with torch.no_grad():
        assert torch.allclose(scripted(IMAGE), network(IMAGE), atol=1e-6)


def test_an_image_alone_gives_what_it_gives_in_a_batch(network):
    with torch.no_grad():
        assert torch.allclose(network(IMAGE[1:]), network(IMAGE)[1:], atol=1e-4)


def test_with_group_norm_a_result_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, decoder_norm="group").train()
    images = torch.rand(2, 3, 64, 96)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"expected decoder_norm in \['batch', 'group'\], got 'layer'"):
        MultiTaskUNet(pretrained=False, width=1 / 16, decoder_norm="layer")


@pytest.mark.parametrize("width", [1 / 16, 1.0])
def test_before_training_nearly_everything_is_background_and_all_grades_are_alike(width):
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=width)
    with torch.no_grad():
        tasks = network.train().both_tasks(IMAGE[..., :32, :64])
    p = tasks["lesions"].softmax(dim=1)
    assert p[:, 0].mean().item() == pytest.approx(0.96, abs=0.01)  # 1 - 4 x 0.01
    assert p[:, 0].min() > 0.9
    assert torch.equal(tasks["grade"], torch.zeros(2, 5))


def test_without_a_prior_the_head_starts_as_the_decoder_does():
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
    assert network.segmentation_head.bias.abs().max() == 0
    assert network.segmentation_head.weight.std() > 0.05  # He-normal: sqrt(2 / (16 * 9)) = 0.118


@pytest.mark.parametrize("prior", [0.0, 0.25])
def test_a_prior_that_leaves_nothing_to_lesions_or_background_is_refused(prior):
    with pytest.raises(ValueError, match="expected a lesion_prior above 0 and below 1/4, or null for none"):
        MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=prior)


def test_the_settings_build_the_same_network_again():
    network = MultiTaskUNet(False, width=1 / 16, batch_norm=True, lesion_classes=1, decoder_norm="group")
    again = MultiTaskUNet(False, **network.settings())
    again.load_state_dict(network.state_dict())
    assert again.settings() == network.settings()
    assert [module is network.encoder for module in network.shared_modules()] == [True]


class PlainUNet(nn.Module):
    """The paper's network in plain words, an eighth as wide, as it was when VGG16 was the only encoder."""

    def __init__(self):
        super().__init__()
        self.encoder = VGG16Encoder(False, 1 / 8)
        sizes = [(64, 64, 32), (32, 64, 16), (16, 32, 16), (16, 16, 16), (16, 8, 16)]  # below, skip, out
        how = {
            "act": ("RELU", {"inplace": True}), "norm": "batch", "bias": False, "upsample": "nontrainable",
            "pre_conv": None, "interp_mode": "nearest", "align_corners": None, "is_pad": False,
        }  # fmt: skip
        self.decoder = nn.ModuleList(UpCat(2, *size, **how) for size in sizes)
        self.segmentation_head = nn.Conv2d(16, 5, 3, padding=1)
        self.grade_head = nn.Linear(64, 5)
        for layer in [m for part in (self.decoder, self.segmentation_head) for m in part.modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.segmentation_head.weight, std=0.01)
        nn.init.constant_(self.segmentation_head.bias, math.log(0.01))
        nn.init.constant_(self.segmentation_head.bias[:1], math.log(0.96))

    def forward(self, image):
        x, *skips = reversed(self.encoder(image))
        for up, skip in zip(self.decoder, skips, strict=True):
            x = up(x, skip)
        return self.segmentation_head(x)


def test_vgg16_is_bit_for_bit_what_it_was_before_there_were_others():
    made = []
    for build in (PlainUNet, lambda: MultiTaskUNet(pretrained=False, width=1 / 8)):
        torch.manual_seed(3)
        made.append(build())
    before, now = made
    assert list(now.state_dict()) == list(before.state_dict())
    grade_head = ("grade_head.weight", "grade_head.bias")  # zero, and not reached by forward
    assert all(torch.equal(v, now.state_dict()[k]) for k, v in before.state_dict().items() if k not in grade_head)
    assert torch.equal(now(IMAGE), before(IMAGE))


LIGHT = {"pretrained": False, "encoder": "tf_efficientnet_lite0"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_with_every_encoder_lesions_have_the_size_of_the_image(encoder):
    with torch.device("meta"):
        network = MultiTaskUNet(pretrained=False, encoder=encoder)
        tasks = network.both_tasks(IMAGE.to("meta"))
    assert {task: tuple(logits.shape) for task, logits in tasks.items()} == {"lesions": (2, 5, 64, 96), "grade": (2, 5)}
    assert network.settings()["encoder"] == encoder


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    network = MultiTaskUNet(**LIGHT).eval()
    nn.init.normal_(network.grade_head.weight)
    return network


def test_a_light_network_has_under_4_million_parameters(light):
    assert sum(p.numel() for p in light.parameters()) == 3_837_162
    assert [up.convs.conv_1.conv.out_channels for up in light.decoder[:4]] == [128, 64, 48, 32]


def test_the_image_is_the_full_resolution_skip_of_a_light_network(light):
    """Four 3x3 convolutions lie between the image and the logits; any path through the encoder is wider."""
    features = light._encode(IMAGE)
    other = features[0].clone()
    other[:, :, 21, 50] += 1
    with torch.no_grad():
        changed = (light._decode([other, *features[1:]]) - light._decode(features)).abs().amax(dim=(0, 1)) > 0
    rows, columns = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 25, 46, 54)


def test_a_light_network_grades_by_its_encoder_alone(light):
    task = GradeTask(light)
    light.zero_grad()
    task(IMAGE).square().sum().backward()
    with_gradient = {name for name, p in task.named_parameters() if p.grad is not None}
    assert with_gradient == set(task.label_parameters())
    assert torch.equal(task(IMAGE), light.both_tasks(IMAGE)["grade"])


def test_the_ends_of_a_light_network_are_where_the_image_comes_in_and_the_logits_come_out(light):
    layers = [m for end in light.ends() for m in end.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    found = [(layer.weight.shape[1], layer.weight.shape[0]) for layer in layers]
    assert found == [(320, 5), (3, 32), (3, 16), (48, 16), (16, 16), (16, 5)]


def test_torchscript_gives_the_same_lesions_of_a_light_network(light):
    scripted = torch.jit.script(light)
    with torch.no_grad():
        assert torch.allclose(scripted(IMAGE), light(IMAGE), atol=1e-6)


def test_its_settings_build_a_network_again_that_takes_its_weights(light):
    again = MultiTaskUNet(pretrained=False, **light.settings()).eval()
    again.load_state_dict(light.state_dict())
    with torch.no_grad():
        assert torch.equal(again(IMAGE), light(IMAGE))


def statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items() if "running" in name}


def changed_statistics(network):
    before = statistics(network)
    network.train().both_tasks(IMAGE)
    return {name.split(".")[0] for name, value in statistics(network).items() if not torch.equal(value, before[name])}


def test_frozen_statistics_stay_in_training_and_scales_learn():
    network = MultiTaskUNet(**LIGHT, freeze_batch_norm=True)
    assert not network.encoder.trunk.bn1.training  # before anybody calls train()
    assert changed_statistics(network) == {"decoder"}
    network.encoder(IMAGE)[-1].square().mean().backward()
    assert network.encoder.trunk.bn1.weight.grad.abs().max() > 0
    assert changed_statistics(MultiTaskUNet(**LIGHT)) == {"encoder", "decoder"}


def test_with_frozen_statistics_the_grade_of_a_photograph_does_not_depend_on_its_batch():
    network = MultiTaskUNet(**LIGHT, freeze_batch_norm=True).train()
    nn.init.normal_(network.grade_head.weight)
    alone, beside = network.both_tasks(IMAGE[:1])["grade"], network.both_tasks(IMAGE)["grade"][:1]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_without_batch_norm_there_are_no_statistics_to_freeze():
    with pytest.raises(
        ValueError, match=r"encoder with batch norm for freeze_batch_norm, got vgg16 or another without"
    ):
        MultiTaskUNet(pretrained=False, width=1 / 16, freeze_batch_norm=True)
