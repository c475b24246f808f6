"""Ego-RNN and the networks around it: their sizes, what each stage reaches, taps in the place of frames, weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reelbank.extract import backbones
from reelbank.extract.backbones.resnet import rest
from reelbank.heads import predict, train_head
from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.models import HEADS, HeadShape, build_head, plan_of
from reelbank.heads.models.listing import describe_head, head_text
from reelbank.heads.models.plans import ArrayShape, Rest
from reelbank.heads.models.start import Base, Start, base_of
from reelbank.heads.runs.checkpoints import Predictor, write_tensors
from reelbank.heads.stored import read_tensors
from reelbank.heads.training.groups import trained_groups
from reelbank.heads.training.job import make_job
from reelbank.heads.training.optimization import advance, make_grouped_optimizer, make_schedule
from reelbank.heads.training.trainer import Trainer
from reelbank.store import Store
from reelbank.store.testing import write_store

COUNTS: Mapping[str, tuple[str, tuple[str, ...], int, dict[str, int]]] = {
    "Ego-RNN": ("ego-rnn", (), 40_705_381, {"1": 18_907_709, "2": 32_396_837}),
    "all of conv5": ("ego-rnn", ("all_of_conv5=true",), 40_705_381, {"2": 32_535_077}),
    "O-RNN": ("ego-rnn", ("attention=none",), 40_705_381, {"1": 18_907_709, "2": 31_883_837}),
    "motion 7, binary": ("ego-rnn", ("motion=conv5",), 41_236_979, {"1": 18_907_709, "2": 32_928_435}),
    "motion 7, regression": ("ego-rnn", ("motion=conv5", "motion_loss=regression"), 40_996_830, {"2": 32_688_286}),
    "motion 14, binary": ("ego-rnn", ("motion=conv4",), 48_414_673, {"2": 46_889_105}),
    "motion 14, regression": ("ego-rnn", ("motion=conv4", "motion_loss=regression"), 44_572_877, {"2": 43_047_309}),
    "motion 28, binary": ("ego-rnn", ("motion=conv3",), 163_651_049, {"2": 163_231_401}),
    "motion 28, regression": ("ego-rnn", ("motion=conv3", "motion_loss=regression"), 102_184_665, {"2": 101_765_017}),
    "discriminator": ("ego-rnn", ("motion=conv5", "discriminator=conv5"), 41_238_005, {"2": 32_929_461}),
    "representation flow": ("ego-rnn", ("repflow=true", "attention=none"), 40_717_928, {"2": 38_679_360}),
    "flow": ("flow-resnet34", (), 21_337_917, {"1": 21_337_917}),
    "two streams": ("ego-two-stream", (), 62_105_823, {"joint": 45_542_437}),
    "two streams, logits": ("ego-two-stream", ("fuse=logits",), 40_705_381 + 21_337_917 + 7_503, {}),
    "two streams, average": ("ego-two-stream", ("fuse=average",), 40_705_381 + 21_337_917, {}),
}
"""What: (head, options, all numbers, {stage: trained}), of 61 classes; SYSTEMS.md 6."""
HEADS_OF_MOTION = {
    ("conv5", "binary"): 531_598, ("conv5", "regression"): 291_449, ("conv4", "binary"): 7_709_292,
    ("conv4", "regression"): 3_867_496, ("conv3", "binary"): 122_945_668, ("conv3", "regression"): 61_479_284,
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTS)
def test_sizes_are_the_published_ones(what: str) -> None:
    name, options, total, trained = COUNTS[what]
    facts = describe_head(name, options, outputs=61)
    assert facts["parameters"]["total"] == total
    found = {stage["name"]: stage["trained"] for stage in facts["stages"]}
    assert {stage: found[stage] for stage in trained} == trained
    assert f"{total:,} for 61 classes" in head_text(facts)


@pytest.mark.parametrize(("level", "kind"), HEADS_OF_MOTION)
def test_sizes_of_parts_are_the_published_ones(level: str, kind: str) -> None:
    facts = describe_head("ego-rnn", (f"motion={level}", f"motion_loss={kind}"), outputs=61)
    assert facts["parameters"]["modules"]["motion"] == HEADS_OF_MOTION[level, kind]


def test_sizes_of_layers_are_the_published_ones() -> None:
    parts = describe_head("ego-rnn", ("motion=conv5", "discriminator=conv5"), outputs=61)["parameters"]["modules"]
    assert (parts["net"], parts["convlstm"], parts["classifiers"]) == (21_797_672, 18_876_416, 31_293)
    assert parts["discriminator"] == 1_026
    flow = ("repflow=true", "attention=none")
    assert describe_head("ego-rnn", flow)["parameters"]["modules"]["flow"] == 12_547
    assert describe_head("ego-rnn", (*flow, "repflow_learnt=false"))["parameters"]["modules"]["flow"] == 12_544
    assert describe_head("ego-rnn", (*flow, "repflow_compat=public"))["parameters"]["modules"]["flow"] == 26_883


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("motion=conv6",), "motion=conv6: head 'ego-rnn' has conv3, conv4, conv5, none there"),
        (("motion=conv5", "motion_target=gray"), "motion_target=gray needs motion_loss=regression"),
        (("repflow=true",), "repflow=true needs attention=none"),
        (("repflow=true", "attention=none", "motion=conv5"), "repflow=true has a step less"),
        (("nope=1",), "head 'ego-rnn' has no such option"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        describe_head("ego-rnn", options)


# --- which tensors a stage reaches


def shape_of(entry: str, num_steps: int = 3) -> HeadShape:
    sizes = {"rgb": (3, 224, 224), "layer1": (64, 56, 56), "layer2": (128, 28, 28), "layer3": (256, 14, 14)}
    backbone = "frames" if entry == "rgb" else "resnet34"
    arrays = {
        "frames": ArrayShape(backbone=backbone, tap=entry, shape=sizes[entry], dtype="float16", num_steps=num_steps),
        "flow": ArrayShape(
            backbone="flow-resnet34", tap="layer3", shape=(256, 14, 14), dtype="float16", num_steps=1
        ),
    }  # fmt: skip
    return HeadShape(taps={}, outputs={"label": 5}, num_steps=0, arrays=arrays)


def staged(name: str, options: Mapping[str, Any], stage: str, entry: str, *, device: str = "meta") -> Any:
    """The head with what `stage` trains asking for gradients, in training mode."""
    whole = {**HEADS.row(name).options, **options}
    plan = plan_of(name, whole)
    assert plan is not None
    with torch.device(device):
        head = build_head(name, shape_of(entry), whole)
    for tensor, parameter in head.named_parameters():
        parameter.requires_grad_(plan.stage(stage).group_of(tensor) is not None)
    return head.train()


LAYER4 = {f"net.layer4.{block}.conv{i}.weight" for block in range(3) for i in (1, 2)}
LAYER3 = {f"net.layer3.{block}.conv{i}.weight" for block in range(6) for i in (1, 2)}
LAYER2 = {f"net.layer2.{block}.conv{i}.weight" for block in range(4) for i in (1, 2)}
RECURRENT = {"convlstm", "classifiers"}


def reached(head: nn.Module) -> set[str]:
    """Tensors with a gradient; those of the ConvLSTM, classifiers and motion head by their module."""
    whole = ("convlstm", "classifiers", "motion", "discriminator", "flow")
    names = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    return {name.partition(".")[0] if name.startswith(whole) else name for name in names}


@pytest.mark.parametrize(
    ("options", "stage", "entry", "expected"),
    [
        ({}, "1", "layer3", RECURRENT),
        ({"attention": "none"}, "1", "layer3", RECURRENT),
        ({}, "2", "layer3", RECURRENT | LAYER4 | {"net.fc.weight"}),
        ({}, "2", "rgb", RECURRENT | LAYER4 | {"net.fc.weight"}),
        ({"attention": "none"}, "2", "layer3", RECURRENT | LAYER4),
        ({"motion": "conv5"}, "2", "layer3", RECURRENT | LAYER4 | {"net.fc.weight", "motion"}),
        ({"motion": "conv4"}, "2", "layer2", RECURRENT | LAYER4 | LAYER3 | {"net.fc.weight", "motion"}),
        ({"motion": "conv3"}, "2", "layer1", RECURRENT | LAYER4 | LAYER3 | LAYER2 | {"net.fc.weight", "motion"}),
    ],
)
def test_gradients_reach_the_named_modules(options: dict[str, Any], stage: str, entry: str, expected: set[str]) -> None:
    """And no other. The bias of fc takes part in no derivative, though the publication counts it as trained."""
    head = staged("ego-rnn", options, stage, entry)
    frames = torch.empty(2, 3, *shape_of(entry).arrays["frames"].shape, device="meta")
    outputs = head({"frames": frames}, {"frames": torch.ones(2, 3, dtype=torch.bool, device="meta")})
    torch.stack([value.sum() for value in outputs.values()]).sum().backward()
    assert reached(head) == expected


def test_all_of_conv5_reaches_batch_norms_and_the_1x1_convolution() -> None:
    head = staged("ego-rnn", {"all_of_conv5": True}, "2", "layer3")
    frames = torch.empty(2, 3, 256, 14, 14, device="meta")
    head({"frames": frames}, {"frames": torch.ones(2, 3, dtype=torch.bool, device="meta")})["label"].sum().backward()
    own = {name for name in reached(head) if name.startswith("net.layer4.")}
    assert own == {name for name, _ in head.named_parameters() if name.startswith("net.layer4.")}


def test_representation_flow_reaches_what_comes_after_it() -> None:
    head = staged("ego-rnn", {"repflow": True, "attention": "none"}, "2", "layer2", device="cpu")
    frames = torch.rand(1, 3, 128, 28, 28)
    head({"frames": frames}, {"frames": torch.ones(1, 3, dtype=torch.bool)})["label"].sum().backward()
    assert reached(head) == RECURRENT | LAYER4 | LAYER3 | {"flow"}
    missing = [name for name, p in head.named_parameters() if name.startswith("flow.") and p.grad is None]
    assert not missing


def test_joint_training_reaches_conv5_of_both_networks_and_the_fusion() -> None:
    head = staged("ego-two-stream", {}, "joint", "layer3")
    arrays = {
        "frames": torch.empty(2, 3, 256, 14, 14, device="meta"),
        "flow": torch.empty(2, 1, 256, 14, 14, device="meta"),
    }
    masks = {name: torch.ones(value.shape[:2], dtype=torch.bool, device="meta") for name, value in arrays.items()}
    head(arrays, masks)["label"].sum().backward()
    names = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    expected = {name for name, _ in head.named_parameters() if name.startswith(("classifiers.", "rgb.convlstm."))}
    expected |= {f"rgb.{name}" for name in LAYER4 | {"net.fc.weight"}}
    expected |= {name for name, _ in head.named_parameters() if name.startswith("flow.net.layer4.")}
    assert names == expected


# --- the discriminator


@pytest.fixture(scope="module")
def discriminating() -> Any:
    torch.manual_seed(0)
    return staged("ego-rnn", {"motion": "conv5", "discriminator": "conv5"}, "2", "layer3", device="cpu")


@pytest.mark.parametrize("static", ["conv5", "convlstm"])
def test_the_standing_sequence_trains_conv5_in_the_first_configuration_alone(discriminating: Any, static: str) -> None:
    head = discriminating
    head._static = static
    head.zero_grad()
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(2, 3, 256, 14, 14, generator=generator)
    outputs = head({"frames": frames}, {"frames": torch.ones(2, 3, dtype=torch.bool)})
    outputs["dynamic"][:, 1].log_softmax(dim=-1)[:, 0].sum().backward()  # of the standing pass
    conv5 = [parameter.grad for name, parameter in head.named_parameters() if name in LAYER4]
    if static == "conv5":
        assert all(gradient is not None and gradient.any() for gradient in conv5)
    else:
        assert all(gradient is None or not gradient.any() for gradient in conv5)
    assert head.discriminator.linear.weight.grad.any()
    assert all(parameter.grad.any() for parameter in head.convlstm.parameters())
    own = [parameter.grad for parameter in head.motion.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in own)


def test_the_moving_sequence_trains_conv5_in_every_configuration(discriminating: Any) -> None:
    head = discriminating
    head._static = "convlstm"
    head.zero_grad()
    outputs = head({"frames": torch.rand(1, 2, 256, 14, 14)}, {"frames": torch.ones(1, 2, dtype=torch.bool)})
    outputs["dynamic"][:, 0].log_softmax(dim=-1)[:, 1].sum().backward()
    assert all(parameter.grad.any() for name, parameter in head.named_parameters() if name in LAYER4)


# --- taps in the place of frames


@pytest.fixture(scope="module")
def resnet34() -> Any:
    return backbones.build("resnet34", weights="random", device="cpu")


BUILT: dict[tuple[str, ...], Any] = {}


def ego_rnn(entry: str, resnet34: Any, **options: Any) -> Any:
    """The head on random weights, the same ones whatever it reads; made once."""
    key = (entry, *map(str, options.items()))
    if key not in BUILT:
        BUILT[key] = _ego_rnn(entry, resnet34, **options)
    return BUILT[key]


def _ego_rnn(entry: str, resnet34: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    head = build_head("ego-rnn", shape_of(entry), {**HEADS.row("ego-rnn").options, **options})
    state = {name: value for name, value in resnet34.module.state_dict().items() if name in head.net.state_dict()}
    head.net.load_state_dict(state)
    torch.manual_seed(1)
    for parameter in (*head.convlstm.parameters(), *head.classifiers.parameters()):
        nn.init.normal_(parameter, std=0.02)
    return head.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
def test_a_stored_tap_and_the_rest_of_the_network_are_the_whole_network(
    resnet34: Any, dtype: torch.dtype, tolerance: float
) -> None:
    """1e-5 and 2e-3 of the largest logit (SYSTEMS.md 0.2)."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = resnet34.normalise(frames)
        taps = rest(
            resnet34.module, "stem", _stem(resnet34.module, pixels), ("layer1", "layer2", "layer3", "ego-attended")
        )
        mask = {"frames": torch.ones(1, 2, dtype=torch.bool)}
        whole = ego_rnn("rgb", resnet34)({"frames": pixels.unsqueeze(0)}, mask)["label"]
        for tap in ("layer1", "layer2", "layer3"):
            stored = taps[tap].to(dtype).float().unsqueeze(0)
            found = ego_rnn(tap, resnet34)({"frames": stored}, mask)["label"]
            assert (found - whole).abs().max() <= tolerance * whole.abs().max(), tap
        assert whole.std() > 0.01


