"""Where times count from: the file's start, as players and `ffmpeg -ss` show it; in earlier stores the first frame."""

from __future__ import annotations

import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import CLIPS, MORE_CLIPS, code, picture, render
from PIL import Image
from pipeline import run, store_of, write_lines

import reelbank.store
from reelbank.extract import doctor
from reelbank.extract.run import todo
from reelbank.extract.video import plan
from reelbank.extract.video.decode import Video
from reelbank.heads.runs.predicting import refuse_other_features
from reelbank.manifests.rendered import synth
from reelbank.store import FeatureSpec, SpecMismatch, StoreError, merge

FIXTURE = Path(__file__).parent / "fixtures" / "store_v1.tar.xz"
MODEL = "frames:112"
NUM_FRAMES = 50


def _sounded(path: Path, late: int, *, is_silent: bool = False) -> Path:
    """A video whose picture starts `late` frames behind its sound, or behind 0 of a file without; frame i shows i."""
    with av.open(str(path), "w") as container:
        sound = None if is_silent else container.add_stream("aac", rate=16000)
        options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:threads=1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = []
        for start in range(0, 0 if is_silent else 16000 * (late + NUM_FRAMES) // 25, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            packets += sound.encode(frame)  # type: ignore[union-attr]
        for i in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(i, 96, 64), format="rgb24")
            frame.pts, frame.time_base = i + late, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode() + (sound.encode() if sound else [])
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def shown_at(path: Path) -> list[float]:
    """When each frame is shown, by PyAV's own decoder: from 0 of the format's time line, else from its start."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        has_line = container.format.name.startswith(("mov,", "matroska,"))
        start = Fraction(0 if has_line else container.start_time or 0, 1_000_000)
        return [float(frame.pts * stream.time_base - start) for frame in container.decode(stream)]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def manifest(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Clips named by their number: (video, start, end)."""
    lines = [f"{number},{video},train,{start},{end}" for number, (video, start, end) in enumerate(rows)]
    write_lines(folder, "clip_id,video,split,start_seconds,end_seconds", lines)


def steps(store: Path) -> list[tuple[list[float], list[int]]]:
    """(step_seconds, frame_index) of every clip."""
    found = reelbank.store.open(store)
    rows = range(len(found.column("clip_id")))
    return [(found.step_seconds(row).tolist(), found.frame_index(row).tolist()) for row in rows]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".mov"])
@pytest.mark.parametrize("late", [0, 75, 7])
def test_frames_of_an_interval_are_those_that_players_show(suffix: str, late: int, tmp_path: Path) -> None:
    path = _sounded(tmp_path / f"a{suffix}", late)
    expected = np.array(shown_at(path))
    scan = plan.scan(path).from_file_start()
    np.testing.assert_allclose(scan.times_seconds, expected, atol=2e-6)
    begin = float(expected[0])
    asked = [(begin + 0.5, begin + 1.0), (begin + 0.98, begin + 1.02), (begin - 1, begin + 0.1), (begin + 1.9, 99)]
    manifest(
        tmp_path, [(path.name, f"{max(start, 0):.3f}", f"{end:.3f}") for start, end in asked] + [(path.name, "", "")]
    )
    run(tmp_path, model=(MODEL,), sampling=("all",))
    store = reelbank.store.open(store_of(tmp_path, MODEL))
    for row, (start, end) in enumerate([*asked, (-np.inf, np.inf)]):
        start, end = round(start, 3), round(end, 3)
        wanted = [i for i, seconds in enumerate(expected) if start - 2e-6 <= seconds < end - 2e-6]
        assert store.frame_index(row).tolist() == wanted, row
        np.testing.assert_allclose(store.step_seconds(row), expected[wanted], atol=2e-6)
        inside = min(end, float(expected[-1]) + 0.04) - max(start, begin)
        assert store.clips.duration_seconds[row] == pytest.approx(inside, abs=0.002)
    np.testing.assert_allclose(store.clips.first_frame_seconds, begin, atol=2e-6)
    assert store.spec.time_origin == "file"
    with Video(path) as video:
        assert [code(frame.rgb) for _, frame in video.frames([0, 20, 49])] == [0, 20, 49]


