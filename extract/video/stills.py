"""Frame folders, still images and files of several behind the interface of videos.

libjpeg conceals damage as FFmpeg does, and Pillow does not pass its warnings on. So FFmpeg's decoder reads a JPEG
first, at an eighth of its size, for nothing but its reports: it has none on 686 intact real pictures. The checksums of
a PNG are compared here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from reelbank.extract.errors import DecodeError
from reelbank.extract.video.damage import Reports, listening
from reelbank.extract.video.frame import Frame, Pixels, frame_of_rgb
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.scan import Seconds, VideoScan
from reelbank.extract.video.timeline import mean_rate
from reelbank.manifests.files import kind_of, regular

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What browsers, and FFmpeg with GIF, make of a picture that is shown for no time.
SHORTEST_MS, UNTIMED_SECONDS = 10, 0.1

# Kinds of JPEG that FFmpeg's decoder lacks, and colour profiles.
_NOT_OF_THE_PICTURE = re.compile(r"support|unhandled|implement|icc", re.IGNORECASE)
_OF_EXIF = re.compile(r"exif|tiff", re.IGNORECASE)
_ORIENTATION = 0x0112
_NEW_SUBFILE, _COPY_OR_MASK, _SUBFILE, _REDUCED = 254, 0b101, 255, 2
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def is_pictures(path: Path) -> bool:
    """Whether a path is a frame folder or a still image by its name."""
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES


def scan_pictures(
    path: Path, *, frame_pattern: str | None, rate_fps: Fraction | float | None, limits: Limits
) -> VideoScan:
    """Scans a folder of frames, or one image as a clip of one frame.

    A file of several pictures is a clip of as many frames: an animation (WebP, PNG) has their times, pages of a TIFF
    need a rate.

    Args:
        path: folder or image.
        frame_pattern: file names of the frames: `%d` or `%05d` stands for the frame number, `*` for any
            text. None takes every image. Files are ordered by the numbers in their names (2 before 10);
            numbers may be missing.
        rate_fps: frames per second of a folder or of pages; an image lasts one second unless given.
        limits: as for videos. The size is that of the first frame; later ones are checked when read.

    Raises:
        DecodeError: no such file, no frame, no rate, not an image, or past a limit.
    """
    if not path.exists():
        raise DecodeError(path, "no such file")
    files = _frame_files(path, frame_pattern) if path.is_dir() else (path,)
    if path.is_dir() and rate_fps is None:
        raise DecodeError(path, "a folder of frames needs its rate; give it in the column rate_fps")
    rate = Fraction(rate_fps if rate_fps is not None else 1).limit_denominator(100_000)
    if rate <= 0:
        raise DecodeError(path, f"{rate_fps = }, expected frames per second above 0")
    limits.check_frames(path, len(files))
    ends: Seconds = np.arange(1, len(files) + 1) / float(rate)
    pages: tuple[int, ...] = ()
    with _reading(files[0]), _open_image(files[0], limits) as image:
        if not path.is_dir() and len(found := _pages(path, image, limits)) > 1:
            pages = tuple(found)
            files, shown = files * len(pages), _shown_seconds(image, pages, limits)
            if shown is None and rate_fps is None:
                raise DecodeError(
                    path,
                    f"it holds {len(pages)} pictures and no times; give their rate in the column rate_fps",
                )
            ends = np.cumsum(shown or [1 / float(rate)] * len(pages))
            image.seek(pages[0])
        limits.check_duration(path, float(ends[-1]))
        if image.format == "TIFF":
            image.load()  # Pillow turns it then, and versions differ in what they say before
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)  # orientations with a quarter turn
        width, height = image.size[::-1] if turned else image.size
    return VideoScan(
        path=str(path),
        num_frames=len(files),
        times_seconds=(times := np.concatenate([[0.0], ends[:-1]])),
        duration_seconds=float(ends[-1]),
        width_px=width,
        height_px=height,
        rate_fps=mean_rate(times, rate),
        pictures=tuple(str(file) for file in files),
        pages=pages,
        end_known=True,
    )


def read_picture(path: str | Path, index: int, limits: Limits) -> Frame:
    """One picture as a frame: 8-bit RGB without alpha, EXIF orientation applied, deeper channels divided down.

    Raises:
        DecodeError: with the frame index: not an image, cut off, or too large.
    """
    with _reading(path, index), _open_image(Path(path), limits) as image:
        if len(pages := _pages(path, image, limits)) > 1:
            raise DecodeError(path, f"it holds {len(pages)} pictures; a folder of frames has one in each file")
        return frame_of_rgb(_eight_bits(ImageOps.exif_transpose(image), image), _damage(Path(path), image))


def read_pages(scan: VideoScan, wanted: Iterable[int], limits: Limits) -> Iterator[tuple[int, Frame]]:
    """The wanted frames of a file of several pictures, ascending; each as `read_picture` gives it.

    Raises:
        DecodeError: as `read_picture`.
    """
    path = Path(scan.path)
    with _reading(path), _open_image(path, limits) as image:
        damage = _damage(path, image)
        for index in wanted:
            with _reading(path, index):
                image.seek(scan.pages[index])
                limits.check_size(path, *image.size)
                frame = frame_of_rgb(_eight_bits(ImageOps.exif_transpose(image), image), damage)
            yield index, frame


def _damage(path: Path, image: Image.Image) -> str:
    if image.format == "JPEG":
        return _reported(path, has_orientation=_ORIENTATION in image.getexif())
    return _wrong_sum(path) if image.format == "PNG" else ""


def _pages(path: str | Path, image: Image.Image, limits: Limits) -> list[int]:
    """Numbers of the pictures of a file that are shown one after another; only those.

    The further pictures of an MPO are a preview, another eye or a map of light, those of a TIFF may say that they are a
    smaller copy or a mask, and the first of a PNG may be for programs that show no animation.
    """
    num: int = getattr(image, "n_frames", 1)
    if num == 1 or image.format == "MPO":
        return [0]
    limits.check_frames(path, num)
    if image.format != "TIFF":
        return list(range(int(getattr(image, "default_image", False)), num))
    found = []
    for page in range(num):
        image.seek(page)
        tags = image.tag_v2  # type: ignore[attr-defined]
        if not tags.get(_NEW_SUBFILE, 0) & _COPY_OR_MASK and tags.get(_SUBFILE) != _REDUCED:
            found.append(page)
        limits.news()
    image.seek(0)
    return found or [0]


def _shown_seconds(image: Image.Image, pages: Iterable[int], limits: Limits) -> list[float] | None:
    """How long each page is shown; None where the file does not say."""
    seconds = []
    for page in pages:
        image.seek(page)
        image.load()
        shown_ms = image.info.get("duration")
        if shown_ms is None:
            return None
        seconds.append(shown_ms / 1000 if shown_ms > SHORTEST_MS else UNTIMED_SECONDS)
        limits.news()
    return seconds


def _eight_bits(turned: Image.Image, image: Image.Image) -> Pixels:
    """(H, W, 3) of a picture as it is shown; `image` is as it was opened, with its tags.

    More than 8 bits a channel are divided down; Pillow's own conversion of gray cuts them off, which turns them white.

    Raises:
        ValueError: nothing says which number is white.
    """
    mode = image.mode
    if not mode.startswith(("I", "F")):
        return np.asarray(turned.convert("RGB"))
    gray, tags = np.asarray(turned), image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if mode == "F" or (mode == "I" and tags):
        kind = "floating-point numbers" if mode == "F" else "integers of 32 bits or with a sign"
        if mode == "I" or not (gray.min() >= 0 and gray.max() <= 1):
            raise ValueError(
                f"its pixels are {kind}, here {gray.min():.6g} to {gray.max():.6g}, and nothing says which is white; "
                "save it with 16 bits and no sign" + (", or divided to 0 .. 1" if mode == "F" else "")
            )
        gray = np.rint(gray * 255)
    else:  # of "I", PNG and PGM fill 16 bits
        gray = gray.astype(np.int64) >> max(int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 8, 0)
    gray = 255 - gray if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else gray
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)


@contextmanager
def _reading(path: str | Path, index: int | None = None) -> Iterator[None]:
    """Pillow raises errors of many kinds over damaged files, SyntaxError and struct.error among them."""
    try:
        yield
    except Exception as error:
        reason = error.reason if isinstance(error, DecodeError) else f"not an image that can be read ({error})"
        raise DecodeError(path, reason, index) from error


def _wrong_sum(path: Path) -> str:
    """Which chunk of a PNG is not what its checksum says; Pillow does not check those of the picture data."""
    data, offset = memoryview(regular(path).read_bytes()), 8
    while offset + 12 <= len(data):
        end = offset + 8 + int.from_bytes(data[offset : offset + 4], "big")
        kind = bytes(data[offset + 4 : offset + 8])
        if zlib.crc32(data[offset + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of chunk {kind!r} is wrong"
        if kind == b"IEND":
            break
        offset = end + 4
    return ""


def _reported(path: Path, *, has_orientation: bool) -> str:
    """What FFmpeg reports of a JPEG, but for what Pillow reads itself or what FFmpeg's decoder lacks."""
    with listening():
        context = av.CodecContext.create("mjpeg", "r")
        context.thread_count, context.options = 1, {"lowres": "3"}
        reports = Reports(context)
        with suppress(av.FFmpegError):  # it has reported why
            context.decode(av.Packet(regular(path).read_bytes()))
        lines = [line for line in reports.texts() if not _NOT_OF_THE_PICTURE.search(line)]
    # Of the EXIF data only the orientation changes the picture.
    return "; ".join(line for line in lines if not (has_orientation and _OF_EXIF.search(line)))


