"""Frame net, flow net and their fusion: published layers, parity with the plain networks, stages, runs from runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layer_counts import TABLES, assert_rows
from torch import Tensor, nn

from reelbank.extract import backbones
from reelbank.extract.backbones.network import Network
from reelbank.extract.weights import torchvision_shim
from reelbank.heads import predict, train_head
from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import open_inputs
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.models import HEADS, HeadShape, build_head, late_fusion, plan_of
from reelbank.heads.models import flow_net as flow_net_module
from reelbank.heads.models.layer_listing import describe_layers, layers_text
from reelbank.heads.models.listing import describe_head, head_text
from reelbank.heads.models.plans import ArrayShape
from reelbank.heads.runs.checkpoints import Predictor, write_tensors
from reelbank.heads.stored import read_tensors
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import Trainer
from reelbank.store import Store
from reelbank.store.testing import write_store

Arrays = dict[str, Tensor]
SIZES: Mapping[str, tuple[int, ...]] = {
    "rgb": (3, 224, 224), "inception5b": (1024, 7, 7), "flow": (16, 224, 224), "pool2": (64, 56, 56),
}  # fmt: skip
NEW = {"frame.reduce", "flow.conv3", "fuse", "fc1", "classifiers.label"}
"""Layers of the fusion that neither stream has."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def shape_of(frames: str = "rgb", flow: str = "flow", *, outputs: int = 5, positions: int = 1) -> HeadShape:
    of = {"rgb": "frames", "inception5b": "googlenet", "flow": "flow", "pool2": "flow-net"}
    arrays = {
        name: ArrayShape(backbone=of[tap], tap=tap, shape=SIZES[tap], dtype="float16", num_steps=steps)
        for name, tap, steps in (("frames", frames, positions), ("flow", flow, 1))
    }
    return HeadShape(taps={}, outputs={"label": outputs}, num_steps=0, arrays=arrays)


