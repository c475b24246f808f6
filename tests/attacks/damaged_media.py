"""Damaged and cut videos and pictures: a failed row with its reason, or the pixels of the intact file.

Each attempt damages one file and hands it to a worker of `featurize`, in a process that may die. What comes back is
laid beside the intact file and beside what a decoder of its own reports about the damaged one.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
from av.codec.context import Flags
from clips import CLIPS, MORE_CLIPS, picture, render
from PIL import Image

from attacks import Tried

COUNT = 1000
CUTS = 50
"""Of each container."""
MODEL = "frames:112"
SAMPLINGS = {"mutant": "uniform:4", "cut": "all"}
DEADLINE_SECONDS = 60
REAL_SUFFIXES = (".avi", ".gif", ".jpeg", ".jpg", ".mkv", ".mov", ".mp4", ".png", ".ts", ".webm")
REAL_FILES, REAL_BYTES = 40, 1 << 20

CUT_CLIPS = (
    *("apng", "av1-mp4", "av1-obu", "dv", "ffv1-nut", "flv1-flv", "gif", "h264", "h264-3gp", "h264-avi"),
    *("h264-faststart", "h264-flv", "h264-fragmented", "h264-m2ts", "h264-mkv", "h264-mov", "h264-raw", "h264-ts"),
    *("h264-ts-sound", "hevc-mkv", "hevc-raw", "hevc-ts", "mjpeg-avi", "mjpeg-mov", "mjpeg-raw", "mpeg1-ps"),
    *("mpeg2-mxf", "mpeg2-raw", "mpeg2-ts", "mpeg2-vob", "mpeg2-wtv", "mpeg4-avi-b", "mpeg4-mp4-b", "mpeg4-raw"),
    *("rv20-rm", "vp8-altref", "vp8-ivf", "vp8-ogg", "vp9", "wmv2-asf", "y4m"),
)
SHOWN_LATE = 5
"""The most pictures of a rendered clip that are decoded before one that is shown earlier."""
PICTURES = ("bmp", "jpeg", "pgm", "png", "ppm", "tiff", "webp")


# -- what is damaged, and how ----------------------------------------------------------------------------


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _zero(data: bytearray, draw: random.Random) -> None:
    at, size = _place(data, draw), _size(draw)
    data[at : at + size] = bytes(len(data[at : at + size]))


def _replace(data: bytearray, draw: random.Random) -> None:
    at, size = _place(data, draw), _size(draw)
    data[at : at + size] = draw.randbytes(len(data[at : at + size]))


def _remove(data: bytearray, draw: random.Random) -> None:
    at = _place(data, draw)
    del data[at : at + _size(draw)]


def _insert(data: bytearray, draw: random.Random) -> None:
    at = _place(data, draw)
    data[at:at] = draw.randbytes(_size(draw))


WAYS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bits flipped": _flip, "bytes inserted": _insert, "bytes removed": _remove, "bytes replaced": _replace,
    "bytes zeroed": _zero,
}  # fmt: skip


def _place(data: bytearray, draw: random.Random) -> int:
    """Anywhere, and one time in four near the beginning, where the headers are."""
    return draw.randrange(min(len(data), 1024) if draw.random() < 0.25 else len(data))


def _size(draw: random.Random) -> int:
    return draw.choice((1, 4, 16, 64, 188, 512, 2048))


def render_picture(folder: Path, suffix: str) -> Path:
    """A picture with EXIF data, where its format has them."""
    path = folder / f"picture.{suffix}"
    image = Image.fromarray(np.tile(picture(7, 96, 64), (1, 1, 1)))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    image = image.convert("L") if suffix == "pgm" else image
    image.save(path, **({"exif": exif.tobytes()} if suffix in ("jpeg", "png", "webp") else {}))
    return path


def sources(folder: Path, draw: random.Random) -> list[Path]:
    """Every rendered clip and picture, and as many small real files as there should be."""
    found = [render(folder, name) for name in (*CLIPS, *MORE_CLIPS)]
    found += [render_picture(folder, suffix) for suffix in PICTURES]
    root = os.environ.get("REELBANK_DATA", "")
    real = sorted(Path(root).rglob("*")) if root else []
    real = [p for p in real if p.suffix.lower() in REAL_SUFFIXES and p.stat().st_size <= REAL_BYTES]
    return found + draw.sample(real, min(REAL_FILES, len(real)))


# -- what is made of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a worker made of one file.

    Attributes:
        reason: why it failed; empty for a done one.
        steps: (T, ...) features.
        frames: (T,) frame of each step.
        seconds: (T,) its time.
        end_known: of the ledger.
    """

    reason: str = ""
    steps: Any = None
    frames: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    end_known: bool = True