def test_attended_maps_that_were_stored_are_those_of_the_head(resnet34: Any) -> None:
    with torch.no_grad():
        maps = torch.rand(2, 256, 14, 14)
        stored = rest(resnet34.module, "layer3", maps, ("ego-attended", "ego-attended-postbn", "layer4"))
        mask = torch.ones(1, 2, dtype=torch.bool)
        for options, tap in (
            ({}, "ego-attended"), ({"attended": "postbn"}, "ego-attended-postbn"), ({"attention": "none"}, "layer4")
        ):  # fmt: skip
            found = ego_rnn("layer3", resnet34, **options).maps(maps.unsqueeze(0), mask)["attended"]
            assert (found - stored[tap]).abs().max() <= 1e-5 * stored[tap].abs().max(), tap


def _stem(module: Any, pixels: Tensor) -> Tensor:
    stem: Tensor = module.maxpool(module.relu(module.bn1(module.conv1(pixels))))
    return stem


def test_larger_taps_come_after_frames() -> None:
    """A tap at layer2 or before is larger than the frame that it was made of."""
    for options, first in (({}, "resnet34"), ({"motion": "conv4"}, "frames*"), ({"motion": "conv3"}, "frames*")):
        plan = plan_of("ego-rnn", {**HEADS.row("ego-rnn").options, **options})
        assert plan is not None and plan.inputs[0].taps[0][0] == first