def built(name: str, *, device: str = "cpu", shape: HeadShape | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    with torch.device(device):
        return build_head(name, shape or shape_of(), {**HEADS.row(name).options, **options})


def clips_of(shape: HeadShape, clips: int = 2, device: str = "cpu") -> tuple[Arrays, Arrays]:
    generator = torch.Generator().manual_seed(1)
    arrays = {
        name: torch.randn(clips, one.num_steps, *one.shape, generator=generator).to(device)
        for name, one in shape.arrays.items()
    }
    return arrays, {
        name: torch.ones(value.shape[:2], dtype=torch.bool, device=device) for name, value in arrays.items()
    }


# --- sizes


@pytest.mark.parametrize(
    ("name", "options", "outputs", "total", "trained"),
    [
        ("frame-net", (), 12, 5_612_204, {"1": 5_612_204}),
        ("frame-net", (), 1000, 6_624_904, {"1": 6_624_904}),
        ("flow-net", (), 12, 51_406_700, {"1": 51_406_700}),
        ("two-stream", (), 12, 6_001_228, {"1": 6_001_228, "frozen": 131_200 + 32_896 + 214_092}),
        ("two-stream", ("reduce_kernel=3",), 12, 7_049_804, {"1": 7_049_804}),
        ("two-stream", ("frozen_trunks=true",), 12, 378_188, {"frozen": 378_188}),
    ],
)
def test_sizes_are_the_published_ones(
    name: str, options: tuple[str, ...], outputs: int, total: int, trained: Mapping[str, int]
) -> None:
    """SYSTEMS.md 6."""
    facts = describe_head(name, options, outputs=outputs)
    assert facts["parameters"]["total"] == total
    found = {stage["name"]: stage["trained"] for stage in facts["stages"]}
    assert {stage: found[stage] for stage in trained} == trained
    assert f"{total:,} for {outputs} classes" in head_text(facts)


@pytest.mark.parametrize(
    ("table", "name", "module", "ours", "options"),
    [
        ("framenet_12", "frame-net", "", {"trunk": "net", "fc": "classifiers.label"}, {}),
        (
            "opticalflownet_12",
            "flow-net",
            "",
            {"conv1": "net.conv1", "conv2": "net.conv2", "fc1": "fc1", "fc2": "classifiers.label"},
            {},
        ),
        ("two_stream_flow_branch", "two-stream", "flow", {"conv1": "net.conv1", "conv2": "net.conv2"}, {}),
        ("two_stream_frame_branch_1x1", "two-stream", "frame", {"trunk": "net"}, {}),
        ("two_stream_frame_branch_3x3", "two-stream", "frame", {"trunk": "net"}, {"reduce_kernel": 3}),
        (
            "two_stream_mid_fusion",
            "two-stream",
            "",
            {"frame_branch": "frame", "flow_branch": "flow", "fc2": "classifiers.label"},
            {},
        ),
    ],
)
def test_layers_are_the_published_ones(
    table: str, name: str, module: str, ours: Mapping[str, str], options: dict[str, Any]
) -> None:
    head = built(name, device="meta", shape=shape_of(outputs=12), **options)
    assert_rows(table, head.get_submodule(module), ours)


def test_head_of_the_fusion_has_the_published_size() -> None:
    modules = describe_head("two-stream", outputs=12)["parameters"]["modules"]
    rows = TABLES["two_stream_head_only"]["layers"]
    assert {"fuse": modules["fuse"], "fc1": modules["fc1"], "fc2": modules["classifiers"]} == rows
    assert sum(rows.values()) == TABLES["two_stream_head_only"]["total"] == 214_092


# --- the listing


def test_listing_of_googlenet_is_the_published_one_row_by_row() -> None:
    """All 130 rows' places, 57 convolutions, and the memory figures of the publication."""
    facts = describe_layers("frame-net", outputs=1000)
    counted = {row["layer"]: row["parameters"] for row in facts["layers"] if row["parameters"]}
    assert counted == TABLES["googlenet_imagenet_1000"]["layers"]
    assert len(facts["layers"]) == 130
    kernels = [row["layer"].startswith("Conv2d") for row in facts["layers"]]
    assert sum(kernels) == 57
    assert facts["layers"][0]["output_shape"] == [1, 64, 112, 112]
    assert [facts[name] for name in ("input_mb", "forward_backward_mb", "parameters_mb", "total_mb")] == [
        0.574219, 60.065002, 25.272003, 85.911224
    ]  # fmt: skip


def test_listing_of_the_flow_net_is_the_published_one() -> None:
    facts = describe_layers("flow-net", outputs=12)
    assert [row["layer"] for row in facts["layers"]] == [
        "Conv2d-1", "MaxPool2d-2", "Conv2d-3", "MaxPool2d-4", "Flatten-5", "Linear-6", "Linear-7", "Dropout-8",
        "Softmax-9",
    ]  # fmt: skip
    assert [facts[name] for name in ("input_mb", "forward_backward_mb", "parameters_mb", "total_mb")] == [
        3.0625, 24.502228, 196.100998, 223.665726
    ]  # fmt: skip
    text = layers_text(facts)
    assert "Conv2d-3     1 x 64 x 112 x 112      18,496  net.conv2" in text
    assert "forward/backward pass  24.502228 MB" in text


def test_listing_of_the_fusion_has_the_published_branches() -> None:
    parts = describe_layers("two-stream", ("reduce_kernel=3",), outputs=12)["parts"]
    assert parts == {
        "frame": {"parameters": 6_779_680, "forward_backward_mb": 60.0896, "parameters_mb": 25.862427},
        "flow": {"parameters": 56_032, "forward_backward_mb": 23.782227, "parameters_mb": 0.213745},
    }
    assert parts["frame"]["forward_backward_mb"] == TABLES["two_stream_frame_branch_3x3"]["fwd_bwd_mb"]
    text = layers_text(describe_layers("two-stream", outputs=12))
    assert "  frame: 5,731,104 numbers, " in text and "forward/backward 23.782227 MB" in text


@pytest.mark.parametrize("name", sorted(name for name, row in HEADS.items() if not row.is_fitted))
def test_every_head_has_a_listing(name: str) -> None:
    facts = describe_layers(name)
    assert facts["parameters"] == describe_head(name)["parameters"]["total"]
    listed = sum(row["parameters"] for row in facts["layers"])
    assert listed + facts["unlisted_parameters"] == facts["parameters"]
    assert facts["unlisted_parameters"] == 0 or name.startswith("ego-"), "ConvLSTM reads its weights"
    assert len(layers_text(facts).splitlines()) > len(facts["layers"])


def test_fitted_heads_have_no_layers() -> None:
    with pytest.raises(TrainingError, match="fitted in one go and has no layers"):
        describe_layers("trees")


# --- parity with the plain networks


@pytest.fixture(scope="module")
def googlenet() -> Network:
    found = backbones.build("googlenet", weights="random", device="cpu")
    assert isinstance(found, Network)
    return found


def with_googlenet(head: Any, googlenet: Network, where: str) -> Any:
    head.get_submodule(where).load_state_dict(googlenet.module.state_dict())
    return head.eval()


def torchvision_googlenet(head: Any, outputs: int) -> Any:
    """torchvision's network with the weights of a frame net."""
    torchvision_shim.ensure()
    import torchvision

    plain = torchvision.models.GoogLeNet(outputs, aux_logits=False, transform_input=True, init_weights=False)
    state = {name.removeprefix("net."): value for name, value in head.state_dict().items() if name.startswith("net.")}
    last = {f"fc.{name}": value for name, value in head.classifiers["label"].state_dict().items()}
    plain.load_state_dict({**state, **last})
    return plain


def plain_flow(channels: int = 16) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )


