"""The probe as a user calls it: what it writes, what it says, what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from probe_stores import clustered_store
from remembered import write_store

from reelbank.heads.config import TrainConfig
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.probes import PROBES
from reelbank.heads.probes import probe as probe_module
from reelbank.heads.probes.cluster_reading import read_labels, read_target
from reelbank.heads.probes.config import FLAGS, ProbeConfig
from reelbank.heads.probes.kmeans import kmeans
from reelbank.heads.probes.probe import OUTPUTS, probe
from reelbank.heads.probes.rows import load_rows, standardized


def test_every_analysis_lands_in_the_folder(tmp_path: Path) -> None:
    clustered_store(tmp_path / "toy.zarr", weights="random", unknown_class=True)
    events = []
    config = ProbeConfig(
        store=tmp_path / "toy.zarr", tsne=True, kmeans=8, knn=3, linear=True, explore=True, out=tmp_path / "out"
    )
    result = probe(config, events.append)
    names = {path.name for path in result.out.iterdir()}
    others = {
        file for name, row in PROBES.items() if name not in FLAGS or name == "umap" for file in row.captions(name)
    }
    # A store that is made of arrays knows no durations.
    assert names == set(OUTPUTS) - others - {"class-durations.png", "stored-views.png"} == set(result.results["files"])
    for picture in result.pictures:
        with Image.open(picture) as image:
            assert image.format == "PNG"
            grey = np.asarray(image.convert("L"))
        # Axes with nothing in them are 0.012.
        assert (grey != np.bincount(grey.ravel()).argmax()).mean() > 0.015, f"{picture.name} shows nothing"
    assert [event.stage for event in events] == ["explore", "load", "tsne", "kmeans", "knn", "linear", "report"]
    stored = json.loads((result.out / "results.json").read_text())
    assert stored == json.loads(json.dumps(result.results))
    assert "RANDOM WEIGHTS" in stored["warning"] and stored["weights_are_random"]
    assert set(stored["analyses"]) == {"explore", "tsne", "kmeans", "knn", "linear"}
    with (result.out / "coordinates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and all(np.isfinite(float(row["x"])) for row in rows)
    assert {row["cluster"] for row in rows} == {str(i) for i in range(8)}
    page = result.page.read_text()
    assert page.index("RANDOM WEIGHTS: ") < page.index("<main>")
    for part in ("Nearest neighbours", "Linear probe", "k-means", "Map", "Clusters", "Pictures", "coordinates.csv"):
        assert part in page
    assert page.count("data:image/png;base64,") >= len(result.pictures) == 10


def test_nothing_asked_runs_tsne_and_five_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=24)
    monkeypatch.chdir(tmp_path)
    result = probe(ProbeConfig())
    assert result.out == Path("toy-probe")
    assert set(result.results["analyses"]) == {"tsne", "knn"}
    assert result.results["analyses"]["knn"]["k"] == 5
    assert result.warning == ""
    assert "random" not in (tmp_path / "toy-probe" / "index.html").read_text().split("<main>")[0]


def _unlabelled(folder: Path, num_labels: int) -> Path:
    """24 clips whose manifest has this many labels."""
    draw = np.random.default_rng(0)
    features = [draw.normal(size=(3, 4)).astype(np.float16) for _ in range(24)]
    clips = [{"clip_id": f"c{i}", "label": f"l{i % num_labels}" if num_labels else ""} for i in range(24)]
    return write_store(folder / "plain.zarr", {"pool": features}, clips).path


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [
        ({"tsne": True, "kmeans": 2, "knn": 3}, "give the manifest labels, or leave --knn and --linear out"),
        ({"tsne": True, "linear": True}, "give the manifest labels"),
        ({"kmeans": 2, "perplexity": 1e-9, "tsne": True, "knn": 3}, "labels"),
    ],
)
def test_what_the_rows_lack_is_said_before_anything_runs(
    asked: dict[str, Any], lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--tsne --kmeans 2 --knn 3` without labels computed for minutes, failed, and saved nothing."""
    ran: list[str] = []
    monkeypatch.setattr(probe_module, "_answer", lambda found, question: ran.append(found.name))
    with pytest.raises(ValueError, match=lacks):
        probe(ProbeConfig(store=_unlabelled(tmp_path, 0), out=tmp_path / "out", **asked))
    assert ran == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_labels", [0, 1])
def test_an_analysis_that_nobody_asked_for_is_left_out_with_a_note(num_labels: int, tmp_path: Path) -> None:
    result = probe(ProbeConfig(store=_unlabelled(tmp_path, num_labels), out=tmp_path / "out"))
    assert set(result.results["analyses"]) == {"tsne"}
    assert any(note.startswith("Nearest neighbours was left out: ") for note in result.results["notes"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("out of luck")])
