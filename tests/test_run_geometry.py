"""What a store says of pictures that change their size, of pixels that are not square, and of HDR."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import CLIPS, Clip, picture, write
from numpy.typing import NDArray
from PIL import Image
from pipeline import run, store_of

import reelbank.store
from reelbank.extract.inputs.preprocess import Preprocess, common_box, make, thumbnail
from reelbank.extract.run.repeating import retry_config
from reelbank.extract.video.decode import Video
from reelbank.extract.video.opening import Limits
from reelbank.store.errors import SpecMismatch

MODEL = "frames:256"
_PAL = Fraction(64, 45)


def _featurized(folder: Path, *names: str, **options: Any) -> tuple[Any, str]:
    """The store of some videos of `folder`, and the last lines of the run."""
    rate = ",rate_fps" if any((folder / name).is_dir() for name in names) else ""
    rows = [f"{Path(name).stem},{name},train,a{',5' if rate else ''}" for name in names]
    (folder / "manifest.csv").write_text("\n".join([f"clip_id,video,split,label{rate}", *rows]) + "\n")
    report = run(folder, model=(MODEL,), workers=1, **options)
    assert not report.has_failures, report.failures_by_reason()
    return reelbank.store.open(store_of(folder, MODEL)), report.text()


def _clip(path: Path, **more: Any) -> Path:
    write(path, Clip(suffix=path.suffix, num_frames=6, options=CLIPS["h264"].options, **more))
    return path


def _assert_box_holds_picture(features: NDArray[np.uint8], box: NDArray[np.int64]) -> None:
    """In every step, and nothing that all steps hold is left out."""
    top, left, height, width = box.tolist()
    held = (features.max((-1,)) > 20).all(0)
    assert held[top : top + height, left : left + width].all()
    outside = held.copy()
    outside[top : top + height, left : left + width] = False
    assert not outside.any()


def test_frame_box_holds_picture_in_every_step(tmp_path: Path) -> None:
    for folder, sizes in (("changing", [(160, 80), (160, 80), (80, 80)]), ("steady", [(160, 80)] * 3)):
        (tmp_path / folder).mkdir()
        for number, (width, height) in enumerate(sizes):
            Image.new("RGB", (width, height), (200, 180, 160)).save(tmp_path / folder / f"{number}.png")
    store, text = _featurized(tmp_path, "changing", "steady", sampling=("all",))
    boxes = store.clips.frame_box
    assert store.clips.num_frame_sizes.tolist() == [2, 1]
    assert boxes[1].tolist() == [0, 0, 256, 341]
    assert boxes[0].tolist() == [0, 42, 256, 256]
    for clip in range(2):
        _assert_box_holds_picture(store.read("rgb", clip)[0], boxes[clip])
    assert "1 whose pictures change their size; clips/frame_box is what holds picture in every step" in text


def test_box_is_that_of_the_frames_that_are_read(tmp_path: Path) -> None:
    """Not of the first frame of the file."""
    (tmp_path / "a").mkdir()
    for number, size in enumerate([(160, 80), (80, 80), (80, 80)]):
        Image.new("RGB", size, (200, 180, 160)).save(tmp_path / "a" / f"{number}.png")
    store, text = _featurized(tmp_path, "a", sampling=("position:1",))
    assert (store.clips.num_frame_sizes[0], store.clips.frame_box[0].tolist()) == (1, [0, 42, 256, 256])
    assert "change their size" not in text


def test_size_that_changes_in_a_video(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "a.mp4").symlink_to(data_root / "faults" / "size-change-frame-box" / "fate_multi_stsd.mp4")
    store, text = _featurized(tmp_path, "a.mp4", sampling=("all",))
    assert store.clips.num_frame_sizes[0] == 2
    assert store.clips.frame_box[0].tolist() == [0, 42, 256, 256]
    assert "1 whose pictures change their size" in text


@pytest.mark.parametrize(
    ("preprocess", "sizes", "box"),
    [
        (Preprocess(fit_px=(256, 341)), [(100, 200), (100, 100)], (42, 42, 171, 256)),
        (Preprocess(fit_px=(256, 341)), [(100, 200)], (42, 0, 171, 341)),
        (Preprocess(short_side_px=256, crop_px=224), [(100, 200), (300, 100)], (0, 0, 224, 224)),
        (Preprocess(squash_px=224), [(100, 200), (7, 9)], (0, 0, 224, 224)),
    ],
)
def test_common_box(preprocess: Preprocess, sizes: list[tuple[int, int]], box: tuple[int, ...]) -> None:
    found = common_box(preprocess, sizes)
    assert abs(np.subtract(found, box)).max() <= 1
    if len(sizes) == 1:
        assert found == preprocess.valid_box(*sizes[0])


@pytest.mark.parametrize(
    ("name", "clip", "aspect", "shown"),
    [
        ("wide.mp4", {"pixel_aspect": _PAL}, _PAL, (64, 137)),
        ("wide.mkv", {"pixel_aspect": _PAL}, _PAL, (64, 137)),
        ("narrow.mp4", {"pixel_aspect": Fraction(2, 3)}, Fraction(2, 3), (96, 96)),
        ("turned.mp4", {"pixel_aspect": Fraction(3, 2), "rotation_degrees": 90}, Fraction(2, 3), (144, 64)),
        ("matrix.mp4", {"display_matrix": (2 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)}, Fraction(2), (64, 192)),
        ("square.mp4", {}, Fraction(1), (64, 96)),
        ("wide.mpg", {"pixel_aspect": Fraction(32, 27), "codec": "mpeg2video"}, Fraction(32, 27), (64, 114)),
        ("wide.ts", {"pixel_aspect": _PAL}, _PAL, (64, 137)),
        ("wide.avi", {"pixel_aspect": _PAL, "codec": "mpeg4"}, _PAL, (64, 137)),
    ],
)
def test_square_pixels_are_what_players_show(
    name: str, clip: dict[str, Any], aspect: Fraction, shown: tuple[int, int], tmp_path: Path
) -> None:
    path = _clip(tmp_path / name, **clip)
    for square in (False, True):
        with Video(path, square_pixels=square) as video:
            scan = video.scan()
            assert float(scan.pixel_aspect) == pytest.approx(float(aspect), rel=0.01)
            for _, frame in video.frames([0, 5]):
                stored = (scan.height_px, scan.width_px)
                assert (frame.height_px, frame.width_px) == frame.rgb.shape[:2] == (shown if square else stored)
                found = make(Preprocess(short_side_px=32), "fast")(frame)
                assert found.shape[:2] == Preprocess(short_side_px=32).resized_size(*frame.rgb.shape[:2])
                assert np.abs(found.astype(int) - make(Preprocess(short_side_px=32))(frame)).mean() < 6
                lit = np.flatnonzero(thumbnail(frame).any((0, 2))), np.flatnonzero(thumbnail(frame).any((1, 2)))
                ratio = len(lit[0]) / len(lit[1])
                assert ratio == pytest.approx(frame.width_px / frame.height_px, rel=0.06)


def test_square_pixels_equal_the_scale_filter(tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4", pixel_aspect=_PAL)
    with av.open(str(path)) as container:
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=container.streams.video[0])]
        nodes += [graph.add("scale", "137:64"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        graph.push(next(container.decode(video=0)))
        expected = graph.pull().to_ndarray(format="rgb24")
    with Video(path, square_pixels=True) as video:
        ((_, frame),) = video.frames([0])
    assert frame.rgb.shape == expected.shape
    assert np.abs(frame.rgb.astype(int) - expected).mean() < 4


def test_frames_are_limited_as_they_are_shown(tmp_path: Path) -> None:
    path = _clip(tmp_path / "a.mp4", pixel_aspect=Fraction(4))
    with (
        Video(path, square_pixels=True, limits=Limits(frame_px=96 * 64 * 3)) as video,
        pytest.raises(ValueError, match="a frame of 384 x 64 px is above the limit"),
    ):
        list(video.frames([0]))


def test_pixels_that_are_not_square_are_said_and_stored(tmp_path: Path) -> None:
    _clip(tmp_path / "a.mp4", pixel_aspect=_PAL)
    _clip(tmp_path / "b.mp4")
    Image.fromarray(picture(1, 96, 64)).save(tmp_path / "c.png")
    store, text = _featurized(tmp_path, "a.mp4", "b.mp4", "c.png")
    np.testing.assert_allclose(store.clips.pixel_aspect, [64 / 45, 1, np.nan], rtol=1e-6)
    assert store.clips.transfer.tolist() == ["sdr", "sdr", ""]
    assert text.count("1 of videos whose pixels are not square, read as they are stored; --square-pixels") == 1
    assert store.spec.square_pixels is None
    assert "square_pixels" not in str([name for name, value in store.spec.to_json().items() if value is not None])
    assert store.clips.frame_box[0].tolist() == [0, 0, 256, 341]


def test_square_pixels_are_a_spec_of_their_own(tmp_path: Path) -> None:
    _clip(tmp_path / "a.mp4", pixel_aspect=Fraction(3, 4))
    plain, _ = _featurized(tmp_path, "a.mp4")
    with pytest.raises(SpecMismatch, match="square_pixels: stored None, asked True"):
        run(tmp_path, model=(MODEL,), square_pixels=True)
    store, text = _featurized(tmp_path, "a.mp4", square_pixels=True, out=str(tmp_path / "square.zarr"))
    store = reelbank.store.open(tmp_path / "square.zarr")
    assert (store.spec.square_pixels, plain.spec.square_pixels) == (True, None)
    assert store.spec.digest != plain.spec.digest
    assert reelbank.store.open(tmp_path / "square.zarr").spec == type(store.spec).from_json(store.spec.to_json())
    assert "not square" not in text
    assert plain.clips.frame_box[0].tolist() == [0, 0, 256, 341]
    box = store.clips.frame_box[0].tolist()
    assert (box[0], box[2]) == (0, 256)
    assert box[3] == pytest.approx(256 * 96 / (64 * 4 / 3), abs=1)
    store_path = tmp_path / "square.zarr"
    (tmp_path / "broken.mp4").write_bytes(b"")
    with (tmp_path / "manifest.csv").open("a") as table:
        table.write("broken,broken.mp4,train,a\n")
    run(tmp_path, model=(MODEL,), square_pixels=True, out=str(store_path))
    again = retry_config(store_path, manifest=tmp_path / "manifest.csv")
    assert again is not None
    assert again.square_pixels


def test_square_pixels_without_a_model_that_reads_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("clip_id,video,split,label,annotations\na,,train,a,a.json\n")
    with pytest.raises(ValueError, match="--square-pixels: none of the models reads videos"):
        run(tmp_path, model=("pose",), square_pixels=True)


@pytest.mark.parametrize(("number", "name"), [(16, "pq"), (18, "hlg"), (1, "sdr")])
def test_light_of_hdr_is_said_and_stored(number: int, name: str, tmp_path: Path) -> None:
    _clip(tmp_path / "a.mp4", color_trc=number, pix_fmt="yuv420p10le")
    store, text = _featurized(tmp_path, "a.mp4")
    assert store.clips.transfer.tolist() == [name]
    assert ("1 of HDR videos (PQ or HLG), read without tone mapping" in text) == (name != "sdr")