def filled(plain: nn.Module, state: Mapping[str, Tensor], names: tuple[str, ...]) -> nn.Module:
    """`plain` with the tensors of `state` that are called so, in order."""
    mine = [state[f"{name}.{kind}"] for name in names for kind in ("weight", "bias")]
    plain.load_state_dict(dict(zip(plain.state_dict(), mine, strict=True)), assign=True)
    return plain


@pytest.mark.parametrize("training", [False, True])
def test_frame_net_is_torchvisions_googlenet(googlenet: Network, training: bool) -> None:
    """Also in training: batch norm by the batch, and the same dropout."""
    head = with_googlenet(built("frame-net"), googlenet, "net").train(training)
    plain = torchvision_googlenet(head, 5).train(training)
    arrays, masks = clips_of(shape_of())
    with torch.no_grad():
        torch.manual_seed(3)
        found = head(arrays, masks)["label"]
        torch.manual_seed(3)
        expected = plain(arrays["frames"][:, 0])
    assert found.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_frames_of_several_positions_have_the_mean_of_their_logits(googlenet: Network) -> None:
    """In evaluation, whatever stands in the padding."""
    head = with_googlenet(built("frame-net"), googlenet, "net")
    arrays, masks = clips_of(shape_of(positions=3))
    masks["frames"][1, 2] = False
    with torch.no_grad():
        found = head(arrays, masks)["label"]
        alone = head({"frames": arrays["frames"].reshape(6, 1, 3, 224, 224)}, {"frames": torch.ones(6, 1) > 0})["label"]
    torch.testing.assert_close(found[0], alone[:3].mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], alone[3:5].mean(dim=0), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def flow_net() -> Any:
    """51 million numbers, drawn once."""
    return built("flow-net")


@pytest.mark.parametrize("training", [False, True])
def test_flow_net_is_the_plain_network(flow_net: Any, training: bool) -> None:
    """Its dropout acts on the logits."""
    head = flow_net.train(training)
    with torch.device("meta"):
        last = nn.Sequential(nn.Flatten(), nn.Linear(200_704, 256), nn.ReLU(), nn.Linear(256, 5), nn.Dropout(0.1))
    names = ("net.conv1", "net.conv2", "fc1", "classifiers.label")
    plain = filled(nn.Sequential(*plain_flow(), *last), head.state_dict(), names).train(training)
    arrays, masks = clips_of(shape_of(), clips=6)
    with torch.no_grad():
        torch.manual_seed(2)
        found = head(arrays, masks)["label"]
        torch.manual_seed(2)
        expected = plain(arrays["flow"][:, 0])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert bool((found == 0).any()) == training
    head.eval()
    torch.testing.assert_close(head.probabilities(arrays, masks)["label"], head(arrays, masks)["label"].softmax(dim=1))


def test_displacements_are_cut_where_it_is_asked_for(flow_net: Any) -> None:
    trunk = flow_net.net
    cutting = built("two-stream", clip=1.5).flow.net
    cutting.load_state_dict({**trunk.state_dict(), "clip_px": cutting.clip_px})
    fields = clips_of(shape_of())[0]["flow"][:, 0] * 9
    cut = fields.clamp(-1.5, 1.5)
    with torch.no_grad():
        torch.testing.assert_close(cutting(fields), trunk(cut))
        assert not torch.equal(trunk(fields), trunk(cut))
    assert "clip_px" in trunk.state_dict(), "who reads the weights cuts alike"


