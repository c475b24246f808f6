"""Videos extracted as a store was made: the same bits, the weights of its checksum, as few passes as can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline import run, store_of

import reelbank.store
from reelbank.extract import backbones, extract_as
from reelbank.extract.errors import ExtractionError
from reelbank.extract.run import repeating
from reelbank.extract.run.report import FeaturizeReport
from reelbank.extract.weights.files import WEIGHTS_DIR_VARIABLE, WeightsError, sha256_of
from reelbank.manifests import ManifestError
from reelbank.store import FeatureSpec, SpecMismatch, Store

MODELS = ("flow:dis", "frames:112", "resnet18")


@pytest.fixture(scope="module")
def made(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stores of three models, each with its own sampling, of two videos, a picture and an interval."""
    import av

    folder = tmp_path_factory.mktemp("made")
    (folder / "videos/below").mkdir(parents=True)
    videos = sorted((synth_set / "videos").glob("*.mp4"))[:2]
    (folder / "videos/a.mp4").write_bytes(videos[0].read_bytes())
    (folder / "videos/below/b.mp4").write_bytes(videos[1].read_bytes())
    with av.open(str(videos[0])) as container:
        next(container.decode(video=0)).to_image().save(folder / "videos/c.png")
    rows = ["a,videos/a.mp4,,", "below/b,videos/below/b.mp4,,", "c,videos/c.png,,", "part,videos/a.mp4,0.3,0.9"]
    (folder / "manifest.csv").write_text("\n".join(["clip_id,video,start_seconds,end_seconds", *rows]) + "\n")
    sampling = ("flow:dis=random:3", "frames:112=uniform:2", "resnet18=every:9")
    run(folder, model=MODELS, sampling=sampling, weights="random", seed=3, tap=("resnet18=pool", "resnet18=layer4"))
    return folder


def _assert_same_features(ours: Store, theirs: Store, clips: Sequence[str]) -> None:
    assert ours.spec.to_json() == theirs.spec.to_json()
    mine, others = ours.column("clip_id").tolist(), theirs.column("clip_id").tolist()
    for tap in theirs.taps:
        for clip in clips:
            np.testing.assert_array_equal(
                ours.read(tap, mine.index(clip)), theirs.read(tap, others.index(clip)), f"{tap} of {clip}"
            )