@pytest.mark.parametrize("name", [*CLIPS, *MORE_CLIPS])
def test_times_from_the_files_start_are_ffmpegs(name: str, clip_folder: Path) -> None:
    """Every container and codec; an AVI and what has no start of its own begin at 0."""
    path = render(clip_folder, name)
    scan = plan.scan(path)
    with av.open(str(path)) as container:
        has_start, is_avi = container.start_time is not None, container.format.name == "avi"
    if has_start and not is_avi:
        expected = shown_at(path)
        if expected != sorted(expected):  # of a program stream one frame has a stamp that another has
            assert scan.time_source == "repaired" or name == "mpeg2-vob"
            expected = [expected[0] + i / 25 for i in range(len(expected))]
        np.testing.assert_allclose(scan.from_file_start().times_seconds, expected, atol=2e-6)
    else:
        np.testing.assert_allclose(scan.from_file_start().times_seconds, scan.times_seconds, atol=1e-12)
        assert scan.first_frame_seconds == 0
    assert scan.times_seconds[0] == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_picture_alone_is_late_on_the_formats_own_line(suffix: str, tmp_path: Path) -> None:
    """Browsers, and the annotation tools in them, show its first frame at 8.32 s; before it there is none."""
    path = _sounded(tmp_path / f"a{suffix}", 208, is_silent=True)
    np.testing.assert_allclose(plan.scan(path).from_file_start().times_seconds, 8.32 + np.arange(50) / 25, atol=5e-4)
    manifest(tmp_path, [(path.name, "8.4", "8.6"), (path.name, "0.08", "0.28")])
    report = run(tmp_path, model=(MODEL,), sampling=("all",))
    assert steps(store_of(tmp_path, MODEL))[0][1] == [2, 3, 4, 5, 6]
    (reason,) = report.stores[0].failures.values()
    assert "of which the first is shown at 8.32 s" in reason


def test_picture_alone_begins_at_0_where_the_format_has_no_line(tmp_path: Path) -> None:
    scan = plan.scan(_sounded(tmp_path / "a.ts", 208, is_silent=True))
    assert scan.from_file_start().times_seconds.tolist() == [
        round(i / 25, 2) for i in range(NUM_FRAMES)
    ]  # nearest floats


def test_frame_at_the_start_of_an_interval_is_in_it(tmp_path: Path) -> None:
    """A decimal number of a manifest is the nearest float, and so is each time: 3.28 is not below 3.28."""
    scan = plan.scan(_sounded(tmp_path / "a.mp4", 75)).from_file_start()
    assert scan.times_seconds.tolist() == [round(3 + i / 25, 2) for i in range(NUM_FRAMES)]
    assert scan.duration_seconds == pytest.approx(5)