def test_what_was_finished_is_saved(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=24)
    answer = probe_module._answer

    def failing(found: Any, question: Any) -> Any:
        if found.name == "knn":
            raise error
        return answer(found, question)

    monkeypatch.setattr(probe_module, "_answer", failing)
    config = ProbeConfig(store=tmp_path / "toy.zarr", out=tmp_path / "out", kmeans=3, knn=3, linear=True)
    with pytest.raises((KeyboardInterrupt, RuntimeError)) as failed:
        probe(config)
    assert "what was finished before (kmeans) is in" in failed.value.__notes__[0]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert set(results["analyses"]) == {"kmeans"}
    assert "knn did not finish, and what was asked after it was not begun." in results["notes"]
    assert (tmp_path / "out/index.html").is_file()
    monkeypatch.setattr(probe_module, "_answer", answer)
    assert set(probe(config).results["analyses"]) == {"kmeans", "knn", "linear"}


def test_same_probe_twice_gives_the_same_files(tmp_path: Path) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=32)
    contents = []
    for out in ("a", "b"):
        config = ProbeConfig(store=tmp_path / "toy.zarr", tsne=True, kmeans=4, out=tmp_path / out)
        result = probe(config)
        contents.append({path.name: path.read_bytes() for path in result.pictures})
        contents[-1]["coordinates.csv"] = (result.out / "coordinates.csv").read_bytes()
    assert contents[0] == contents[1]


def test_second_probe_replaces_the_first_and_spares_other_files(tmp_path: Path) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=24)
    out = tmp_path / "out"
    probe(ProbeConfig(store=tmp_path / "toy.zarr", tsne=True, out=out))
    probe(ProbeConfig(store=tmp_path / "toy.zarr", kmeans=3, out=out))
    assert not (out / "tsne-class.png").exists()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt.*another folder"):
        probe(ProbeConfig(store=tmp_path / "toy.zarr", kmeans=3, out=out))


def test_several_stores_are_listed_and_none_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="featurize --model"):
        probe(ProbeConfig(tsne=True))
    for name in ("b.zarr", "a.zarr"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"2 found in this folder: a\.zarr, b\.zarr; pass --store"):
        probe(ProbeConfig(tsne=True))