def test_features_are_those_of_featurize_bit_for_bit_in_one_pass(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[FeaturizeReport] = []
    original = repeating.featurize

    def counted(*given: Any, **options: Any) -> FeaturizeReport:
        passes.append(original(*given, **options))
        return passes[-1]

    monkeypatch.setattr(repeating, "featurize", counted)
    stores = [reelbank.store.open(store_of(made, model)) for model in MODELS]
    found = extract_as([store.spec for store in stores], [made / "videos"], tmp_path / "new")
    assert [one.num_clips for one in passes] == [3]
    assert passes[0].tally.opens == 2  # of a picture none
    for path, store in zip(found, stores, strict=True):
        clips = ("a", "below/b") if store.spec.backbone == "flow:dis" else ("a", "below/b", "c")
        _assert_same_features(reelbank.store.open(path), store, clips)


def test_intervals_are_those_of_a_table_also_where_times_began_at_the_first_frame(made: Path, tmp_path: Path) -> None:
    store = reelbank.store.open(store_of(made, "frames:112"))
    earlier = replace(store.spec, time_origin=None)
    for spec in (store.spec, earlier):
        (found,) = extract_as([spec], [made / "manifest.csv"], tmp_path / str(spec.time_origin))
        new = reelbank.store.open(found)
        assert new.spec == spec
        np.testing.assert_array_equal(new.read("rgb", 3), store.read("rgb", 3))  # both begin at 0 here


def test_views_are_made_of_new_clips_too(made: Path, synth_set: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(f"clip_id,video,split\na,{made / 'videos/a.mp4'},train\n")
    path = run(tmp_path, model=("frames:112",), views="augment", seed=5).stores[0].store
    store = reelbank.store.open(path)
    (found,) = extract_as([store.spec], [made / "videos/a.mp4"], tmp_path / "new")
    new = reelbank.store.open(found)
    assert len(new.read("rgb", 0)) == len(store.spec.views) > 1
    np.testing.assert_array_equal(new.read("rgb", 0), store.read("rgb", 0))


def _weights_file(folder: Path, seed: int) -> Path:
    import torch

    path = folder / f"of seed {seed}.pth"
    module = backbones.build("resnet18", weights="random", seed=seed, device="cpu").module
    assert module is not None
    torch.save(module.state_dict(), path)
    return path


def test_weights_are_found_by_their_checksum(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path / "weights"))
    used, other = _weights_file(tmp_path, seed=1), tmp_path / "other.pth"
    other.write_bytes(b"no weights: known by its sum, never loaded")
    video = made / "videos/a.mp4"
    (tmp_path / "manifest.csv").write_text(f"clip_id,video\na,{video}\n")
    path = run(tmp_path, model=("resnet18",), weights=str(used), sampling=("uniform:1",)).stores[0].store
    store = reelbank.store.open(path)

    def extract(name: str, **options: Any) -> None:
        (found,) = extract_as([store.spec], [video], tmp_path / name, **options)
        _assert_same_features(reelbank.store.open(found), store, ["a"])

    extract("where it was", like=[path])
    extract("given", weights=[used])
    with pytest.raises(
        WeightsError, match=rf"resnet18 had weights from a file: give the file of sha256 {sha256_of(used)}"
    ):
        extract("unknown")
    with pytest.raises(WeightsError, match=rf"{other} has another one, {sha256_of(other)}"):
        extract("wrong", weights=[other])
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        extract("none", weights=[tmp_path / "none.pth"])
    moved = used.rename(tmp_path / "weights/moved.pth")
    extract("in the folder of weights", like=[path])
    moved.rename(tmp_path / "elsewhere.pth")
    with pytest.raises(WeightsError, match=rf"they were {used}, which is gone\): give the file of sha256"):
        extract("gone", like=[path])
    used.write_bytes(b"another")
    with pytest.raises(WeightsError, match=rf"they were {used}, which has changed\)"):
        extract("changed", like=[path])
    published = replace(store.spec, weights={**store.spec.weights, "kind": "pretrained"})
    (found,) = extract_as([published], [video], tmp_path / "published", weights=[tmp_path / "elsewhere.pth"])
    _assert_same_features(reelbank.store.open(found), store, ["a"])


def test_each_pass_does_what_goes_together(made: Path) -> None:
    flow, frames, resnet = (reelbank.store.open(store_of(made, model)).spec for model in MODELS)
    specs = [flow, frames, resnet, replace(flow, sampling="uniform:5"), replace(frames, backbone="frames", seed=9)]
    assert repeating._passes(specs, ["random"] * 5) == [[0, 1, 2], [3], [4]]
    assert repeating._passes(specs[:3], ["random", "random", "a.pth"]) == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": {"kind": "imported", "source": "x.h5"}},
            "the features were imported from x.h5: no video gives them",
        ),
        ({"backbone": "pose"}, "pose reads annotations, not videos"),
        ({"preprocess": {"short_side": 7}}, r"(?s)does not give here .*preprocess.short_side: then 7, now None"),
        (
            {"weights": {"kind": "random", "sha256": "f" * 64, "seed": 3}},
            r"(?s)weights.sha256: then 'fff.*other weights",
        ),
        ({"plugin_sha256": "e" * 64}, r"(?s)plugin_sha256: then 'eee.*the source of the backbone has changed since"),
    ],
)
def test_what_cannot_be_made_again_is_refused_before_anything_is(
    change: dict[str, Any], message: str, made: Path, tmp_path: Path
) -> None:
    spec = replace(reelbank.store.open(store_of(made, "resnet18")).spec, **change)
    with pytest.raises((ExtractionError, SpecMismatch), match=message):
        extract_as([spec], [made / "videos/a.mp4"], tmp_path / "new")
    assert not list(tmp_path.glob("**/zarr.json"))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ((), "no file and no folder is named"),
        (("none.mp4", "gone.mp4"), "none.mp4: there is no such file or folder, as of 1 more"),
        (("empty",), "empty holds no video and no image: it is empty"),
        (("texts",), r"texts holds no video and no image: not taken, neither .* by suffix: 'a.txt'"),
        (("table.csv", "texts"), "table.csv is a table of clips: give it alone"),
    ],
)
def test_what_is_no_video_is_said(named: Sequence[str], message: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    (tmp_path / "table.csv").write_text("clip_id,video\n")
    spec: FeatureSpec = reelbank.store.open(store_of(made, "frames:112")).spec
    with pytest.raises(ManifestError, match=message):
        extract_as([spec], [tmp_path / name for name in named], tmp_path / "new")


def test_stores_that_are_kept_are_gone_on_with(made: Path, tmp_path: Path) -> None:
    spec = reelbank.store.open(store_of(made, "frames:112")).spec
    (found,) = extract_as([spec], [made / "videos/a.mp4"], tmp_path)
    before = json.loads((found / "zarr.json").read_text())
    assert extract_as([spec], [made / "videos"], tmp_path) == (found,)
    store = reelbank.store.open(found)
    assert store.column("clip_id").tolist() == ["a", "c", "below/b"]
    assert before["attributes"]["spec"] == store.spec.to_json()
