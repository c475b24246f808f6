"""Videos that torchcodec decodes on a GPU: the frames are those that were asked for, or the clip fails with a reason.

Without torchcodec the decoder below stands in for it, made of PyAV; with it, its CPU half shows that frames are found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import CLIPS, render
from pipeline import copy_set, run, store_of

import reelbank.store
from reelbank.extract.errors import DecodeError, ExtractionError
from reelbank.extract.inputs import sources
from reelbank.extract.run import featurize as featurizing
from reelbank.extract.video import on_device
from reelbank.extract.video.decode import Video
from reelbank.extract.video.on_device import DeviceVideo, check_decoder
from reelbank.store.errors import SpecMismatch

NAMES = ("h264", "h264-edit-list", "h264-mkv-vfr", "h264-open-gop", "h264-rotated-90", "h264-rotated-180", "hevc")


class Decoder:
    """The part of torchcodec's VideoDecoder that is used; `shift` gives another frame than was asked for."""

    cpu_fallback: Any = False
    shift = 0
    error: Exception | None = None

    def __init__(self, path: str, *, stream_index: int, dimension_order: str, device: str) -> None:
        assert dimension_order == "NHWC"
        with Video(path) as video:
            self._frames = [frame.rgb for _, frame in video.frames(range(video.scan().num_frames))]
        with av.open(path) as container:
            stream = container.streams[stream_index]
            shown = [frame.pts for frame in container.decode(stream)]
            self._seconds = [float(pts * stream.time_base) for pts in shown]

    def get_frames_at(self, indices: list[int]) -> Any:
        if self.error is not None:
            raise self.error
        taken = [(i + self.shift) % len(self._frames) for i in indices]
        return SimpleNamespace(
            data=torch.from_numpy(np.stack([self._frames[i] for i in taken])),
            pts_seconds=torch.tensor([self._seconds[i] for i in taken], dtype=torch.float64),
        )


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Decoder]]:
    class Fresh(Decoder):
        pass

    package, module = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    module.VideoDecoder = Fresh  # type: ignore[attr-defined]
    package.decoders = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    yield Fresh


def _frames(path: Path, wanted: list[int]) -> dict[int, Any]:
    with DeviceVideo(path, device="cpu") as video:
        return {index: frame.rgb for index, frame in video.frames(wanted)}


def _assert_same_frames(path: Path) -> None:
    with Video(path) as video:
        wanted = list(range(0, video.scan().num_frames, 3))
        expected = {index: frame.rgb for index, frame in video.frames(wanted)}
    found = _frames(path, wanted)
    assert list(found) == list(expected)
    for index, pixels in found.items():
        np.testing.assert_array_equal(pixels, expected[index])


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_found_by_their_number(name: str, clip_folder: Path, decoder: type[Decoder]) -> None:
    _assert_same_frames(render(clip_folder, name))


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if clip.suffix in (".mp4", ".mkv", ".mov")])
def test_torchcodec_finds_the_same_frames(name: str, clip_folder: Path) -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"no torchcodec here: {str(error).splitlines()[0]}")
    path = render(clip_folder, name)
    with Video(path) as video:
        if video.scan().plan is None or "10bit" in name:  # another conversion to 8 bits
            pytest.skip("not decoded so, or not to the same pixels")
    if name == "h264-intra-refresh":  # no keyframe to seek to; it returns a later frame without a word
        with pytest.raises(DecodeError, match="the GPU's decoder gives a frame of"):
            _assert_same_frames(path)
    else:
        _assert_same_frames(path)


def test_another_frame_than_the_one_asked_for_is_an_error(clip_folder: Path, decoder: type[Decoder]) -> None:
    path = render(clip_folder, "h264")
    decoder.shift = 1
    with pytest.raises(
        DecodeError, match=r"frame 4: the GPU.s decoder gives a frame of 0\.2 s .* not of 0\.16 s"
    ) as caught:
        _frames(path, [4, 8])
    assert caught.value.frame_index == 4


@pytest.mark.parametrize(
    ("fallback", "error", "kind", "said"),
    [
        (True, None, DecodeError, "the GPU does not decode this h264; leave out --decode cuda"),
        (False, RuntimeError("Decoder failed\nmore"), DecodeError, "frame 4: the GPU's decoder: Decoder failed"),
        (False, RuntimeError("CUDA out of memory"), ExtractionError, "no memory on cpu .* fewer --workers"),
    ],
)
def test_decoder_that_cannot_says_so(
    fallback: bool, error: Exception | None, kind: type[Exception], said: str, clip_folder: Path, decoder: type[Decoder]
) -> None:
    decoder.cpu_fallback, decoder.error = fallback, error
    with pytest.raises(kind, match=said):
        _frames(render(clip_folder, "h264"), [4])


def test_video_without_an_index_is_refused(clip_folder: Path, decoder: type[Decoder]) -> None:
    with pytest.raises(DecodeError, match="only be told apart by decoding it from the start; leave out --decode cuda"):
        _frames(render(clip_folder, "h264-avi"), [4])


def test_pictures_are_read_as_ever(tmp_path: Path, decoder: type[Decoder]) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "a.png")
    assert _frames(tmp_path / "a.png", [0])[0].mean() == 90


def test_store_of_a_gpu_decoder_is_one_of_its_own(
    synth_set: Path, tmp_path: Path, decoder: type[Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is this process; the decoder gives FFmpeg's pixels, so the features must be equal."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 3))
    options: dict[str, Any] = {"model": ("frames:112",), "workers": 1}
    run(folder, **options)
    before = reelbank.store.open(store_of(folder, "frames:112"))
    assert before.spec.decoder is None

    with pytest.raises(ExtractionError, match=r"--decode cuda: this run is on cpu; it needs a GPU"):
        run(folder, **options, decode="cuda", out=str(folder / "gpu.zarr"))
    assert not (folder / "gpu.zarr").exists()

    opened: list[str | None] = []
    monkeypatch.setattr(featurizing, "check_decoder", lambda device: opened.append(device))
    with pytest.raises(SpecMismatch, match=r"decoder: stored None, asked 'torchcodec-cuda'"):
        run(folder, **options, decode="cuda")
    assert opened == ["cpu"]


def test_every_source_but_video_is_read_as_ever(tmp_path: Path) -> None:
    from reelbank.extract.video.opening import Limits
    from reelbank.manifests import Clip

    clip = Clip(clip_id="a", video="a.mp4", split="train")
    for column in ("a.mp4", "x.mp4", "y.mp4"):
        (tmp_path / column).touch()
    limits = Limits()
    opened = sources.open_source("video", (tmp_path / "a.mp4",), clip, limits, device="cuda:0")
    assert isinstance(opened, DeviceVideo)
    assert not isinstance(sources.open_source("video", (tmp_path / "a.mp4",), clip, limits), DeviceVideo)
    sources.open_source("flow", (tmp_path / "x.mp4", tmp_path / "y.mp4"), clip, limits, device="cuda:0")


def test_what_is_missing_for_a_gpu_decoder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExtractionError, match="this run is on cpu"):
        check_decoder("cpu")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(
        ExtractionError, match=r"needs torchcodec with CUDA and FFmpeg's shared libraries .*pip install"
    ):
        check_decoder("cuda:0")


@pytest.mark.parametrize(("cores", "remote", "workers"), [(2, False, 2), (16, True, 4), (4, True, 3), (16, False, 4)])
def test_decoders_of_a_gpu_are_few(cores: int, remote: bool, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurizing, "available_cores", lambda: cores)
    assert featurizing.default_workers(remote, "cuda:0") == workers
    assert on_device.WORKERS == 4