def test_more_clusters_than_clips_names_the_rows_and_level_step(tmp_path: Path) -> None:
    store = clustered_store(tmp_path / "toy.zarr", num_clips=40)
    with pytest.raises(ValueError, match=r"1000 clusters asked, 40 rows found.*--level step"):
        probe(ProbeConfig(store=tmp_path / "toy.zarr", tsne=True, kmeans=1000, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    steps = int(store.num_steps.sum())
    with pytest.raises(ValueError, match=rf"{steps} rows found \(steps of 40 clips\); ask for at most {steps}$"):
        probe(ProbeConfig(store=tmp_path / "toy.zarr", kmeans=1000, level="step"))


def test_level_step_makes_every_valid_step_a_row(tmp_path: Path) -> None:
    store = clustered_store(tmp_path / "toy.zarr", num_clips=20)
    rows = load_rows(
        store, tap="pool", level="step", view=0, normalize="none", label_column="label", target_column=None
    )
    assert len(rows) == store.num_steps.sum()
    for place in (0, len(rows) - 1):
        clip, step = int(rows.clip_rows[place]), int(rows.steps[place])
        np.testing.assert_array_equal(rows.vectors[place], store.read("pool", clip)[0, step].astype(np.float32))
    clips = load_rows(
        store, tap="pool", level="clip", view=0, normalize="none", label_column="label", target_column=None
    )
    for clip in range(20):
        np.testing.assert_allclose(
            clips.vectors[clip], rows.vectors[rows.clip_rows == clip].mean(axis=0), rtol=1e-4, atol=1e-4
        )


def test_maps_are_averaged_over_space_and_frames_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    maps = [random.normal(size=(2, 3, 4, 5)).astype(np.float16) for _ in range(6)]
    frames = [random.integers(255, size=(2, 8, 8, 3)).astype(np.uint8) for _ in range(6)]
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train", "group": ""} for i in range(6)]
    store = write_store(tmp_path / "maps.zarr", {"layer4": maps, "rgb": frames}, clips)
    options = {"level": "clip", "view": 0, "normalize": "none", "label_column": "label", "target_column": None}
    rows = load_rows(store, tap="layer4", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(rows.vectors[3], maps[3].astype(np.float32).mean(axis=(0, 2, 3)), atol=1e-5)
    assert any("averaged over space" in note for note in rows.notes)
    with pytest.raises(ValueError, match=r"tap 'rgb' is uint8.*can be probed: layer4"):
        load_rows(store, tap="rgb", **options)  # type: ignore[arg-type]


def test_normalisation_statistics_are_those_of_training_rows() -> None:
    vectors = np.array([[0.0, 7.0], [2.0, 7.0], [100.0, 9.0]], dtype=np.float32)
    train = np.array([True, True, False])
    scaled, note = standardized(vectors, train)
    np.testing.assert_allclose(scaled, [[-1, 0], [1, 0], [99, 0]])
    assert note == ""
    assert "all rows" in standardized(vectors, ~train & False)[1]


def test_l2_divides_each_step_as_training_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(3 + i % 2, 6)).astype(np.float16) for i in range(12)]
    arrays[5][1] = 0  # a step of zeros stays one
    clips = [
        {"clip_id": f"c{i:02}", "label": "ab"[i % 2], "split": ("train", "train", "val")[i % 3], "group": f"g{i}"}
        for i in range(12)
    ]
    store = write_store(tmp_path / "s.zarr", {"pool": arrays}, clips)
    options = {"tap": "pool", "view": 0, "normalize": "l2", "label_column": "label", "target_column": None}
    by_clip, by_step = (load_rows(store, level=level, **options) for level in ("clip", "step"))  # type: ignore[arg-type]
    assert sorted(set(np.linalg.norm(by_step.vectors, axis=1).round(5))) == [0.0, 1.0]
    means = [by_step.vectors[by_step.clip_rows == row].mean(axis=0) for row in by_clip.clip_rows]
    np.testing.assert_allclose(by_clip.vectors, means, atol=1e-6)
    features = prepare(TrainConfig.of(store=(store.path,), normalize="l2", pool="mean")).features.arrays["pool"]
    np.testing.assert_allclose(by_clip.vectors, features[:, 0].numpy(), atol=1e-6)


def test_cluster_means_beat_the_constant_and_cluster_numbers_do_not(tmp_path: Path) -> None:
    store = clustered_store(tmp_path / "toy.zarr", num_clips=160, num_classes=5, unknown_class=True)
    rows = load_rows(
        store, tap="pool", level="clip", view=0, normalize="zscore", label_column="label", target_column="kcal"
    )
    reading = read_target(rows, kmeans(rows.vectors, 20))
    assert set(reading["parts"]) == {"test", "unknown", "val"}
    test = reading["parts"]["test"]
    assert test["mae"]["cluster_mean_label"]["high"] < 5 < test["baselines"]["constant_median"]
    assert test["mae"]["nearest_train"]["value"] < 5
    assert test["mae"]["cluster_id"]["value"] > test["baselines"]["constant_median"]
    # The unknown class has clusters of its own: no training row to take a value from.
    assert reading["parts"]["unknown"]["num_without_training_row_in_cluster"] > 20


def test_cluster_number_on_noise_is_as_bad_as_a_random_bin(tmp_path: Path) -> None:
    """SYSTEMS.md 1.14: the published k-means error of 303 kcal is that of a uniformly random bin."""
    random = np.random.default_rng(0)
    features = [random.normal(size=(1, 8)).astype(np.float16) for _ in range(800)]
    clips = [
        {"clip_id": f"c{i}", "label": "x", "split": "train", "group": "", "kcal": float(random.uniform(60, 900))}
        for i in range(800)
    ]
    store = write_store(tmp_path / "noise.zarr", {"pool": features}, clips)
    rows = load_rows(
        store, tap="pool", level="clip", view=0, normalize="zscore", label_column="label", target_column=None
    )
    part = read_target(rows, kmeans(rows.vectors, 300))["parts"]["held-out groups"]
    assert part["mae"]["cluster_id"]["value"] == pytest.approx(part["baselines"]["uniform_random_bin"], rel=0.07)
    assert part["mae"]["cluster_mean_label"]["value"] > part["baselines"]["constant_median"]


def test_agreement_of_noise_is_that_of_shuffled_labels() -> None:
    random = np.random.default_rng(0)
    clusters, labels = random.integers(100, size=500), random.integers(5, size=500).astype(str)
    result = read_labels(clusters, labels)
    for name, value in result["value"].items():
        assert value == pytest.approx(result["shuffled_labels"][name], abs=0.05)
    perfect = read_labels(labels.astype(int), labels)
    assert perfect["value"] == pytest.approx({"nmi": 1.0, "ari": 1.0, "purity": 1.0})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kmeans", 0, "--kmeans 0 must be 1 or more"),
        ("level", "frame", "--level 'frame' is not one of clip, step"),
        ("normalize", "max", "--normalize 'max' is not one of l2, none, zscore"),
        ("perplexity", 0.0, "must be above 0"),
        ("n_init", 0, "--n-init 0 must be 1 or more"),
    ],
)
def test_bad_settings_name_the_flag(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**{field: value})  # type: ignore[arg-type]


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    clustered_store(tmp_path / "toy.zarr", num_clips=12)
    for wrong, message in (
        ({"tap": "cls"}, "it holds pool"),
        ({"label": "mood"}, "no manifest column 'mood'"),
        ({"target": "mood"}, "no such target column; it has kcal"),
        ({"view": 3}, "no usable clip: 12 x view 3 is not stored"),
    ):
        with pytest.raises(ValueError, match=message):
            probe(ProbeConfig(store=tmp_path / "toy.zarr", out=tmp_path / "out", **wrong))  # type: ignore[arg-type]


def test_config_loads_neither_torch_nor_zarr() -> None:
    import subprocess
    import sys

    heavy = ("torch", "zarr", "av", "sklearn", "matplotlib")
    code = f"import sys, reelbank.heads.probes.probe; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