def _open_image(path: Path, limits: Limits) -> Image.Image:
    image = Image.open(regular(path))
    try:
        limits.check_size(path, *image.size)
    except DecodeError:
        image.close()
        raise
    return image


def _frame_files(folder: Path, frame_pattern: str | None) -> tuple[Path, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    if frame_pattern is None:
        chosen = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    else:
        expression = _expression(folder, frame_pattern)
        chosen = [name for name in names if expression.fullmatch(name)]
    for name in chosen:
        if not (folder / name).is_file():
            raise DecodeError(folder / name, kind_of(folder / name) or "a link to nothing")
    if not chosen:
        asked = "image" if frame_pattern is None else f"file that matches {frame_pattern!r}"
        raise DecodeError(folder, f"no {asked} among {len(names)} files; check the column frame_pattern")
    return tuple(folder / name for name in sorted(chosen, key=_natural_key))


def _expression(folder: Path, frame_pattern: str) -> re.Pattern[str]:
    """Names may hold any of []!&()#;+ (HMDB51's do): only `%d` and `*` mean something."""
    if "/" in frame_pattern or "\\" in frame_pattern:
        raise DecodeError(folder, f"{frame_pattern = } must name files of the folder itself, without a slash")
    parts = re.split(r"(%0?\d*d|\*)", frame_pattern)
    text = "".join(
        ".*" if part == "*" else r"\d+" if re.fullmatch(r"%0?\d*d", part) else re.escape(part) for part in parts
    )
    return re.compile(text)


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name