class _Messages(list[Any]):
    """Stands for the pipe to the parent."""

    def send(self, message: Any) -> None:
        self.append(message)


class OneWorker:
    """A worker of `featurize` with one model, in this process; it stages what it makes."""

    def __init__(self, folder: Path, sampling: str) -> None:
        from reelbank.extract import FeaturizeConfig
        from reelbank.extract.run import todo
        from reelbank.extract.run.messages import WorkerSetup
        from reelbank.extract.run.worker import Worker

        store = folder / f"{sampling.replace(':', '-')}-{os.getpid()}.zarr"
        config = FeaturizeConfig(model=(MODEL,), sampling=(sampling,), out=str(store), device="cpu", batch=4)
        self.job, self.messages = todo.make_job(config, MODEL, folder), _Messages()
        self.worker = Worker(self.messages, WorkerSetup(models=(self.job,), max_pixels=2**26))

    def __call__(self, path: Path) -> Result:
        """What it makes of one file. Raises what would end a run."""
        from reelbank.extract.run.messages import ClipJob, Finished
        from reelbank.manifests import Clip
        from reelbank.store.staging import staged_features

        self.messages.clear()
        clip = Clip(clip_id="a", video=str(path))
        self.worker.take(ClipJob(index=0, clip=clip, paths={"video": (path,)}, rows=((0, 0),)))
        self.worker.drain()
        (outcome,) = (message.outcome for message in self.messages if isinstance(message, Finished))
        if "reason" in outcome.ledger:
            return Result(reason=outcome.ledger["reason"])
        steps = np.array(staged_features(self.job.store, 0, self.job.spec.taps[0], 0))
        end_known = bool(outcome.ledger.get("end_known", 1))
        return Result("", steps, outcome.frame_index, outcome.step_seconds, end_known)


def serve(connection: Any, folder: Path) -> None:
    """The process's main function: (sampling, path) in, `Result` or the text of what would end a run out."""
    warnings.simplefilter("ignore")
    workers = {kind: OneWorker(folder, sampling) for kind, sampling in SAMPLINGS.items()}
    while (asked := connection.recv()) is not None:
        kind, path = asked
        try:
            connection.send(workers[kind](path))
        except BaseException as error:  # noqa: BLE001  # any of them would have ended the run
            connection.send(f"{type(error).__name__}: {error}")
            return