@pytest.mark.parametrize("kernel", [1, 3])
def test_fusion_is_the_plain_network(googlenet: Network, kernel: int) -> None:
    head = with_googlenet(built("two-stream", reduce_kernel=kernel), googlenet, "frame.net")
    state = head.state_dict()
    reduce = filled(nn.Conv2d(1024, 128, kernel, padding=kernel // 2), state, ("frame.reduce",))
    flow = nn.Sequential(*plain_flow(), nn.Conv2d(64, 128, 2, stride=2), nn.ReLU(), nn.MaxPool2d(2, stride=4))
    flow = filled(flow, state, ("flow.net.conv1", "flow.net.conv2", "flow.conv3"))  # type: ignore[assignment]
    last = filled(
        nn.Sequential(
            *(nn.Conv2d(256, 256, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(2304, 64), nn.ReLU(), nn.Linear(64, 5)),
        ),
        state,
        ("fuse", "fc1", "classifiers.label"),
    )
    arrays, masks = clips_of(shape_of())
    with torch.no_grad():
        maps = googlenet.architecture.run(googlenet.module, arrays["frames"][:, 0], frozenset())["inception5b"]
        expected = last(torch.cat([reduce(maps), flow(arrays["flow"][:, 0])], dim=1))
        found = head(arrays, masks)["label"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_fusion_reads_stored_maps_as_what_they_are_made_of(googlenet: Network) -> None:
    """Also of several frames, whose maps are averaged."""
    whole = with_googlenet(built("two-stream", shape=shape_of(positions=3)), googlenet, "frame.net")
    stored = built("two-stream", shape=shape_of("inception5b", "pool2", positions=3), frozen_trunks=True).eval()
    stored.load_state_dict({name: value for name, value in whole.state_dict().items() if name in stored.state_dict()})
    arrays, masks = clips_of(shape_of(positions=3))
    masks["frames"][1, 1] = False
    with torch.no_grad():
        run = googlenet.architecture.run
        maps = run(googlenet.module, arrays["frames"].flatten(0, 1), frozenset())["inception5b"]
        of_flow = whole.flow.net(arrays["flow"][:, 0]).unsqueeze(1)
        found = stored({"frames": maps.unflatten(0, (2, 3)), "flow": of_flow}, masks)["label"]
        expected = whole(arrays, masks)["label"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# --- what a stage reaches, where Grad-CAM is taken


@pytest.mark.parametrize(
    ("name", "options", "stage", "expected"),
    [
        ("frame-net", {}, "1", None),
        ("flow-net", {}, "1", None),
        ("two-stream", {}, "1", None),
        ("two-stream", {}, "frozen", NEW),
        ("two-stream", {"frozen_trunks": True}, "frozen", NEW),
    ],
)
def test_gradients_reach_what_a_stage_trains(
    name: str, options: dict[str, Any], stage: str, expected: set[str] | None
) -> None:
    """And nothing else; None: all of it."""
    shape = shape_of(*(("inception5b", "pool2") if options else ()))
    head = built(name, device="meta", shape=shape, **options).train()
    plan = plan_of(name, {**HEADS.row(name).options, **options})
    assert plan is not None
    for tensor, parameter in head.named_parameters():
        parameter.requires_grad_(plan.stage(stage).group_of(tensor) is not None)
    for module in plan.stage(stage).evaluated:
        head.get_submodule(module).eval()
    if expected is None and name != "flow-net":  # which frames are valid has no answer without numbers
        head.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_(std=0.1)
    where = next(head.parameters()).device
    arrays, masks = clips_of(shape, device=str(where))
    head(arrays, masks)["label"].sum().backward()
    found = {tensor.rpartition(".")[0] for tensor, parameter in head.named_parameters() if parameter.grad is not None}
    everything = {tensor.rpartition(".")[0] for tensor, _ in head.named_parameters()}
    assert found == (everything if expected is None else expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("frame-net", {"frames": (2, 1024, 7, 7)}),
        ("flow-net", {"flow": (2, 64, 112, 112)}),
        ("two-stream", {"frames": (2, 256, 7, 7), "flow": (2, 256, 7, 7)}),
    ],
)
def test_maps_of_cam_have_the_published_shapes(name: str, expected: Mapping[str, tuple[int, ...]]) -> None:
    head, plan = built(name, device="meta").eval(), plan_of(name, HEADS.row(name).options)
    assert plan is not None and set(plan.cam) == set(expected)
    for one, shape in expected.items():
        seen: list[Tensor] = []
        hook = head.get_submodule(plan.cam[one]).register_forward_hook(lambda *given, to=seen: to.append(given[2]))
        head(*clips_of(shape_of(), device="meta"))
        hook.remove()
        assert [tuple(value.shape) for value in seen] == [shape]


def test_maps_of_cam_stay_as_they_were_given() -> None:
    """What follows works on a copy: a hook sees the convolution of the fusion before its ReLU."""
    head = built("two-stream", shape=shape_of("inception5b", "pool2"), frozen_trunks=True).eval()
    seen: list[Tensor] = []
    head.fuse.register_forward_hook(lambda *given: seen.append(given[2]))
    head(*clips_of(shape_of("inception5b", "pool2")))
    assert (seen[0] < 0).any()


# --- options and inputs


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("frame-net", "position=start", "position=start is not one of all, first, front, last, middle, rear"),
        ("flow-net", "clip=-1.0", "clip=-1.0: expected px"),
        ("two-stream", "clip=nan", "clip=nan: expected px"),
        ("two-stream", "reduce_kernel=2", "reduce_kernel=2: expected 1 or 3"),
    ],
)
def test_options_without_a_meaning_are_refused(name: str, option: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        describe_head(name, (option,))


@pytest.mark.parametrize("name", ["frame-net", "flow-net", "two-stream", "late-fusion"])
def test_pictures_of_another_size_are_refused(name: str, tmp_path: Path) -> None:
    clips = [{"clip_id": "a", "label": "b", "split": "train"}]
    frames = write_store(tmp_path / "f", {"rgb": [np.zeros((1, 112, 112, 3), np.uint8)]}, clips, backbone="frames:112")
    flow = write_store(tmp_path / "o", {"flow": [np.zeros((8, 2, 56, 56), np.float16)]}, clips, backbone="flow")
    plan = plan_of(name, HEADS.row(name).options)
    assert plan is not None
    stores = {"frames": (frames, "rgb of 112 x 112 x 3"), "flow": (flow, "flow of 2 x 56 x 56")}
    asked = [stores[one.name] for one in plan.inputs]
    with pytest.raises(TrainingError, match=rf"224 x 224, and .* holds {asked[0][1]}; featurize with --model f"):
        open_inputs([store for store, _ in asked], plan, ())


def test_inputs_say_which_frames_and_fields_are_read() -> None:
    """SYSTEMS.md 5.3, 5.7."""
    shares = {"first": 0.0, "front": 0.25, "middle": 0.5, "rear": 0.75, "last": 1.0}
    for name, share in shares.items():
        plan = plan_of("frame-net", {"position": name})
        assert plan is not None and plan.inputs[0].positions == (share,)
    plan = plan_of("two-stream", {"position": "all"})
    assert plan is not None
    frames, flow = plan.inputs
    assert frames.positions == tuple(shares.values()) and frames.values == "pixels"
    assert (flow.values, flow.stack_steps, flow.stack_at, flow.fill_zeros) == ("field", 8, "first", True)
    assert flow.taps.index(("flow:*", "flow")) < flow.taps.index(("flow", "flow-8bit"))
    assert HEADS.row("frame-net").options["position"] == "middle"


# --- runs that start runs

CUT = "clip=1.0"
CLIPS = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train" if i < 4 else "val"} for i in range(6)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Frames, and images of flow, of six clips: its networks cut them at 1 px, so that no loss is large."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("stores")
    coarse = [rng.integers(0, 256, (8, 14, 14, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2) for _ in CLIPS]
    fields = [clip[..., :2].transpose(0, 3, 1, 2).copy() for clip in coarse]
    return {
        "frames": write_store(root / "frames.zarr", {"rgb": [clip[:1] for clip in coarse]}, CLIPS, backbone="frames"),
        "flow": write_store(root / "flow.zarr", {"flow-8bit": fields}, CLIPS, backbone="flow"),
    }


def asked(stores: dict[str, Store], head: str, *inputs: str, **values: Any) -> TrainConfig:
    given = {"target": "none", "report": False, "epochs": 1, "batch": 2}
    return TrainConfig.of(**{**given, "head": head, "store": tuple(stores[name].path for name in inputs), **values})


@pytest.fixture(scope="module")
def runs(stores: dict[str, Store], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    frame = asked(stores, "frame-net", "frames", run=root / "frame", head_option=("weights=random",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_net_module, "WIDTH", 2)  # its linear layer, which the fusion leaves aside, is 200 MB
        flow = train_head(asked(stores, "flow-net", "flow", run=root / "flow", head_option=(CUT,))).directory
    return {"frame": train_head(frame).directory, "flow": flow}


def test_a_run_of_the_frame_net_holds_all_of_it_and_is_weights_of_googlenet(
    stores: dict[str, Store], runs: dict[str, Path], googlenet: Network
) -> None:
    tensors, header = read_tensors(runs["frame"] / "best.safetensors")
    entry = header["backbones"]["googlenet"]
    assert (entry["weights"], entry["left_out"]) == ({"kind": "none"}, [])
    again = backbones.build("googlenet", weights=runs["frame"], device="cpu")
    assert again.module is not None
    for name, value in again.module.state_dict().items():
        assert torch.equal(value, tensors[f"head.net.{name}"]), name
    moved = [
        name
        for name, value in again.module.named_parameters()
        if not torch.equal(value, googlenet.module.get_parameter(name))
    ]
    assert len(moved) == len(list(again.module.parameters()))
    assert len(predict(runs["frame"], stores["frames"].path).clip_ids) == len(CLIPS)


def test_a_frame_net_may_start_from_a_run_of_its_own(stores: dict[str, Store], runs: dict[str, Path]) -> None:
    """Stanford-40 first, then HMDB51; without --init-from it starts from GoogLeNet, and nobody asks for a run."""
    (stage,) = describe_head("frame-net")["stages"]
    assert stage["starts_from"] == [] and stage["may_start_from"] == ["frame-net"]
    prepared = prepare(asked(stores, "frame-net", "frames", init_from=(runs["frame"],)))
    head = Trainer(make_job(prepared, prepared.partitions[0])).head
    tensors, _ = read_tensors(runs["frame"] / "best.safetensors")
    for name, value in head.state_dict().items():
        assert torch.equal(value, tensors[f"head.{name}"]), name
    assert any("Starts from" in note for note in prepared.notes)
    assert not any("is run inside the head" in note for note in prepared.notes)  # nothing of it is frozen


@pytest.fixture(scope="module")
def fused(stores: dict[str, Store], runs: dict[str, Path]) -> Any:
    return prepare(
        asked(
            stores,
            "two-stream",
            "frames",
            "flow",
            init_from=tuple(runs.values()),
            stage="frozen",
            lr=1e-3,
            head_option=(CUT,),
        )
    )


def test_the_fusion_starts_from_both_runs_without_their_classifiers(fused: Any, runs: dict[str, Path]) -> None:
    head = Trainer(make_job(fused, fused.partitions[0])).head
    state = head.state_dict()
    for part, run in runs.items():
        tensors, _ = read_tensors(run / "best.safetensors")
        own = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.net.")}
        assert own
        for name, value in own.items():
            assert torch.equal(state[f"{part}.{name}"], value), name
    assert not any(name.startswith(("frame.classifiers", "flow.classifiers", "flow.fc1")) for name in state)


def test_the_frozen_stage_leaves_both_trunks_to_the_bit(fused: Any) -> None:
    assert any("googlenet is run inside the head, its frozen part too" in note for note in fused.notes)
    trainer = Trainer(make_job(fused, fused.partitions[0]))
    before = {name: value.clone() for name, value in trainer.head.state_dict().items()}
    trainer.run_epoch()
    changed = {name for name, value in trainer.head.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in changed} == NEW


def test_the_fusion_asks_for_both_runs_and_the_same_cut(stores: dict[str, Store], runs: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="starts from a run of frame-net and a run of flow-net"):
        prepare(asked(stores, "two-stream", "frames", "flow"))
    with pytest.raises(TrainingError, match=r"it was trained with clip=1\.0, and this stage has clip=4\.0"):
        prepare(
            asked(stores, "two-stream", "frames", "flow", init_from=tuple(runs.values()), head_option=("clip=4.0",))
        )


def test_stored_maps_of_the_runs_train_what_frames_and_fields_do(
    stores: dict[str, Store], runs: dict[str, Path], fused: Any, tmp_path: Path
) -> None:
    """Maps in float32, so that one epoch of the stage gives the same numbers; maps of other weights are refused."""
    head = Trainer(make_job(fused, fused.partitions[0])).head.eval()
    rows = torch.arange(len(CLIPS))
    with torch.no_grad():
        arrays, _ = fused.arrays.batches(torch.device("cpu"), evaluation_clips=6).evaluated(rows)
        of_flow = head.flow.net(arrays["flow"][:, 0])  # type: ignore[operator, union-attr]
        built_again = backbones.build("googlenet", weights=runs["frame"], device="cpu")
        assert isinstance(built_again, Network)
        maps = built_again.architecture.run(built_again.module, arrays["frames"][:, 0], frozenset())["inception5b"]
    flow_net = backbones.build("flow-net", weights=runs["flow"], device="cpu")
    made = {
        "maps": (built_again, "inception5b", maps), "pool2": (flow_net, "pool2", of_flow),
    }  # fmt: skip
    of_runs = {
        name: write_store(
            tmp_path / f"{name}.zarr",
            {tap: [clip[None].numpy() for clip in values]},
            CLIPS,
            backbone=backbone.name,
            weights=backbone.weights,
        )
        for name, (backbone, tap, values) in made.items()
    }
    option = {"head_option": ("frozen_trunks=true", CUT), "init_from": tuple(runs.values()), "lr": 1e-3}
    config = asked(of_runs, "two-stream", "maps", "pool2", run=tmp_path / "run", **option)
    prepared = prepare(config)
    trainers = [Trainer(make_job(one, one.partitions[0])) for one in (prepared, fused)]
    found = [
        {name: value for name, value in trainer.head.named_parameters() if name.rpartition(".")[0] in NEW}
        for trainer in trainers
    ]
    assert set(found[0]) == set(found[1]) == set(dict(trainers[0].head.named_parameters()))
    with torch.no_grad():  # a network without trunks draws other numbers
        for name, value in found[0].items():
            value.copy_(found[1][name])
    for trainer in trainers:
        trainer.run_epoch()
    for name, value in found[0].items():
        # Of a gradient of nearly zero rounding decides the sign, by which Adam moves a number.
        assert float((value - found[1][name]).detach().abs().mean()) < 1e-6, name
    result = train_head(config).directory
    assert len(predict(result, [store.path for store in of_runs.values()]).clip_ids) == len(CLIPS)
    others = {"kind": "random", "seed": 9, "sha256": "0" * 64}
    other = write_store(
        tmp_path / "o.zarr",
        {"inception5b": [np.zeros((1, 1024, 7, 7), np.float16) for _ in CLIPS]},
        CLIPS,
        backbone="googlenet",
        weights=others,
    )
    with pytest.raises(TrainingError, match="random weights of sha256 0"):
        prepare(asked({**of_runs, "maps": other}, "two-stream", "maps", "pool2", **option))


def test_maps_of_a_run_go_with_it_also_where_a_tensor_never_moved(
    stores: dict[str, Store], runs: dict[str, Path], googlenet: Network, tmp_path: Path
) -> None:
    """Such a tensor is still that of the weights the run began with, which are not those of the maps."""
    still = "conv1.conv.weight"
    tensors, header = read_tensors(runs["frame"] / "best.safetensors")
    entry = {**header["backbones"]["googlenet"], "weights": googlenet.weights, "left_out": [still]}
    header = {**header, "backbones": {"googlenet": {**entry, "sha256": googlenet.weights["sha256"]}}}
    run = tmp_path / "frame"
    run.mkdir()
    kept = {name: value for name, value in tensors.items() if name != f"head.net.{still}"}
    write_tensors(run / "best.safetensors", kept, header)
    (run / "results.json").write_text("{}")
    weights = backbones.build("googlenet", weights=run, device="cpu").weights
    maps = [np.ones((1, 1024, 7, 7), np.float16) for _ in CLIPS]
    of_flow = [np.ones((1, 64, 56, 56), np.float16) for _ in CLIPS]
    flow_weights = backbones.build("flow-net", weights=runs["flow"], device="cpu").weights
    made = {
        "maps": write_store(tmp_path / "m.zarr", {"inception5b": maps}, CLIPS, backbone="googlenet", weights=weights),
        "pool2": write_store(tmp_path / "p.zarr", {"pool2": of_flow}, CLIPS, backbone="flow-net", weights=flow_weights),
    }
    options = {"head_option": ("frozen_trunks=true", CUT), "init_from": (run, runs["flow"])}
    prepared = prepare(asked(made, "two-stream", "maps", "pool2", **options))
    assert prepared.start is not None and not any(name.startswith("frame.net.") for name in prepared.start.trained)


def test_the_fusion_is_trained_whole_and_applied(
    stores: dict[str, Store], runs: dict[str, Path], tmp_path: Path
) -> None:
    """Both trunks move, and the run is weights of both backbones."""
    config = asked(
        stores,
        "two-stream",
        "frames",
        "flow",
        init_from=tuple(runs.values()),
        run=tmp_path / "both",
        head_option=(CUT,),
    )
    run = train_head(config).directory
    tensors, header = read_tensors(run / "best.safetensors")
    assert set(header["backbones"]) == {"googlenet", "flow-net"}
    before, _ = read_tensors(runs["flow"] / "best.safetensors")
    assert not torch.equal(tensors["head.flow.net.conv1.weight"], before["head.net.conv1.weight"])
    again = backbones.build("flow-net", weights=run, device="cpu")
    assert again.module is not None
    assert torch.equal(again.module.state_dict()["conv1.weight"], tensors["head.flow.net.conv1.weight"])
    assert Predictor.load(run / "best.safetensors").stage == "1"
    assert float(tensors["head.flow.net.clip_px"]) == 1.0


def test_what_began_with_random_weights_says_so_in_every_later_run(fused: Any, runs: dict[str, Path]) -> None:
    """All of the trunk was trained since, and it still is no GoogLeNet that anybody published."""
    assert read_tensors(runs["frame"] / "best.safetensors")[1]["begun_random"] == ["googlenet"]
    assert read_tensors(runs["flow"] / "best.safetensors")[1]["begun_random"] == []
    assert fused.warning.startswith("RANDOM WEIGHTS: googlenet was never trained")


# --- late fusion


def _late() -> Any:
    """The head without its networks."""
    head = late_fusion.LateFusion.__new__(late_fusion.LateFusion)
    nn.Module.__init__(head)
    head.log_temperatures, head.balance = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))
    return head


def test_temperatures_and_weight_are_those_that_fit() -> None:
    """One net is three times too sure and the other half as sure as it may be; the first alone tells the class."""
    torch.manual_seed(0)
    true = 2 * torch.randn(6000, 7)
    classes = torch.distributions.Categorical(logits=true).sample()
    head = _late()
    head.calibrate(torch.stack([3 * true, 0.5 * true], dim=1), classes)
    torch.testing.assert_close(head.log_temperatures.exp().detach(), torch.tensor([3.0, 0.5]), rtol=0.1, atol=0)
    noise = torch.randn(6000, 7)
    head = _late()
    head.calibrate(torch.stack([true, noise], dim=1), classes)
    assert head.balance.sigmoid() > 0.9
    mixed = torch.nn.functional.cross_entropy(head._fused(torch.stack([true, noise], dim=1)), classes)
    assert mixed <= torch.nn.functional.cross_entropy(true, classes) + 1e-3
    swapped = _late()
    swapped.calibrate(torch.stack([noise, true], dim=1), classes)
    assert swapped.balance.sigmoid() < 0.1


def test_the_two_nets_of_late_fusion_stay_as_their_runs_left_them(
    stores: dict[str, Store], runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(flow_net_module, "WIDTH", 2)
    options = {"init_from": tuple(runs.values()), "head_option": (CUT,)}
    prepared = prepare(asked(stores, "late-fusion", "frames", "flow", **options))
    trainer = Trainer(make_job(prepared, prepared.partitions[0]))
    before = {name: value.clone() for name, value in trainer.head.state_dict().items()}
    record = trainer.run_epoch()
    changed = {name for name, value in trainer.head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"log_temperatures", "balance"}
    for part, run in runs.items():
        for name, value in read_tensors(run / "best.safetensors")[0].items():
            if name.startswith("head."):
                assert torch.equal(before[f"{part}.{name.removeprefix('head.')}"], value), name
    assert record.train_loss == record.val_loss  # three numbers are fitted to the validation clips
    run = train_head(asked(stores, "late-fusion", "frames", "flow", run=tmp_path / "late", **options)).directory
    said = predict(run, [stores["frames"].path, stores["flow"].path])
    assert len(said.clip_ids) == len(CLIPS)


def test_late_fusion_without_validation_clips_or_other_options_is_refused(
    stores: dict[str, Store], runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_net_module, "WIDTH", 2)
    with pytest.raises(TrainingError, match=r"clip=1\.0, and this stage has clip=0\.0"):
        prepare(asked(stores, "late-fusion", "frames", "flow", init_from=tuple(runs.values())))
    prepared = prepare(
        asked(stores, "late-fusion", "frames", "flow", init_from=tuple(runs.values()), head_option=(CUT,))
    )
    without = replace(prepared.partitions[0], val=np.array([], dtype=np.int64))
    with pytest.raises(TrainingError, match="late-fusion is fitted to the classes of validation clips"):
        Trainer(make_job(prepared, without)).run_epoch()
