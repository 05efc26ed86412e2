"""Networks that start from weights trained elsewhere, and what of them is trained on."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cxr_core.models import Infeasible, build_model, last_layers, measure_model
from cxr_core.models.timm_net import TimmNet
from cxr_core.registry import Chosen, Scalar

NAME = "test_resnet"
FIRST = "conv1.0.weight"


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """What somebody else has trained: three channels and 1,000 classes, and statistics of many films."""
    torch.manual_seed(7)
    net = timm.create_model(NAME)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.fixture(scope="module", params=["weights.pth", "weights.safetensors"])
def file(request: pytest.FixtureRequest, source: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("pretrained") / request.param
    if path.suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(source: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrained") / "weights.pth"
    torch.save(source.state_dict(), path)
    return path


def net(path: Path | str, *, seed: int = 0, size: int = 64, name: str = NAME, **params: Scalar) -> TimmNet:
    torch.manual_seed(seed)
    chosen = Chosen("timm", {"name": name, "pretrained": str(path), **params})
    model = build_model(chosen, size, 3, 0.0)
    assert isinstance(model, TimmNet)
    return model


def films(count: int = 4, size: int = 64) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def refusal(path: Path | str, **params: Scalar) -> str:
    with pytest.raises(Infeasible) as refused:
        net(path, **params)
    return str(refused.value)


def test_all_weights_but_the_first_and_last_layers_are_the_files(source: nn.Module, file: Path) -> None:
    theirs, ours = source.state_dict(), net(file).net.state_dict()
    assert ours.keys() == theirs.keys()
    adapted = {FIRST, "fc.weight", "fc.bias"}
    assert [key for key in theirs if not ours[key].equal(theirs[key])] == [key for key in theirs if key in adapted]


def test_one_channel_answers_to_a_film_as_the_colours_do_to_its_repetition(source: nn.Module, weights: Path) -> None:
    grey = torch.rand(2, 1, 64, 64)
    one = net(weights)
    first, theirs = one.net.get_submodule("conv1.0"), source.get_submodule("conv1.0")
    torch.testing.assert_close(first(grey), theirs(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_three_channels_keep_the_first_layer_as_it_is(source: nn.Module, weights: Path) -> None:
    assert net(weights, channels=3).net.state_dict()[FIRST].equal(source.state_dict()[FIRST])


def test_the_new_head_follows_the_seed_and_the_rest_does_not(weights: Path) -> None:
    first, again, other = (net(weights, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(tensor.equal(again[key]) for key, tensor in first.items())
    assert [key for key in first if not first[key].equal(other[key])] == ["net.fc.weight", "net.fc.bias"]


def test_a_vision_transformer_of_another_film_size_takes_its_positions_along(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = timm.create_model("test_vit")
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    ours = net(tmp_path / "vit.pth", name="test_vit", size=64).net.state_dict()
    assert ours["blocks.0.attn.qkv.weight"].equal(source.state_dict()["blocks.0.attn.qkv.weight"])
    assert ours["pos_embed"].shape[1] < source.state_dict()["pos_embed"].shape[1]


def test_a_network_whose_weights_are_replaced_anyway_does_not_need_the_file(weights: Path, tmp_path: Path) -> None:
    saved = net(weights, freeze_until="layer2")
    gone = Chosen("timm", {"name": NAME, "pretrained": str(tmp_path / "gone.pth"), "freeze_until": "layer2"})
    again = build_model(gone, 64, 3, 0.0, pretrained=False)
    again.load_state_dict(saved.state_dict(), strict=True)
    assert again.eval()(films()).equal(saved.eval()(films()))
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in saved.parameters()]


def test_a_missing_file_is_known_before_a_worker_is_used(tmp_path: Path) -> None:
    chosen = Chosen("timm", {"name": NAME, "pretrained": str(tmp_path / "gone.pth")})
    with pytest.raises(Infeasible, match=r"gone\.pth: no such file of weights"):
        measure_model(chosen, 64, 3, 0.0)


def test_measuring_reads_no_weights_and_asks_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    (tmp_path / "empty.pth").touch()
    for pretrained in ("imagenet", str(tmp_path / "empty.pth")):
        assert measure_model(Chosen("resnet18", {"pretrained": pretrained}), 64, 3, 0.0).parameters > 1e7


def test_weights_that_timm_does_not_have_are_known_before_a_worker_is_used() -> None:
    unknown = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    with pytest.raises(Infeasible, match=f"^{unknown}: timm has no pretrained weights of it"):
        measure_model(Chosen("timm", {"name": unknown, "pretrained": "imagenet"}), 64, 3, 0.0)


def test_without_network_and_cache_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal("imagenet")
    assert message.startswith("test_resnet: its pretrained weights are not in the Hugging Face cache (HF_HOME)")
    assert message.endswith("fetch them once where there is a network, or give a file: pretrained: FILE.safetensors")


def test_weights_in_the_hubs_cache_need_no_network(
    source: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cache's layout is the hub's: models--OWNER--NAME, a ref to a snapshot, and the files in it."""
    folder = tmp_path / f"models--timm--{NAME}.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(source.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    key = "layer1.0.conv1.weight"
    assert net("imagenet").net.state_dict()[key].equal(source.state_dict()[key])


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(b"not weights")
    assert refusal(path).startswith(f"{path}: cannot be loaded into {NAME} (")


def test_weights_of_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("test_vit", "test_efficientnet", "test_convnext"):
        assert refusal(weights, name=name).startswith(f"{weights}: ")
    torch.save({"classifier.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    message = refusal(tmp_path / "other.pth")
    assert f"other.pth: not weights of {NAME} (" in message
    assert f"such as {FIRST}, are not in it)" in message


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_everything_before_the_named_layer_is_frozen(weights: Path) -> None:
    names = trained(net(weights, freeze_until="layer3"))
    assert names
    assert {name.split(".")[1] for name in names} == {"layer3", "layer4", "fc"}


def test_a_head_that_is_trained_alone_is_the_last_layer(weights: Path) -> None:
    model = net(weights, freeze_until="head")
    assert trained(model) == {"net.fc.weight", "net.fc.bias"}
    assert measure_model(
        Chosen("timm", {"name": NAME, "pretrained": str(weights), "freeze_until": "head"}), 64, 3, 0.0
    ).parameters == sum(parameter.numel() for parameter in last_layers(model)[0].parameters())


def test_training_leaves_frozen_layers_and_their_statistics_as_they_were(weights: Path) -> None:
    model = net(weights, freeze_until="layer3")
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model.train()(films()).square().sum().backward()
        optimizer.step()
        model.eval()
    changed = {key.split(".")[1] for key, tensor in model.state_dict().items() if not tensor.equal(before[key])}
    assert changed == {"layer3", "layer4", "fc"}


def test_a_copy_of_a_frozen_network_is_frozen_too(weights: Path) -> None:
    twin = copy.deepcopy(net(weights, freeze_until="head")).train()
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert twin.training


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_ones() -> None:
    chosen = Chosen("resnet18", {"pretrained": "imagenet", "freeze_until": "layer5"})
    with pytest.raises(Infeasible, match=r"the network has no layer 'layer5'; did you mean 'layer4'"):
        measure_model(chosen, 64, 3, 0.0)


def test_freezing_random_weights_is_refused() -> None:
    with pytest.raises(
        Infeasible, match=r"^resnet18: freeze_until without pretrained weights would freeze random ones$"
    ):
        measure_model(Chosen("resnet18", {"freeze_until": "head"}), 64, 3, 0.0)
