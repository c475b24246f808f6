"""Weights files: where they are found, how they are fetched, and what is refused."""

from __future__ import annotations

import collections
import hashlib
import http.client
import io
import json
import pwd
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reelbank.extract import backbones
from reelbank.extract.weights import calibration, checkpoints, files, torchvision_shim
from reelbank.extract.weights.files import WeightsError, WeightsFile, WeightsSource

CONTENT = b"pretend these are tensors"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def source(**changes: Any) -> WeightsSource:
    fields = {"file_name": "net.pth", "url": "https://example.org/files/net.pth", "licence": "MIT", **changes}
    return WeightsSource(**fields)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cache of this machine is seen, and nothing leaves it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("REELBANK_WEIGHTS_DIR", "TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "home"


def refuse(*_args: Any, **_kwargs: Any) -> Any:
    raise urllib.error.URLError("Name or service not known")


def answer_with(content: bytes, length: int | None = None) -> Callable[..., Any]:
    class Response(io.BytesIO):
        @property
        def headers(self) -> dict[str, str]:
            return {"Content-Length": str(len(content) if length is None else length)}

    return lambda *_args, **_kwargs: Response(content)


@pytest.mark.parametrize("name", [n for n in backbones.names() if backbones.describe(n).sources])
def test_no_file_and_no_network_says_which_file_to_put_where(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_installed", lambda distribution, file_name: [])
    with pytest.raises(WeightsError) as caught:
        backbones.build(name, device="cpu")
    message = str(caught.value)
    for expected in (f"'{name}'", str(home / ".cache/reelbank/weights"), "--weights random", "--weights FILE"):
        assert expected in message
    for origin in backbones.describe(name).sources:
        assert origin.file_name in message
        assert origin.url in message


def test_no_answer_ends_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    released, ended = threading.Event(), threading.Event()

    def hang(*_args: Any, **_kwargs: Any) -> Any:
        released.wait(30)
        ended.set()
        raise urllib.error.URLError("too late")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    monkeypatch.setattr(files, "CONNECT_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(WeightsError, match=r"no answer within 0.1 s"):
        files.pretrained_file("net", [source()])
    assert not ended.is_set()
    released.set()


def test_all_sources_of_a_backbone_are_tried_within_10_seconds() -> None:
    most = max(len(backbones.describe(name).sources) for name in backbones.names())
    assert most * files.CONNECT_TIMEOUT_SECONDS < 10


def test_download_appears_whole_and_is_recorded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", answer_with(CONTENT))
    file = files.pretrained_file("net", [source()])
    folder = home / ".cache/reelbank/weights"
    assert file == WeightsFile(path=folder / "net.pth", sha256=SHA256, source=source())
    assert file.path.read_bytes() == CONTENT
    assert json.loads((folder / "net.pth.json").read_text())["sha256"] == SHA256
    assert sorted(p.name for p in folder.iterdir()) == ["net.pth", "net.pth.json"]
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert files.pretrained_file("net", [source()]) == file


def test_file_that_changed_since_its_first_use_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", answer_with(CONTENT))
    files.pretrained_file("net", [source()]).path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="has changed since its first use"):
        files.pretrained_file("net", [source()])


@pytest.mark.parametrize("published", [{"sha256": "0" * 64}, {"sha256_prefix": "0123abcd"}])
def test_download_with_another_checksum_is_not_kept(
    published: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", answer_with(CONTENT))
    with pytest.raises(WeightsError, match=f"sha256 is {SHA256}, expected 0"):
        files.pretrained_file("net", [source(**published)])
    assert list((home / ".cache/reelbank/weights").iterdir()) == []


def test_transfer_that_breaks_off_leaves_no_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", answer_with(CONTENT, length=1000))
    with pytest.raises(WeightsError, match=f"after {len(CONTENT)} of 1000 bytes"):
        files.pretrained_file("net", [source()])
    assert list((home / ".cache/reelbank/weights").iterdir()) == []


def test_answer_that_is_no_http_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def garble(*_args: Any, **_kwargs: Any) -> Any:
        raise http.client.BadStatusLine("?")

    monkeypatch.setattr(urllib.request, "urlopen", garble)
    with pytest.raises(WeightsError, match="BadStatusLine"):
        files.pretrained_file("net", [source()])


@pytest.mark.parametrize(
    "place",
    [
        "named/net.pth",
        ".cache/reelbank/weights/net.pth",
        ".cache/torch/hub/checkpoints/net.pth",
        ".cache/clip/net.pth",
    ],
)
def test_file_in_a_known_cache_is_used(place: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELBANK_WEIGHTS_DIR", str(home / "named"))
    (home / place).parent.mkdir(parents=True)
    (home / place).write_bytes(CONTENT)
    found = files.pretrained_file("net", [source(sha256=SHA256)])
    assert (found.path, found.sha256) == (home / place, SHA256)


def test_file_in_the_hugging_face_cache_is_used(home: Path) -> None:
    hub = files.hugging_face_source("timm/net.tag", "net.tag.safetensors", "MIT")
    path = home / ".cache/huggingface/hub/models--timm--net.tag/snapshots/abc/model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert files.pretrained_file("net", [source(), hub]).path == path


def test_a_user_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --user 1234`: no HOME, and no entry of that user."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    hub = files.hugging_face_source("timm/net.tag", "net.tag.safetensors", "MIT")
    for one in (source(), hub):
        assert files.cached_file(one) is None
        with pytest.raises(WeightsError, match=r"no home folder; name a folder .* as \$REELBANK_WEIGHTS_DIR"):
            files.pretrained_file("net", [one])
    with pytest.raises(WeightsError, match="no such file"):
        files.given_file("~/net.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/net.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert files.cached_file(source()) == path
    monkeypatch.setenv("REELBANK_WEIGHTS_DIR", str(tmp_path / "named"))
    assert files.pretrained_file("net", [source(sha256=SHA256)]).path == path


def test_source_that_is_not_https_is_refused() -> None:
    with pytest.raises(WeightsError, match="not an https address"):
        source(url="http://example.org/net.pth")


# Reading files of strangers.


def small_network() -> nn.Module:
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))


def file_at(path: Path) -> WeightsFile:
    return files.given_file(path)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module."])
def test_state_is_found_in_the_usual_wrappings(wrap: str, tmp_path: Path) -> None:
    state = small_network().state_dict()
    content: Any = {"plain": state, "module.": {f"module.{k}": v for k, v in state.items()}}.get(wrap, {wrap: state})
    torch.save(content, tmp_path / "net.pth")
    read = checkpoints.read_state(file_at(tmp_path / "net.pth"))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"weight": _Evil(tmp_path / "ran")}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="could run code of its author"):
        checkpoints.read_state(file_at(tmp_path / "net.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 broken"])
def test_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        checkpoints.read_state(file_at(tmp_path / name))


def test_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"found a dict of 1 entries \('epoch': int\)"):
        checkpoints.read_state(file_at(tmp_path / "net.pth"))


def test_missing_file_names_the_alternatives(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file; give pretrained, random or the path"):
        backbones.build("resnet18", weights=tmp_path / "absent.pth", device="cpu")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_torchscript_archive_is_opened_only_with_a_published_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jit: Any = torch.jit
    jit.save(jit.trace(small_network().eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "net.pt")
    file = file_at(tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="a TorchScript archive is a program"):
        checkpoints.read_state(file)
    monkeypatch.setattr(checkpoints, "TRUSTED_TORCHSCRIPT", {file.sha256})
    assert checkpoints.read_state(file).keys() == small_network().state_dict().keys()


def test_weights_of_another_architecture_are_refused_with_counts(tmp_path: Path) -> None:
    torchvision_shim.ensure()
    import torchvision

    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(WeightsError, match=r"another network than ResNet .* 96 unexpected: layer1.2.conv1.weight, "):
        backbones.build("resnet18", weights=tmp_path / "resnet34.pth", device="cpu")
    for name in ("dinov2", "clip", "googlenet"):
        with pytest.raises(WeightsError, match=r"\d+ missing: .*, \.\.\.; \d+ unexpected: "):
            backbones.build(name, weights=tmp_path / "resnet34.pth", device="cpu")


def test_tensors_of_another_shape_are_shown(tmp_path: Path) -> None:
    state = small_network().state_dict()
    state["conv.weight"] = torch.zeros(4, 1, 3, 3)
    with pytest.raises(WeightsError, match=r"conv.weight \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)"):
        checkpoints.fit_state(small_network(), state, file=tmp_path / "net.pth")


def test_half_precision_files_and_missing_batch_counters_fit(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in small_network().state_dict().items()}
    del state["norm.num_batches_tracked"]
    fitted = checkpoints.fit_state(small_network(), state, file=tmp_path / "net.pth")
    assert fitted["conv.weight"].dtype == torch.float32
    assert fitted["norm.num_batches_tracked"] == 0


# Random weights.


def test_random_weights_leave_the_global_generator_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    np_state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    backbones.build("googlenet", weights="random", seed=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.get_state()[1], np_state)  # type: ignore[index]  # noqa: NPY002


def test_random_weights_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    states = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            module = backbones.build("resnet18", weights="random", device="cpu").module
            assert module is not None
            states.append(module.state_dict())
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def test_random_weights_are_named_by_recipe_seed_and_architecture() -> None:
    architectures = [("net", 1), ("net", 1), ("net", 2), ("other net", 1)]
    first, again, other_seed, other_network = (calibration.random_weights(*entry) for entry in architectures)
    assert first == again
    assert first["kind"] == "random"
    assert first["seed"] == 1
    assert len({entry["sha256"] for entry in (first, other_seed, other_network)}) == 3
    assert backbones.build("resnet18", weights="random", seed=1, device="cpu").weights["recipe"] == first["recipe"]
    json.dumps(first)


def test_weights_entry_of_a_file_holds_its_checksum_and_no_folder(tmp_path: Path) -> None:
    made = backbones.build("resnet18", weights="random", device="cpu").module
    assert made is not None
    save_file({key: value.contiguous() for key, value in made.state_dict().items()}, tmp_path / "net.safetensors")
    entry = backbones.build("resnet18", weights=tmp_path / "net.safetensors", device="cpu").weights
    sha256 = hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()
    assert entry == {"kind": "file", "source": "net.safetensors", "sha256": sha256}


def test_pretrained_file_is_loaded_and_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_shim.ensure()
    import torchvision

    monkeypatch.setenv("REELBANK_WEIGHTS_DIR", str(home))
    home.mkdir()
    published = backbones.describe("resnet18").sources[0]
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), home / published.file_name)
    with pytest.raises(WeightsError, match=r"is not the published resnet18-f37072fd.pth: .* expected f37072fd\.\.\."):
        backbones.build("resnet18", device="cpu")
    monkeypatch.setattr(files, "_refuse_wrong_checksum", lambda *_args: None)
    entry = backbones.build("resnet18", device="cpu").weights
    assert entry == {
        "kind": "pretrained",
        "source": published.url,
        "sha256": files.sha256_of(home / published.file_name),
        "licence": "BSD-3-Clause",
    }