# --- weights of the backbone


CLIPS = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train" if i < 4 else "val"} for i in range(6)]


@pytest.fixture(scope="module")
def stored(resnet34: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Maps of six clips, as if they were made with these random weights."""
    rng = np.random.default_rng(0)
    maps = [rng.random((2, 256, 14, 14)).astype(np.float16) for _ in CLIPS]
    path = tmp_path_factory.mktemp("stores") / "resnet34.zarr"
    return write_store(path, {"layer3": maps}, CLIPS, backbone="resnet34", weights=resnet34.weights)


def asked(store: Store, **values: Any) -> TrainConfig:
    given = {"head": "ego-rnn", "target": "none", "report": False, "epochs": 1, "batch": 4}
    return TrainConfig.of(**{**given, "store": (store.path,), **values})


@pytest.fixture(scope="module")
def first_stage(stored: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_head(asked(stored, run=tmp_path_factory.mktemp("runs") / "first")).directory


def test_a_checkpoint_holds_what_was_trained_and_knows_the_rest_by_its_hash(
    stored: Store, first_stage: Path, resnet34: Any, tmp_path: Path
) -> None:
    tensors, header = read_tensors(first_stage / "best.safetensors")
    assert {name.split(".")[1] for name in tensors} == {"convlstm", "classifiers"}
    entry = header["backbones"]["resnet34"]
    assert entry["weights"] == resnet34.weights and entry["sha256"] == resnet34.weights["sha256"]
    head: Any = Predictor.load(first_stage / "best.safetensors").head
    for name, value in head.net.state_dict().items():
        assert torch.equal(value, resnet34.module.state_dict()[name]), name
    found = predict(first_stage, stored.path)
    rows = (first_stage / "predictions.csv").read_text().splitlines()[1:]
    predicted = dict(zip(found.clip_ids.tolist(), found.predicted.tolist(), strict=True))  # type: ignore[union-attr]
    assert [predicted[row.split(",")[0]] for row in rows] == [row.split(",")[5] for row in rows]
    changed = {**header, "backbones": {"resnet34": {**entry, "sha256": "0" * 64}}}
    write_tensors(tmp_path / "changed.safetensors", tensors, changed)
    with pytest.raises(
        TrainingError, match=rf"frozen part of its resnet34 has sha256 {'0' * 64}, and .* {entry['sha256']}"
    ):
        Predictor.load(tmp_path / "changed.safetensors")


def test_the_second_stage_trains_conv5_and_leaves_batch_norms_to_the_bit(
    stored: Store, first_stage: Path, resnet34: Any
) -> None:
    config = asked(stored, stage="2", init_from=(first_stage,), lr=1e-3)
    prepared = prepare(config)
    trainer = Trainer(make_job(prepared, prepared.partitions[0]))
    before = {name: value.clone() for name, value in trainer.head.state_dict().items()}
    trainer.run_epoch()
    changed = {name for name, value in trainer.head.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name.startswith("net.")} == LAYER4 | {"net.fc.weight"}
    assert prepared.start is not None
    kept, said = prepared.start.header(trainer.head)
    assert {name for name in kept if name.startswith("net.")} == LAYER4 | {"net.fc.weight"}
    assert "net.fc.bias".removeprefix("net.") in said["resnet34"]["left_out"]


def test_features_of_other_weights_are_refused_with_both_hashes(
    stored: Store, first_stage: Path, tmp_path: Path
) -> None:
    other = backbones.build("resnet34", weights="random", seed=5, device="cpu")
    maps = [np.zeros((2, 256, 14, 14), np.float16) for _ in CLIPS]
    theirs = write_store(tmp_path / "o.zarr", {"layer3": maps}, CLIPS, backbone="resnet34", weights=other.weights)
    ours = stored.spec.weights["sha256"]
    with pytest.raises(
        TrainingError, match=rf"frozen part .* sha256 {ours}, and the features .* {other.weights['sha256']}"
    ):
        prepare(asked(theirs, stage="2", init_from=(first_stage,)))
    unknown = {"kind": "file", "source": "mine.pth", "sha256": "1" * 64}
    lost = write_store(tmp_path / "f.zarr", {"layer3": maps}, CLIPS, backbone="resnet34", weights=unknown)
    with pytest.raises(
        TrainingError, match=rf"weights of a file, sha256 {'1' * 64}, .*: name the file with --head-option weights=FILE"
    ):
        prepare(asked(lost))


def test_weights_of_a_file_are_found_where_they_are_named(resnet34: Any, tmp_path: Path) -> None:
    torch.save(resnet34.module.state_dict(), tmp_path / "mine.pth")
    built = backbones.build("resnet34", weights=tmp_path / "mine.pth", device="cpu")
    base = base_of("resnet34", built.weights, (str(tmp_path / "mine.pth"),))
    assert torch.equal(base.state["conv1.weight"], resnet34.module.conv1.weight)
    assert base.digest(["fc.bias"]) != base.digest(["fc.weight"])
    (tmp_path / "other.pth").write_bytes(b"no weights: known by its sum, never loaded")
    with pytest.raises(TrainingError, match=r"given were .*other\.pth: "):
        base_of("resnet34", {**built.weights, "sha256": "1" * 64}, (str(tmp_path / "other.pth"),))


def test_the_file_that_a_store_was_made_with_is_found_again(
    resnet34: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the run that was trained from it, whose options do not name it; another file in its place is refused."""
    file = tmp_path / "mine.pth"
    torch.save(resnet34.module.state_dict(), file)
    weights = backbones.build("resnet34", weights=file, device="cpu").weights
    maps = [np.zeros((2, 256, 14, 14), np.float16) for _ in CLIPS]
    store = write_store(tmp_path / "s.zarr", {"layer3": maps}, CLIPS, backbone="resnet34", weights=weights)
    with pytest.raises(TrainingError, match="which is not where it was: name the file"):
        prepare(asked(store))
    monkeypatch.setattr(Store, "weights_asked", file)
    run = train_head(asked(store, epochs=1, run=tmp_path / "run", report=False)).directory
    assert read_tensors(run / "best.safetensors")[1]["from"] == [str(file)]
    monkeypatch.setattr(Store, "weights_asked", None)
    assert len(predict(run, store.path).clip_ids) == len(CLIPS)
    torch.save({**resnet34.module.state_dict(), "fc.bias": torch.ones(1000)}, file)
    with pytest.raises(TrainingError, match=f"given were .*mine.pth: (?!{weights['sha256']})"):
        predict(run, store.path)


def test_random_weights_are_said_also_where_the_store_holds_frames(tmp_path: Path) -> None:
    frames = [np.zeros((2, 224, 224, 3), np.uint8) for _ in CLIPS]
    store = write_store(tmp_path / "f.zarr", {"rgb": frames}, CLIPS, backbone="frames")
    prepared = prepare(asked(store, head_option=("weights=random",)))
    assert "RANDOM WEIGHTS: resnet34" in prepared.warning and prepared.weights_are_random
    assert isinstance(prepared.start, Start) and prepared.start.random_backbones == ("resnet34",)


def test_a_backbone_is_given_whole_or_not_at_all() -> None:
    head = build_head("ego-rnn", shape_of("layer3"), HEADS.row("ego-rnn").options)
    rests = (Rest(backbone="resnet34", module="net", input="frames"),)
    start = Start(rests=rests, bases={"net": Base(state={}, weights={"kind": "none"})})
    with pytest.raises(TrainingError, match=r"the head's resnet34 has a tensor '.*' .* that its weights do not have"):
        start.apply(head)
    start.apply(head, whole=False)


def test_joint_training_has_two_rates_that_fall_by_a_hundredth() -> None:
    """1e-2 for the networks of frames and 1e-4 for conv5 of flow; 8.188e-4 in epoch 250 (SYSTEMS.md 2.5, section 7)."""
    config = TrainConfig.of(store=(Path("s.zarr"),), head="ego-two-stream", init_from=("none",))
    with torch.device("meta"):
        head = build_head("ego-two-stream", shape_of("rgb"), config.head.options)
    groups = trained_groups(head, config.head.trained_stage, config.optimizer)
    assert [(one.name, one.lr) for one in groups] == [("rgb", 1e-2), ("flow", 1e-4), ("bias", 1e-2)]
    held = {one.name: set(one.flat.spans) for one in groups}
    assert {name.rpartition(".layer4.")[0] for name in held["flow"]} == {"flow.net"} and len(held["flow"]) == 21
    for group in groups:  # the rates are asked, not 62 million numbers
        group.flat.values, group.flat.gradient = nn.Parameter(torch.zeros(1)), torch.zeros(1)
    optimizer = make_grouped_optimizer(groups, config.optimizer)
    schedule = make_schedule(optimizer, config.optimizer)
    for _ in range(249):
        optimizer.step()
        advance(schedule, 0.0)
    assert [group["lr"] for group in optimizer.param_groups[:2]] == pytest.approx([8.188e-4, 8.188e-6], rel=1e-4)
