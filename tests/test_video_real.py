"""Real clips (REELBANK_DATA): every one decodes exactly, or says why not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs import frame_choice, sampling
from reelbank.extract.inputs.preprocess import Preprocess, make
from reelbank.extract.video import plan
from reelbank.extract.video.decode import Video

# The index counts the first video stream of these; FFmpeg's best stream is another one.
FIRST_STREAM_COUNTED = {"torchcodec/nasa_13013.mp4"}


def rows(data_root: Path) -> list[dict[str, str]]:
    with (data_root / "clips" / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_clip_equals_full_decode_or_gives_reason(data_root: Path) -> None:
    refused = []
    for row in rows(data_root):
        path = data_root / "clips" / row["file"]
        stream_index = 0 if row["file"] in FIRST_STREAM_COUNTED else None
        with Video(path, stream_index=stream_index) as video:
            scan = video.scan()
            wanted = np.unique(np.linspace(0, scan.num_frames - 1, 9).astype(np.int64)).tolist()
            try:
                scan.check_complete(0, scan.num_frames)
                found = {index: frame.rgb for index, frame in video.frames(wanted)}
            except DecodeError as error:
                refused.append((row["file"], error.reason))
                continue
            assert (video.cost.fallbacks, video.cost.errors) == (0, 0), row["file"]
        assert scan.broken is None, row["file"]
        assert scan.num_frames == int(row["frames_decoded"]), row["file"]
        assert scan.rotation_degrees % 360 == int(row["rotation"]) % 360, row["file"]
        # The table has what the container says; a clip with a gap shows fewer.
        mean = (scan.num_frames - 1) / scan.times_seconds[-1] if scan.num_frames > 1 else float(row["fps"])
        assert float(scan.rate_fps) == pytest.approx(mean, rel=2e-3), row["file"]
        assert float(scan.rate_fps) <= float(row["fps"]) * 1.001, row["file"]
        emitted, last = [], -1
        with av.open(str(path)) as container:
            stream = container.streams.video[0] if stream_index == 0 else container.streams.best("video")
            stream.thread_type = "NONE"
            for last, frame in enumerate(container.decode(stream)):
                emitted.append(frame.pts)
                assert not frame.is_corrupt, row["file"]
                if last in found:
                    expected = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    np.testing.assert_array_equal(found[last], expected, err_msg=f"{row['file']} {last}")
        assert scan.num_frames == last + 1
        if scan.plan is not None:
            np.testing.assert_array_equal(scan.plan.pts[scan.plan.position_of], emitted)
    assert [name for name, _ in refused] == ["decord/corrupted.mp4"]
    assert re.search(r"frames before it are missing, at \d.* s: \[h264\]", refused[0][1])


def test_hmdb51_header_lies_about_count(data_root: Path) -> None:
    scan = plan.scan(data_root / "clips" / "hmdb51" / "April_09_brush_hair_u_nm_np1_ba_goo_0.avi")
    assert (scan.num_frames, scan.plan, scan.broken) == (408, None, None)
    np.testing.assert_allclose(scan.times_seconds, np.arange(408) / 30)
    assert scan.duration_seconds == pytest.approx(408 / 30)


def test_labelled_clips_are_all_planned_and_whole(data_root: Path) -> None:
    with (data_root / "fight_surv" / "index.csv").open(newline="") as file:
        files = sorted((data_root / "fight_surv").rglob("*.mp4"))
        assert len(files) == len(list(csv.DictReader(file)))
    for path in files:
        scan = plan.scan(path)
        assert scan.plan is not None
        assert scan.broken is None


def test_reference_frames_are_equal(data_root: Path) -> None:
    """Frames of torchcodec, decoded by another FFmpeg: zero tolerance."""
    folder, compared = data_root / "reference" / "torchcodec", 0
    by_stream: dict[tuple[str, int], dict[int, Path]] = {}
    for path in folder.glob("*.pt"):
        match = re.fullmatch(r"(.+)\.stream(\d+)\.frame(\d+)\.pt", path.name)
        if match:
            by_stream.setdefault((match[1], int(match[2])), {})[int(match[3])] = path
    for (name, stream_index), files in by_stream.items():
        with Video(data_root / "clips" / "torchcodec" / name, stream_index=stream_index) as video:
            for index, frame in video.frames(sorted(files)):
                file = files[index]
                if file.stat().st_size < 100:  # a link that a checkout turned into a text file
                    file = folder / file.read_text().strip()
                expected = torch.load(file, weights_only=True).numpy()
                expected = expected if expected.shape[-1] == 3 else expected.transpose(1, 2, 0)
                np.testing.assert_array_equal(frame.rgb, expected, err_msg=files[index].name)
                compared += 1
    assert compared >= 30


@pytest.mark.parametrize("stream_index", [0, 3])
def test_reference_timestamps_are_equal(stream_index: int, data_root: Path) -> None:
    folder = data_root / "clips" / "torchcodec"
    infos = json.loads((folder / f"nasa_13013.mp4.stream{stream_index}.all_frames_info.json").read_text())
    expected = np.asarray([float(info["pts_time"]) for info in infos])
    scan = plan.scan(folder / "nasa_13013.mp4", stream_index=stream_index)
    np.testing.assert_array_equal(np.round(scan.times_seconds, 6), expected - expected[0])


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        ("all", "clip__v_GGSY1Qvo990_ViT-B_32_1_None"),
        ("fps:1", "resnet__v_GGSY1Qvo990_resnet101_1_1"),
        ("fps:3", "pwc__v_GGSY1Qvo990_112_3"),
        ("fps:5", "clip__v_GGSY1Qvo990_ViT-B_32_1_5"),
    ],
)
def test_sampled_times_agree_with_another_extractor(rule: str, reference: str, data_root: Path) -> None:
    """video_features resamples to F frames/s and writes k / F; we take the frame nearest to k / F, and its time."""
    with np.load(data_root / "reference" / "video_features" / f"{reference}_timestamps_ms.npz") as file:
        expected = file[file.files[0]] / 1000
    scan = plan.scan(data_root / "clips" / "video_features" / "v_GGSY1Qvo990.mp4")
    times = scan.times_seconds
    options = {"clip_id": "a", "seed": 0, "past_end": "repeat"}
    choice = frame_choice.choose(sampling.parse(rule), times, scan.duration_seconds, **options)
    found = times[choice.frame_index]
    assert found.shape == expected.shape
    half_frame_seconds = 0 if rule == "all" else 0.5 / float(scan.rate_fps)
    assert np.abs(found - expected).max() <= half_frame_seconds + 1e-6


def test_fast_resize_is_near_exact(data_root: Path) -> None:
    """Mean distance in levels: 0.35 to 0.63 over real frames, 1.0 over a title with hard edges."""
    for name in ("mmaction2/demo_demo_skeleton.mp4", "torchcodec/nasa_13013.mp4", "decord/video_90.mov"):
        with Video(data_root / "clips" / name) as video:
            for _, frame in video.frames([0, 2]):
                preprocess = Preprocess(short_side_px=256, crop_px=224)
                exact = make(preprocess)(frame).astype(int)
                assert np.abs(make(preprocess, "fast")(frame) - exact).mean() < 1.2, name


def test_fast_resize_keeps_range_and_matrix(data_root: Path) -> None:
    """A test picture of flat colours in full-range BT.709: all but the edges are equal."""
    with Video(data_root / "clips" / "torchcodec" / "bt709_full_range.mp4") as video:
        ((_, frame),) = video.frames([5])
        exact, fast = (make(Preprocess(short_side_px=256), resize)(frame).astype(int) for resize in ("exact", "fast"))
    assert np.percentile(np.abs(fast - exact), 75) == 0


def test_exact_resize_of_real_frames_is_pil_within_one_level(data_root: Path) -> None:
    """torch's (and so torchvision's) bicubic is two levels off PIL in about three values of a million."""
    from PIL import Image

    for name in ("mmaction2/demo_demo.mp4", "torchcodec/nasa_13013.mp4", "hmdb51/stabilized_climb_stairs_med_1.avi"):
        with Video(data_root / "clips" / name) as video:
            for _, frame in video.frames([0, 40, 73]):
                found = make(Preprocess(short_side_px=256))(frame).astype(int)
                image = Image.fromarray(frame.rgb).resize(found.shape[1::-1], Image.Resampling.BICUBIC)
                distance = np.abs(found - np.asarray(image))
                assert distance.max() <= 2, name
                assert (distance > 1).mean() <= 1e-5, name