def test_file_that_begins_hours_into_a_broadcast_begins_at_0(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w", options={"output_ts_offset": "7200"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(picture(i, 96, 64), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.start_time is not None and container.start_time > 7_000_000_000
    np.testing.assert_allclose(plan.scan(path).from_file_start().times_seconds, np.arange(30) / 25, atol=2e-6)


def test_interval_before_the_picture_says_when_it_begins(tmp_path: Path) -> None:
    _sounded(tmp_path / "a.mp4", 75)
    manifest(tmp_path, [("a.mp4", "0", "2"), ("a.mp4", "5.5", "6")])
    report = run(tmp_path, model=(MODEL,))
    reasons = list(report.stores[0].failures.values())
    assert "of which the first is shown at 3 s" in reasons[0]
    assert "no frame starts in [5.5, 6) s of the video's 5 s" in reasons[1]


def test_pictures_and_folders_begin_at_0(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(picture(number, 96, 64)).save(tmp_path / f"frames/{number}.png")
    lines = ["folder,frames,train,5,0.4,1", "picture,frames/3.png,train,,,"]
    write_lines(tmp_path, "clip_id,video,split,rate_fps,start_seconds,end_seconds", lines)
    run(tmp_path, model=(MODEL,), sampling=("all",))
    (folder, frames), (picture_seconds, _) = steps(store_of(tmp_path, MODEL))
    assert (folder, frames, picture_seconds) == ([0.4, 0.6, 0.8], [2, 3, 4], [0.0])


# --- stores that were made before


def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """New stores are made as earlier versions made them."""
    monkeypatch.setattr(todo, "FILE_START", None)


def test_earlier_store_goes_on_with_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not refused, and no clip of it counts otherwise than the others."""
    _sounded(tmp_path / "late.mp4", 75)
    manifest(tmp_path, [("late.mp4", "1", "1.1")])
    with monkeypatch.context() as earlier:
        _as_before(earlier)
        run(tmp_path, model=(MODEL,), sampling=("all",))
    store = store_of(tmp_path, MODEL)
    digest = reelbank.store.open(store).spec_digest
    manifest(tmp_path, [("late.mp4", "1", "1.1"), ("late.mp4", "1", "1.2"), ("late.mp4", "4", "4.2")])
    report = run(tmp_path, model=(MODEL, "flow:dis"), sampling=("all",))  # beside a store that counts as today
    found, new = reelbank.store.open(store), reelbank.store.open(store_of(tmp_path))
    assert (found.spec.time_origin, found.spec_digest, new.spec.time_origin) == (None, digest, "file")
    assert [index for _, index in steps(store)[:2]] == [[25, 26, 27], [25, 26, 27, 28, 29]]
    np.testing.assert_allclose(steps(store)[1][0], [1, 1.04, 1.08, 1.12, 1.16])
    assert found.clips.status.tolist() == [1, 1, 2]  # 4 s are past its end
    assert new.clips.status.tolist() == [2, 2, 1]  # and 1 s before the picture
    assert steps(store_of(tmp_path))[2][1] == [25, 26, 27, 28, 29]
    assert found.clips.first_frame_seconds[1] == new.clips.first_frame_seconds[2] == 3
    assert report.stores[0].num_done_before == 1


def test_fixture_of_an_earlier_version_is_extended(tmp_path: Path) -> None:
    synth.render(tmp_path, clips=6, seed=1, classes=("grow", "left"), width_px=64, height_px=48, num_frames=(32, 36))
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    before = reelbank.store.open(tmp_path / "store_v1")
    shutil.copy(next((tmp_path / "videos").iterdir()), tmp_path / "videos/more.mp4")
    write_lines(tmp_path, "clip_id,video,split,start_seconds,end_seconds", ["more,videos/more.mp4,train,0.2,1"])
    report = run(tmp_path, out=str(tmp_path / "store_v1"), sampling=("uniform:3",))
    after = reelbank.store.open(tmp_path / "store_v1")
    assert report.stores[0].num_extracted == 1
    assert (after.spec_digest, after.spec.time_origin) == (before.spec_digest, None)


def test_stores_of_two_origins_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sounded(tmp_path / "late.mp4", 75)
    manifest(tmp_path, [("late.mp4", "", "")])
    run(tmp_path, model=(MODEL,))
    with monkeypatch.context() as earlier:
        _as_before(earlier)
        run(tmp_path, model=(MODEL,), out=str(tmp_path / "old.zarr"))
    with pytest.raises(SpecMismatch, match=r"time_origin: \S+old.zarr None, \S+ 'file'"):
        merge(tmp_path / "both.zarr", [store_of(tmp_path, MODEL), tmp_path / "old.zarr"])
    old, new = (reelbank.store.open(path).spec for path in (tmp_path / "old.zarr", store_of(tmp_path, MODEL)))
    trained = {"spec": old.to_json(), "keys": {"rgb": "rgb"}}
    refuse_other_features(tmp_path, tmp_path, new, trained)  # a head reads what the frames give, wherever they lie


def test_spec_without_an_origin_has_the_digest_of_before(tmp_path: Path) -> None:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    root = json.loads((tmp_path / "store_v1/zarr.json").read_text())["attributes"]
    spec = FeatureSpec.from_json(root["spec"])
    assert (spec.time_origin, spec.digest) == (None, root["spec_digest"])
    with pytest.raises(StoreError, match="time_origin 'dawn' is not one that this version knows"):
        FeatureSpec.from_json(root["spec"] | {"time_origin": "dawn"})


# --- said


def test_late_picture_is_said_once_and_by_the_doctor(tmp_path: Path) -> None:
    for name, late in (("a.mp4", 75), ("b.mkv", 75), ("c.mp4", 0), ("d.ts", 3)):
        _sounded(tmp_path / name, late)
    manifest(tmp_path, [(name, "", "") for name in ("a.mp4", "b.mkv", "c.mp4", "d.ts")])
    report = run(tmp_path, model=(MODEL,))
    assert report.stores[0].remarks["first_frame_seconds"] == 2
    assert "2 of files whose picture begins later than the file" in report.text()
    found = doctor.examine(tmp_path / "manifest.csv").to_json()["videos"]
    assert found[0] == "4 of 4 were scanned"
    assert any(line.startswith("2 begin later than their file") and "3 s" in line for line in found)


def test_doctor_scans_the_smallest_and_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole.mp4", "whole.mkv"):
        _sounded(tmp_path / name, 0, is_silent=True)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    (tmp_path / "none.mp4").write_bytes(b"no video")
    shutil.copy(render(tmp_path, "mjpeg-avi"), tmp_path / "large.avi")
    names = ("whole.mp4", "whole.mkv", "cut.mkv", "none.mp4", "large.avi")
    manifest(tmp_path, [(name, "", "") for name in names])
    found = doctor.examine(tmp_path / "manifest.csv").to_json()["videos"]
    assert found[0] == "5 of 5 were scanned"
    assert len(found) == 3 and found[1].startswith("1 cannot be read, e.g. none.mp4: not a video file")
    assert found[2].startswith("1 end early, e.g. cut.mkv: the file ends at least")
    monkeypatch.setattr(doctor, "MOST_SCANNED_BYTES", len(data))
    assert doctor.examine(tmp_path / "manifest.csv").to_json()["videos"][0] == "2 of 5 were scanned, the smallest"
