"""Training runs as weights: what they trained, the rest from where they began, and stores that are made of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pipeline import copy_set, run
from safetensors.torch import save_file
from torch import Tensor

import reelbank.store
from reelbank.extract import FeaturizeConfig, backbones, extract_as
from reelbank.extract.backbones import flow_resnet34
from reelbank.extract.backbones import network as networks
from reelbank.extract.backbones.identity import rest_digest, tensors_digest
from reelbank.extract.backbones.resnet import RANDOM_BRANCH_SCALE
from reelbank.extract.run import repeating
from reelbank.extract.run import todo as planning
from reelbank.extract.run.repeating import retry_config
from reelbank.extract.weights.calibration import random_weights
from reelbank.extract.weights.files import WEIGHTS_DIR_VARIABLE, WeightsError, WeightsFile, sha256_of
from reelbank.heads.runs.predicting import refuse_other_features
from reelbank.store import FeatureSpec, SpecMismatch, StoreError
from reelbank.store.description import describe
from reelbank.store.spec import differences

MODEL, SMALL, SEED = "resnet18", "timm:test_resnet", 3
State = Mapping[str, Tensor]


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def began() -> State:
    """The network before the training."""
    return state_of(backbones.build(MODEL, weights="random", seed=SEED, device="cpu"))


def state_of(backbone: backbones.Backbone) -> State:
    assert backbone.module is not None
    return {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}


def of_layer4(state: State, step: float = 0.002) -> State:
    """layer4 as a training left it."""
    return {
        name: tensor + step if tensor.is_floating_point() else tensor + 7
        for name, tensor in state.items()
        if name.startswith("layer4.")
    }


def without(state: State, trained: State) -> State:
    return {name: tensor for name, tensor in state.items() if name not in trained}


def entry(began: State, trained: State, weights: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    found = {"prefix": "head.net.", "weights": dict(weights), "sha256": rest_digest(without(began, trained), weights)}
    return found | changed


def write_run(folder: Path, trained: State, entries: Mapping[str, Any] | None, *, finished: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"head.net.{name}": tensor.contiguous() for name, tensor in trained.items()}
    tensors["head.classifier.weight"] = torch.zeros(3, 512)
    header: dict[str, Any] = {"format_version": 1, "head": "some-head"}
    if entries is not None:
        header["backbones"] = entries
    save_file(tensors, folder / "best.safetensors", metadata={"reelbank": json.dumps(header)})
    if finished:
        (folder / "results.json").write_text("{}")
    return folder


def built(folder: Path | str, model: str = MODEL) -> backbones.Backbone:
    return backbones.build(model, weights=folder, device="cpu")


RANDOM = random_weights(f"torchvision {MODEL}, residual branches {RANDOM_BRANCH_SCALE}", SEED)


@pytest.fixture
def of_file(tmp_path: Path, began: State) -> dict[str, Any]:
    """The `weights` of a network that began with a weights file, which lies in the folder for such."""
    tensors = {name: tensor.contiguous() for name, tensor in began.items()}
    save_file(tensors, tmp_path / "weights" / "any name.safetensors")
    return {"kind": "file", "sha256": sha256_of(tmp_path / "weights" / "any name.safetensors")}


# --- the digest that both stages compute


def test_digest_is_of_names_dtypes_shapes_and_bytes_in_the_order_of_names() -> None:
    a, b = torch.arange(6, dtype=torch.float32).reshape(2, 3), torch.tensor(7)
    state = {"b.num": b, "a": a}
    # Of this format for ever: runs carry it. Lines of JSON and raw bytes, hashed by hand.
    by_hand = b'["a", "float32", [2, 3]]\n' + a.numpy().tobytes() + b'["b.num", "int64", []]\n' + b.numpy().tobytes()
    assert tensors_digest(state) == hashlib.sha256(by_hand).hexdigest()
    assert tensors_digest({}) == hashlib.sha256(b"").hexdigest()
    assert tensors_digest(dict(reversed(state.items()))) == tensors_digest(state)
    turned = a.t().contiguous().t()
    assert not turned.is_contiguous()
    assert tensors_digest(state | {"a": torch.nn.Parameter(turned)}) == tensors_digest(state)
    others = [
        {"a": a},
        {"c.num": b, "a": a},
        state | {"a": a.reshape(3, 2)},
        state | {"a": a.view(torch.int32)},
        state | {"a": a.bfloat16()},
        state | {"a": torch.nextafter(a, a + 1)},
        state | {"a": -a * torch.tensor([1.0, -1, -1])},  # -0.0 in place of 0.0
    ]
    digests = {tensors_digest(other) for other in (state, *others)}
    assert len(digests) == len(others) + 1


# --- the network of a run


def test_run_of_random_weights_gives_what_it_trained_and_makes_the_rest_again(tmp_path: Path, began: State) -> None:
    trained = of_layer4(began)
    weights = RANDOM
    folder = write_run(tmp_path / "runs" / "ego", trained, {MODEL: entry(began, trained, weights)})
    backbone = built(folder)
    expected = {**began, **trained}
    found = state_of(backbone)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert backbone.weights == {"kind": "run", "source": "ego", "sha256": tensors_digest(expected), "base": "random"}


def test_rest_is_taken_from_where_the_run_began(
    tmp_path: Path, began: State, of_file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = of_layer4(began)
    expected = tensors_digest({**began, **trained})
    of_run = built(write_run(tmp_path / "runs" / "a", trained, {MODEL: entry(began, trained, of_file)}))
    assert (of_run.weights["base"], of_run.weights["sha256"]) == ("file", expected)

    published = WeightsFile(path=tmp_path / "weights" / "any name.safetensors", sha256="0" * 64)
    monkeypatch.setattr(networks, "pretrained_file", lambda name, sources: published)
    pretrained = {"kind": "pretrained", "sha256": "of any file with these tensors"}
    of_run = built(write_run(tmp_path / "runs" / "b", trained, {MODEL: entry(began, trained, pretrained)}))
    assert (of_run.weights["base"], of_run.weights["sha256"]) == ("pretrained", expected)

    everything = {**began, **trained}
    none = entry(everything, everything, {"kind": "none"})
    of_run = built(write_run(tmp_path / "runs" / "c", everything, {MODEL: none}))
    assert (of_run.weights["base"], of_run.weights["sha256"]) == ("none", expected)
    # Also where what it began with is gone, but nothing of it is wanted.
    gone = entry(everything, everything, {"kind": "file", "sha256": "1" * 64})
    assert built(write_run(tmp_path / "runs" / "d", everything, {MODEL: gone})).weights["sha256"] == expected


def test_run_that_began_with_another_run_finds_it_beside_itself(
    tmp_path: Path, began: State, of_file: dict[str, Any]
) -> None:
    first = of_layer4(began)
    write_run(tmp_path / "runs" / "first", first, {MODEL: entry(began, first, of_file)})
    write_run(tmp_path / "runs" / "other", first, None)
    between = {**began, **first}
    second = {name: tensor for name, tensor in of_layer4(between).items() if name.startswith("layer4.1.")}
    weights = {"kind": "run", "sha256": tensors_digest(between), "base": "random"}
    folder = write_run(tmp_path / "runs" / "second", second, {MODEL: entry(between, second, weights)})
    found = built(folder)
    assert found.weights["sha256"] == tensors_digest({**between, **second})
    assert found.weights["base"] == "random", "what the first run began with"

    # A third one behind it, and two that each say they began with the other.
    third = {"fc.bias": between["fc.bias"] + 1}
    weights_of_third = {"kind": "run", "sha256": found.weights["sha256"]}
    write_run(tmp_path / "runs" / "0", third, {MODEL: entry(began, third, {"kind": "run", "sha256": "of 1"})})
    write_run(tmp_path / "runs" / "1", third, {MODEL: entry(began, third, {"kind": "run", "sha256": "of 0"})})
    before = {**between, **second}
    last = write_run(tmp_path / "runs" / "a third", third, {MODEL: entry(before, third, weights_of_third)})
    assert built(last).weights["sha256"] == tensors_digest({**before, **third})
    shutil.move(tmp_path / "runs" / "first", tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match=rf"of another run of sha256 {weights['sha256']}, which does not lie beside"):
        built(folder)


def test_flow_net_of_a_run_is_read_without_its_classifier(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        state = flow_resnet34.create().state_dict()
    everything = {**state, "fc.weight": torch.zeros(61, 512), "fc.bias": torch.zeros(61)}
    entries = {"flow-resnet34": entry(everything, everything, {"kind": "none"})}
    found = built(write_run(tmp_path / "flow", everything, entries), "flow-resnet34")
    assert found.weights["sha256"] == tensors_digest(state)


def test_run_of_folds_wants_one_of_them(tmp_path: Path, began: State, of_file: dict[str, Any]) -> None:
    trained = of_layer4(began)
    for fold in (0, 1):
        entries = {MODEL: entry(began, trained, of_file)}
        write_run(tmp_path / "cv" / f"fold-{fold}", trained, entries, finished=False)
    with pytest.raises(WeightsError, match=r"cv/fold-0: a folder without results\.json"):
        built(tmp_path / "cv" / "fold-0")
    (tmp_path / "cv" / "results.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"cv: a run of 2 folds, each with weights .* name one, as in .*cv/fold-0"):
        built(tmp_path / "cv")
    assert built(tmp_path / "cv" / "fold-1").weights["source"] == "cv/fold-1"


# --- what is refused


def test_folder_that_is_no_finished_run_is_refused(tmp_path: Path, began: State) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty: a folder without best\.safetensors, so no finished training run"):
        built(tmp_path / "empty")
    folder = write_run(tmp_path / "cut", of_layer4(began), {}, finished=False)
    with pytest.raises(WeightsError, match=r"cut: a folder without results\.json, so no finished training run"):
        built(folder)
    with pytest.raises(WeightsError, match="the path of a weights file or of a training run"):
        built(tmp_path / "absent")


def test_run_that_trained_no_backbone_or_another_is_refused(tmp_path: Path, began: State) -> None:
    trained = of_layer4(began)
    for name, entries in (("none", None), ("empty", {})):
        folder = write_run(tmp_path / name, trained, entries)
        with pytest.raises(WeightsError, match=r"its head 'some-head' trained no backbone; only a head that .* layers"):
            built(folder)
    one = entry(began, trained, RANDOM)
    folder = write_run(tmp_path / "two", trained, {"resnet50": one, "flow-resnet34": one})
    with pytest.raises(WeightsError, match=r"the run trained flow-resnet34, resnet50, not resnet18; ask for"):
        built(folder)


def test_other_tensors_than_the_run_had_are_refused_with_both_digests(
    tmp_path: Path, began: State, of_file: dict[str, Any]
) -> None:
    trained = of_layer4(began)
    other = {**began, "bn1.bias": began["bn1.bias"] + 1}
    folder = write_run(tmp_path / "run", trained, {MODEL: entry(other, trained, of_file)})
    here, there = (tensors_digest(without(state, trained)) for state in (began, other))
    with pytest.raises(WeightsError, match=rf"of a weights file of sha256 .* others here .*{here} here, {there} there"):
        built(folder)
    folder = write_run(tmp_path / "seed", trained, {MODEL: entry(began, trained, RANDOM | {"seed": SEED + 1})})
    with pytest.raises(WeightsError, match=r"of random weights, seed 4, are others here than in the run"):
        built(folder)


def test_file_that_a_run_began_with_is_asked_for_by_its_checksum(tmp_path: Path, began: State) -> None:
    trained = of_layer4(began)
    weights = {"kind": "file", "sha256": "ab" * 32}
    folder = write_run(tmp_path / "run", trained, {MODEL: entry(began, trained, weights)})
    where = rf"a weights file of sha256 {'ab' * 32}, which is not in {tmp_path / 'weights'}; put it there.*"
    with pytest.raises(WeightsError, match=where + r"\$REELBANK_WEIGHTS_DIR"):
        built(folder)


@pytest.mark.parametrize(
    "weights",
    [
        {"kind": "imported", "of": {"kind": "file"}},
        {"kind": "random", "seed": -1, "sha256": "0"},
        {"kind": "random", "seed": 2**40, "sha256": "0"},
    ],
)
def test_weights_that_cannot_be_made_again_are_refused(tmp_path: Path, began: State, weights: dict[str, Any]) -> None:
    trained = of_layer4(began)
    folder = write_run(tmp_path / "run", trained, {MODEL: entry(began, trained, weights)})
    with pytest.raises(WeightsError, match="which cannot be made again"):
        built(folder)


def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, began: State, of_file: dict[str, Any]) -> None:
    trained = dict(of_layer4(began))
    none = entry({}, {}, {"kind": "none"})
    with pytest.raises(WeightsError, match=r"weights of another network .* missing: conv1\.weight"):
        built(write_run(tmp_path / "part", trained, {MODEL: none}))
    odd = {**trained, "layer4.1.bn2.bias": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"of another shape: layer4\.1\.bn2\.bias \(3,\) instead of \(512,\)"):
        built(write_run(tmp_path / "shape", odd, {MODEL: entry(began, odd, of_file)}))
    more = {**trained, "layer5.weight": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"1 unexpected: layer5\.weight"):
        built(write_run(tmp_path / "more", more, {MODEL: entry(began, more, of_file)}))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {MODEL: []},
        {MODEL: {"prefix": "head.net.", "sha256": ""}},
        {MODEL: {"prefix": 3, "weights": {"kind": "none"}, "sha256": ""}},
        {MODEL: {"prefix": "", "weights": {"kind": 1}, "sha256": ""}},
        {MODEL: {"prefix": "", "weights": {"kind": "random", "seed": 2**70}, "sha256": ""}},
    ],
)
def test_header_of_another_kind_is_refused_by_its_file(tmp_path: Path, began: State, entries: Any) -> None:
    folder = write_run(tmp_path / "run", of_layer4(began), entries)
    with pytest.raises(WeightsError, match=r"run/best\.safetensors is damaged: "):
        built(folder)


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text("{}")
    (folder / "best.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError, match=r"best\.safetensors is not a checkpoint of reelbank"):
        built(folder)
    save_file({"a": torch.zeros(1)}, folder / "best.safetensors")
    with pytest.raises(WeightsError, match=r"best\.safetensors is not a checkpoint of reelbank: it has no header"):
        built(folder)


# --- stores that are made of a run


def spec_of(**options: Any) -> FeatureSpec:
    """What `run` would ask a store to hold."""
    config = FeaturizeConfig(**options)
    with tempfile.TemporaryDirectory() as folder:
        return planning.make_job(config, SMALL, Path(folder)).spec


def test_store_of_a_run_says_so_and_can_be_gone_on_with(tmp_path: Path, synth_set: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 1))
    random = backbones.build(SMALL, weights="random", seed=SEED, device="cpu")
    began = state_of(random)
    trained = of_layer4(began)
    first = write_run(tmp_path / "runs" / "ego", trained, {SMALL: entry(began, trained, random.weights)})
    options: dict[str, Any] = {"model": (SMALL,), "sampling": ("uniform:1",), "workers": 1, "batch": 1}
    report = run(folder, weights=str(first), **options)
    path = report.stores[0].store
    store = reelbank.store.open(path)
    sha256 = built(first, SMALL).weights["sha256"]
    assert dict(store.spec.weights) == {"kind": "run", "sha256": sha256, "base": "random"}
    assert store.provenance["weights"]["asked"] == str(first)
    assert store.weights_are_random
    assert "RANDOM WEIGHTS: timm:test_resnet" in report.text()
    assert f"weights   run (began with random weights), sha256 {sha256}" in describe(path).text()
    # The run under another name holds the same network.
    moved = shutil.move(first, tmp_path / "runs" / "renamed")
    assert spec_of(weights=str(moved), **options) == store.spec
    more = of_layer4(began, step=0.004)
    other = write_run(tmp_path / "runs" / "longer", more, {SMALL: entry(began, more, random.weights)})
    longer = spec_of(weights=str(other), **options)
    assert list(differences(store.spec, longer)) == ["weights.sha256"]

    # A head that was trained on this store takes features of the same network, and of no other.
    trained_on = {"spec": store.spec.to_json(), "keys": {"pool": "pool"}}
    refuse_other_features(tmp_path, path, store.spec, trained_on)
    with pytest.raises(SpecMismatch, match=r"weights\.sha256"):
        refuse_other_features(tmp_path, path, longer, trained_on)


def test_failed_clips_and_new_videos_take_the_run_of_the_store(
    tmp_path: Path, synth_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    (video, broken) = sorted((folder / "videos").iterdir())[:2]
    lines = [f"a,{video}", f"b,{broken}"]
    (folder / "manifest.csv").write_text("\n".join(["clip_id,video", *lines]) + "\n")
    broken.write_bytes(b"")
    trained = state_of(backbones.build(SMALL, weights="random", seed=SEED, device="cpu"))
    entries = {SMALL: entry(trained, trained, {"kind": "none"})}
    used = write_run(tmp_path / "runs" / "ego", trained, entries)
    other = write_run(tmp_path / "runs" / "other", {}, None)
    path = run(folder, model=(SMALL,), weights=str(used), sampling=("uniform:1",), workers=1, batch=1).stores[0].store
    store = reelbank.store.open(path)
    assert not store.weights_are_random
    again = retry_config(path)
    assert again is not None
    assert again.weights == str(used)

    (found,) = extract_as([store.spec], [video], tmp_path / "new", like=[path])
    np.testing.assert_array_equal(reelbank.store.open(found).read("pool", 0), store.read("pool", 0))
    moved = Path(shutil.move(used, tmp_path / "moved"))
    with pytest.raises(StoreError, match=rf"made from the training run {used}, which is not there; give --weights RUN"):
        retry_config(path)
    given = retry_config(path, weights=str(moved))
    assert given is not None
    assert given.weights == str(moved)
    asked: list[str | None] = []
    monkeypatch.setattr(repeating, "featurize", lambda config, *_, **__: asked.append(config.weights) or nothing)
    nothing = SimpleNamespace(stores=())
    extract_as([store.spec], [video], tmp_path / "given", weights=[moved])
    assert asked == [str(moved)]
    sha256 = store.spec.weights["sha256"]
    with pytest.raises(WeightsError, match=rf"had weights of a training run: give the run .* sha256 {sha256} as --wei"):
        extract_as([store.spec], [video], tmp_path / "gone", like=[path])
    with pytest.raises(WeightsError, match=r"as --weights RUN \(.*other: its head 'some-head' trained no backbone"):
        extract_as([store.spec], [video], tmp_path / "wrong", weights=[other])
    with pytest.raises(WeightsError, match=r"other: its sha256 is not one that is asked for"):
        extract_as([store.spec], [video], tmp_path / "both", weights=[moved, other])
    assert len(asked) == 1
