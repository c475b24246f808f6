"""Vid2Burn (Peng et al., arXiv:2202.00712): kcal per hour of a clip, joined by file stem."""

from __future__ import annotations

import math
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reelbank.manifests.datasets.cutting import cut_by_group
from reelbank.manifests.datasets.official import manifest_from, media_by_stem, read_list, some
from reelbank.manifests.files import regular
from reelbank.manifests.manifest import Manifest, ManifestError

LAST_KNOWN_ACTIVITY = 27
KEY_COLUMNS = ("key", "file_name", "file", "video")
KCAL_COLUMNS = ("kcal_per_hour", "calorie_label", "kcal", "calorie")
LABEL_SUFFIXES = (".csv", ".pickle", ".pkl")

# What pickles of numpy's scalars and arrays ask for, in both spellings of the private module, which moved in numpy 2.
PICKLE_GLOBALS = {
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    **{
        (f"numpy.{core}.multiarray", name): ("numpy._core.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): ("numpy._core.numeric", "_frombuffer") for core in ("core", "_core")},
}

_NTU_KEY = re.compile(r"^S(\d{3})(\d{3})R(\d{3})A(\d{3})$")
_NTU_FILE = re.compile(r"^S(\d{3})C\d{3}P(\d{3})R(\d{3})A(\d{3})(?:_rgb)?$")
# Where a clip's name tells its source recording or person: UCF101, HMDB51, KTH, Kinetics.
_SOURCES = (
    re.compile(r"^(v_.+_g\d+)_c\d+$"),
    re.compile(r"^(.+?)_(?:climb_stairs|kick_ball|[a-z]+)_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$"),
    re.compile(r"^(person\d+)_[a-z]+_d\d+_s\d+$"),
    re.compile(r"^(.{11})_\d{6}_\d{6}$"),
)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One entry of a label file.

    Attributes:
        stem: file name without suffix; for the ADL part an NTU name without its camera, `S008008R002A047`.
        activity: `A01` to `A33` (Diverse), `A001` to `A049` (ADL): the class.
        kcal: per hour.
        split: `train` or `test`; `unknown` for A28 to A33 of the Diverse part.
        group: source recording or person, as far as the name tells it; else the clip itself.
    """

    stem: str
    activity: str
    kcal: float
    split: str
    group: str


def read_vid2burn(
    root: str | os.PathLike[str], *, labels: str | os.PathLike[str] | None = None, seed: int = 0
) -> Manifest:
    """The labelled clips that lie under ROOT.

    A label without a file gets no row, and a note counts them: the set is gathered from four others, and copies
    differ. An ADL label holds for the files of all cameras.

    Args:
        root: folder of the activity folders A01 ..., searched three folders deep.
        labels: the label file, CSV or the authors' pickle; None: the only such file in `root`.
        seed: of the train/test cut of the known activities (80/20 by group; drawn over the whole label file, so
            that it does not depend on which videos are there).

    Returns:
        Clips `<activity>/<stem>` with target `kcal`.

    Raises:
        ManifestError: no label file, a malformed entry (named), a pickle that holds anything but names and
            numbers, or no labelled clip is there.
    """
    root = Path(root)
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder; expected the activity folders A01, A02 ... of Vid2Burn in it")
    path = _label_file(root) if labels is None else Path(labels)
    listed = read_lists(path, seed=seed)
    files = _joinable(media_by_stem(root))
    rows, absent = [], []
    for entry in listed:
        paths = files.get(entry.stem, [])
        if not paths:
            absent.append(f"{entry.activity}/{entry.stem}")
        if not _NTU_KEY.match(entry.stem):
            # The same clip may also lie in the folder of the set it was taken from.
            paths = sorted(paths, key=lambda video: (PurePosixPath(video).parent.name != entry.activity, video))[:1]
        rows += [
            {
                "clip_id": f"{entry.activity}/{PurePosixPath(video).stem}",
                "video": video,
                "split": entry.split,
                "label": entry.activity,
                "group": entry.group,
                "kcal": repr(entry.kcal),
            }
            for video in paths
        ]
    if not rows:
        raise ManifestError(
            f"Vid2Burn: none of the {len(listed)} labelled clips of {path} lies under {root}; expected e.g. "
            f"{root / absent[0]}.avi; found {sum(map(len, files.values()))} videos of other names"
        )
    notes = [
        f"the label file has no train/test cut: known activities were cut 80/20 by group (seed {seed}); the group is "
        "the source recording or person where the file's name tells it"
    ]
    if absent:
        notes.append(f"{len(absent)} of {len(listed)} labels have no video under {root}, left out: {some(absent)}")
    return manifest_from(rows, root, place="clip", notes=notes)


def read_lists(labels: str | os.PathLike[str], *, seed: int = 0) -> list[Labelled]:
    """The label file alone, without looking at videos.

    Diverse: 3,974 clips of 27 known activities and 286 of 6 unknown ones; ADL: 4,940 labels of 49 activities.

    Raises:
        ManifestError: as `read_vid2burn`.
    """
    path = Path(labels)
    found: dict[str, tuple[str, float, bool]] = {}
    for at, key, kcal in _entries_of(path):
        stem, activity, known = _place(at, key)
        if stem in found:
            raise ManifestError(f"{at}: {stem!r} is labelled twice")
        found[stem] = activity, kcal, known
    if not found:
        raise ManifestError(f"{path} holds no labels")
    groups = {stem: _group(stem) for stem in found}
    cut = [stem for stem, (_, _, known) in found.items() if known]
    splits = dict(zip(cut, cut_by_group([found[s][0] for s in cut], [groups[s] for s in cut], seed=seed), strict=True))
    return [
        Labelled(stem=stem, activity=activity, kcal=kcal, split=splits.get(stem, "unknown"), group=groups[stem])
        for stem, (activity, kcal, _) in found.items()
    ]


def _label_file(root: Path) -> Path:
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in LABEL_SUFFIXES and path.is_file())
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise ManifestError(
            f"Vid2Burn: expected one label file ({', '.join(LABEL_SUFFIXES)}) in {root}, found {listed}; "
            "name it with --labels FILE, e.g. calact_fluctuate.csv"
        )
    return found[0]


def _entries_of(path: Path) -> Iterable[tuple[str, str, float]]:
    """(where it stands, key, kcal per hour) of every entry."""
    if path.suffix.lower() != ".csv":
        yield from ((f"{path}, entry {number}", *pair) for number, pair in enumerate(_unpickled(path), start=1))
        return
    table = read_list(path)
    lowered = {name.strip().lower(): name for name in table.columns}
    key = next((lowered[name] for name in KEY_COLUMNS if name in lowered), None)
    kcal = next((lowered[name] for name in KCAL_COLUMNS if name in lowered), None)
    if key is None or kcal is None:
        raise ManifestError(
            f"{path}: expected a column {' or '.join(KEY_COLUMNS)} and a column {' or '.join(KCAL_COLUMNS)}; "
            f"found {', '.join(table.columns)}"
        )
    for number, cells in table.rows:
        yield table.at(number), cells[key], _kcal(table.at(number), cells[kcal])


def _kcal(at: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ManifestError(f"{at}: {value!r} is not a number of kcal per hour")
    return number


class _NumbersOnly(pickle.Unpickler):
    """Refuses every global but numpy's scalars and arrays: a foreign pickle may otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of  # how protocols 0 to 2 write the bytes of a scalar
        if (module, name) not in PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a table of numbers does not need")
        target, attribute = PICKLE_GLOBALS[module, name]
        return super().find_class(target, attribute)


def _bytes_of(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}")
    return text.encode("latin1")


def _unpickled(path: Path) -> list[tuple[str, float]]:
    if path.suffix.lower() not in LABEL_SUFFIXES:
        raise ManifestError(f"{path}: a label file ends in one of {', '.join(LABEL_SUFFIXES)}")
    try:
        with regular(path).open("rb") as file:
            content = _NumbersOnly(file).load()
    except FileNotFoundError as error:
        raise ManifestError(f"no label file at {path}") from error
    except Exception as error:
        raise ManifestError(f"{path} was refused: {error}; expected a pickled dict of file name and number") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ManifestError(f"{path} holds a {type(content).__name__}; expected a dict of file name and number")
    return [(key, _kcal(f"{path}, {key!r}", value)) for key, value in content.items()]


def _place(at: str, key: str) -> tuple[str, str, bool]:
    """(stem, activity, whether it is known) of a key: an authors' path, or an NTU name without its camera."""
    path = PurePosixPath(key.strip())
    if ntu := _NTU_KEY.match(path.name):
        return path.name, f"A{ntu[4]}", True
    activity = path.parent.name
    if not re.fullmatch(r"A\d\d", activity) or not path.stem:
        raise ManifestError(f"{at}: {key!r}, expected .../A01/<file>.avi or an NTU name such as S008008R002A047")
    return path.stem, activity, int(activity[1:]) <= LAST_KNOWN_ACTIVITY


def _group(stem: str) -> str:
    if ntu := _NTU_KEY.match(stem):
        return f"P{ntu[2]}"
    return next((found[1] for pattern in _SOURCES if (found := pattern.match(stem))), stem)


def _joinable(files: dict[str, list[str]]) -> dict[str, list[str]]:
    """Files by the stem that labels use: that of NTU files is without the camera."""
    joinable: dict[str, list[str]] = defaultdict(list)
    for stem, paths in files.items():
        ntu = _NTU_FILE.match(stem)
        joinable["S{}{}R{}A{}".format(*ntu.groups()) if ntu else stem] += paths
    return {stem: sorted(paths) for stem, paths in joinable.items()}