class Runner:
    """A worker in a process of its own, started again when it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, None
        self._context = multiprocessing.get_context("spawn")

    def __call__(self, kind: str, path: Path) -> Result | str:
        """What became of a file; a death is what the pool makes of it, a failed row, and a text ends the run."""
        if self._process is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=serve, args=(theirs, self._folder), daemon=True)
            self._process.start()
            theirs.close()
        self._connection.send((kind, path))
        try:
            if self._connection.poll(DEADLINE_SECONDS):
                found: Result | str = self._connection.recv()
            else:
                self.close()
                return Result(reason="deadline")
        except EOFError:
            self.close()
            return Result(reason="crashed")
        if isinstance(found, str):
            self.close()
        return found

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


# -- what a decoder says of it ---------------------------------------------------------------------------


def reported(path: Path) -> set[int] | None:
    """Frames (in the order of emission) for which FFmpeg reports errors, or for what they may be decoded from.

    That is everything from the key frame on but pictures that no other refers to, which a second pass leaves out, and
    those that are shown before the key frame, which only others of their kind may refer to.
    None where it does not open the file at all. This knows nothing of how reelbank reads.
    """
    av.logging.set_level(av.logging.PANIC)
    try:
        of_all, keys, frames, stamps = _errors(path, "DEFAULT")
        # What only this pass reports is of its own making: with pictures left out a decoder may miss one.
        of_references = _errors(path, "NONREF")[0] & of_all
    except (av.FFmpegError, OSError, ValueError):
        return None
    finally:
        av.logging.set_level(None)
    bad = set()
    for index, place in enumerate(frames):
        start = max(key for key in keys if key <= place)
        needed = {number for number in of_references if start <= number <= place}
        if not _is_earlier(stamps, place, start):
            needed = {number for number in needed if not _is_earlier(stamps, number, start)}
        if place in of_all or needed:
            bad.add(index)
    return bad


def _is_earlier(stamps: Sequence[int | None], number: int, start: int) -> bool:
    """Whether a packet is shown before a key frame, as far as there are times."""
    if start < 0 or number >= len(stamps):
        return False
    one, key = stamps[number], stamps[start]
    return one is not None and key is not None and one < key


def _errors(path: Path, skip: str) -> tuple[set[int], list[int], list[int], list[int | None]]:
    """Packets with errors, packets that are key frames, the packet of each frame, and times, from one decoding."""
    from reelbank.extract.video.opening import text_options

    errors, keys, frames, stamps, number = set(), [-1], [], [], 0
    with av.open(str(path), **text_options(av.__version__)) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise ValueError("no video")
        stream.thread_type, context = "NONE", stream.codec_context
        context.thread_count, context.flags, context.skip_frame = 1, context.flags | Flags.copy_opaque, skip
        count, packets = av.logging.get_last_error()[0], container.demux(stream)
        while (packet := _next_packet(packets)) is not None:
            packet.opaque = (number,)
            stamps.append(packet.pts)
            keys += [number] if packet.is_keyframe else []
            errors |= {number} if packet.is_corrupt else set()
            try:
                for frame in stream.decode(packet):
                    frames.append(frame.opaque[0] if frame.opaque else number)
                    errors |= {frames[-1]} if frame.is_corrupt else set()
            except av.FFmpegError:
                errors.add(number)
            now = av.logging.get_last_error()[0]
            errors |= {number} if now != count else set()
            count, number = now, number + 1
    return errors, keys, frames, stamps


def _next_packet(packets: Iterator[Any]) -> Any:
    try:
        return next(packets, None)
    except av.FFmpegError:
        return None


# -- verdicts --------------------------------------------------------------------------------------------


def is_same(found: Result, intact: Result) -> bool:
    """Whether a file gives the pixels and times of the intact one."""
    return np.array_equal(found.steps, intact.steps) and np.allclose(found.seconds, intact.seconds, atol=1e-6)


def judge_mutant(found: Result | str, intact: Result, path: Path) -> tuple[str, str]:
    """(how it ended, what did not hold or '')."""
    if isinstance(found, str):
        return "ended the run", f"ends the run: {found}"
    if found.reason:
        return "failed with a reason", ""
    if is_same(found, intact):
        return "same pixels", ""
    changed = [
        step
        for step in range(len(found.frames))
        if step >= len(intact.frames) or not np.array_equal(found.steps[step], intact.steps[step])
    ]
    bad = reported(path)
    if silent := sorted({found.frames[step] for step in changed} & (bad or set())):
        return "silent", f"done with other pixels at frames {silent}, of which FFmpeg reports errors"
    return "other pixels or times of which FFmpeg says nothing", ""


def judge_cut(found: Result | str, intact: Result) -> tuple[str, str]:
    """(how it ended, what did not hold or '')."""
    if isinstance(found, str):
        return "ended the run", f"ends the run: {found}"
    if found.reason:
        return "refused", ""
    if is_same(found, intact):
        return "whole", ""
    count = len(found.frames)
    if found.end_known or count > len(intact.frames):
        return "silently other", f"done with {count} of {len(intact.frames)} frames"
    if not _is_beginning(found, intact):
        return "silently other", f"done with {count} frames that are not the first of the intact file"
    return "shorter, with the note that its end is not known", ""


def _is_beginning(found: Result, intact: Result) -> bool:
    """Whether frames are the first of the intact file; pictures that are shown late may be missing among the last."""
    sure = max(len(found.frames) - SHOWN_LATE, 0)
    if not np.array_equal(found.steps[:sure], intact.steps[:sure]):
        return False
    rest = iter(intact.steps[sure:])
    return all(any(np.array_equal(step, other) for other in rest) for step in found.steps[sure:])


def try_mutants(count: int, seed: int, folder: Path, files: Sequence[Path] | None = None) -> Tried:
    """Damages `count` files, drawn from all there are."""
    draw, runner = random.Random(seed), Runner(folder)
    files = files or sources(folder, draw)
    intact: dict[Path, Result] = {}
    ends: Counter[str] = Counter()
    not_held = []
    try:
        for number in range(count):
            own = random.Random(f"{seed} {number}")  # an attempt is the same whatever came before it
            source = files[number % len(files)] if count >= len(files) else draw.choice(files)
            if source not in intact:
                first = runner("mutant", source)
                intact[source] = first if isinstance(first, Result) else Result(reason=first)
            if intact[source].reason:
                ends["intact file that is refused"] += 1
                if source.is_relative_to(folder):
                    not_held.append(f"{source.name}, intact: {intact[source].reason}")
                continue
            way = own.choice(sorted(WAYS))
            data = bytearray(source.read_bytes())
            WAYS[way](data, own)
            path = folder / f"mutant{source.suffix}"
            path.write_bytes(data)
            end, wrong = judge_mutant(runner("mutant", path), intact[source], path)
            ends[end] += 1
            if wrong:
                not_held.append(f"{source.name}, {way} (attempt {number} of seed {seed}): {wrong}")
    finally:
        runner.close()
    return Tried(kind="mutants", tried=count, not_held=tuple(not_held), facts=dict(ends))


def try_cuts(source: Path, count: int, seed: int, folder: Path, runner: Runner) -> Tried:
    """Cuts one file at `count` random places."""
    data, draw = source.read_bytes(), random.Random(f"{source.name} {seed}")
    intact = runner("cut", source)
    assert isinstance(intact, Result) and not intact.reason, intact
    ends: Counter[str] = Counter()
    not_held = []
    for at in sorted(draw.sample(range(1, len(data)), min(count, len(data) - 1))):
        path = folder / f"cut{source.suffix}"
        path.write_bytes(data[:at])
        end, wrong = judge_cut(runner("cut", path), intact)
        ends[end] += 1
        if wrong:
            not_held.append(f"{source.name} cut to {at} of {len(data)} bytes (seed {seed}): {wrong}")
    return Tried(kind=f"cuts of {source.name}", tried=sum(ends.values()), not_held=tuple(not_held), facts=dict(ends))


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` mutants, and of each container and picture format as many cuts as a twentieth of that."""
    with tempfile.TemporaryDirectory(prefix="damaged-media-") as name:
        folder = Path(name)
        yield try_mutants(count, seed, folder)
        runner = Runner(folder)
        cut = [*(render(folder, clip) for clip in CUT_CLIPS), *(render_picture(folder, one) for one in PICTURES)]
        try:
            for source in cut:
                yield try_cuts(source, max(1, count * CUTS // COUNT), seed, folder, runner)
        finally:
            runner.close()
