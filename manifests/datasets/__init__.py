"""The readers behind `reelbank manifest NAME`: one file and one row each.

A reader takes a folder or file and keyword options, and returns a `Manifest`; it writes nothing. NAME is one of
READERS, one that an installed package adds (entry points `reelbank.datasets`), or `module:function`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from reelbank.manifests.manifest import Clip, Manifest, ManifestError
from reelbank.manifests.registry import Registry, first_line

__all__ = ["READERS", "Clip", "Manifest", "ManifestError", "ReaderRow", "reader"]


@dataclass(frozen=True, kw_only=True)
class ReaderRow:
    """One reader, as the table and its command show it.

    Attributes:
        target: `module:function`, loaded on first use.
        summary: one line for the list of commands.
        layout: what must lie where, for the command's help; empty: the summary.
        options: names of the function's keyword arguments that the command offers; `reelbank.cli` says how each
            is written on the command line.
        argument: what the first argument is called.
    """

    target: str
    summary: str
    layout: str = ""
    options: tuple[str, ...] = ()
    argument: str = "ROOT"


_ROWS = {
    "brace": ReaderRow(
        target="reelbank.manifests.datasets.brace:read_brace",
        summary="BRACE: dance segments with keypoints.",
        layout=(
            "BRACE: keypoints ROOT/<year>/<video_id>/<video_id>_<start>-<end>_<movement>.json and the files "
            "segments.csv, sequences_train.csv, sequences_test.csv. A clip is a segment; no videos are needed."
        ),
        options=("splits",),
    ),
    "csv": ReaderRow(
        target="reelbank.manifests.datasets.csv_map:read_csv",
        summary="Any CSV, with its columns mapped.",
        layout=(
            "Any CSV, with its columns mapped to ours: --map video=file --map group=scene. Without a column `split` "
            "every clip is train; with --unknown CLASS those classes are split `unknown`, and the rest is cut 80/20 "
            "into train and test by whole groups. Tables of spreadsheets are read: semicolons, tabs, decimal commas, "
            "clocks; what was mended is said. None of the videos there: an error, some: a line."
        ),
        options=("mapping", "root", "unknown", "seed", "target_columns", "allow_group_overlap", "decimal"),
        argument="FILE",
    ),
    "folder": ReaderRow(
        target="reelbank.manifests.datasets.folder:read_folder",
        summary="A folder per class.",
        layout="A folder per class, below train/, val/, test/ or directly.",
        options=("seed",),
    ),
    "gtea61": ReaderRow(
        target="reelbank.manifests.datasets.gtea61:read_gtea61",
        summary="GTEA61: frame folders, motion maps, warp flow.",
        layout=(
            "GTEA61: ROOT/processed_frames2/S?/<action>/<inst>/rgb and mmaps, ROOT/flow_x_processed and "
            "ROOT/flow_y_processed. User S2 is the test split. The folders do not tell their rate: 15 unless "
            "--rate-fps says otherwise."
        ),
        options=("rate_fps",),
    ),
    "hmdb51": ReaderRow(
        target="reelbank.manifests.datasets.hmdb51:read_hmdb51",
        summary="HMDB51: class folders and official splits.",
        layout=(
            "HMDB51: ROOT/<class>/<file>.avi and its three official splits, of which --fold is taken; all three are "
            "columns where their lists are there. --classes keeps some classes, --rename gives them other names. With "
            "--groups the source of a clip is read from its file name, and it is said how many test clips have a "
            "training clip of the same source. --val-share makes a part `val` of training clips."
        ),
        options=("splits", "fold", "classes", "rename", "groups", "val_share", "val_by", "seed"),
    ),
    "intervals": ReaderRow(
        target="reelbank.manifests.datasets.intervals:read_intervals",
        summary="A CSV of intervals in long videos.",
        layout=(
            "A CSV with one line per interval of a long video, as `csv` reads it: a column for the video, one for its "
            "start, one for its end (or duration), in seconds, milliseconds or as [H:]M:S. Common names (video, start, "
            "end, onset, label, action ...) are found and said; --map names others. `group` is the video unless a "
            "column says otherwise; subjects who share a video are one group."
        ),
        options=("mapping", "root", "target_columns", "allow_group_overlap", "decimal"),
        argument="FILE",
    ),
    "kinetics": ReaderRow(
        target="reelbank.manifests.datasets.kinetics:read_kinetics",
        summary="Kinetics: official CSV, clips by YouTube id.",
        layout=(
            "Kinetics: CSV files with label,youtube_id,time_start,time_end,split and clips "
            "<id>_<start>_<end>.mp4 (six digits each), in ROOT or in folders below it. Listed clips that are not "
            "there are counted and left out: every copy of the set misses some."
        ),
        options=("splits", "allow_group_overlap"),
    ),
    "penn": ReaderRow(
        target="reelbank.manifests.datasets.penn:read_penn",
        summary="Penn Action: frame folders and joints.",
        layout=(
            "Penn Action: ROOT/labels/0001.mat and ROOT/frames/0001/000001.jpg; frames may be missing where only "
            "the joints are wanted. The folders do not tell their rate: 30 unless --rate-fps says otherwise."
        ),
        options=("rate_fps",),
    ),
    "stanford40": ReaderRow(
        target="reelbank.manifests.datasets.stanford40:read_stanford40",
        summary="Stanford 40 Actions: still images.",
        layout=(
            "Stanford 40: ROOT/JPEGImages/<action>_NNN.jpg and ROOT/ImageSplits/<action>_{train,test}.txt. --classes "
            "keeps some actions, --rename gives them the names of another set's classes. With --merge-splits the "
            "official parts are one, of which a tenth is `test`."
        ),
        options=("splits", "classes", "rename", "merge_splits", "test_share", "val_share", "seed"),
    ),
    "ucf101": ReaderRow(
        target="reelbank.manifests.datasets.ucf101:read_ucf101",
        summary="UCF101: class folders and official splits.",
        layout="UCF101: ROOT/<class>/<file>.avi, classInd.txt, trainlist0X.txt, testlist0X.txt.",
        options=("splits", "fold"),
    ),
    "vid2burn": ReaderRow(
        target="reelbank.manifests.datasets.vid2burn:read_vid2burn",
        summary="Vid2Burn: calories per clip.",
        layout=(
            "Vid2Burn: ROOT/A01/<file>.avi (Diverse) or NTU files (ADL), joined by file stem with the label file "
            "(CSV, or the authors' pickle). A28 to A33 of Diverse are split `unknown`. The file has no train/test "
            "cut: known clips are cut 80/20 by source recording."
        ),
        options=("labels", "seed"),
    ),
}


READERS: Registry[ReaderRow] = Registry(
    _ROWS,
    kind="reader",
    group="reelbank.datasets",
    row_type=ReaderRow,
    error=ManifestError,
    from_function=lambda target, function: ReaderRow(
        target=target, summary=first_line(function), layout=inspect.getdoc(function) or ""
    ),
    function="read(root, **options) -> Manifest",
)


def reader(name: str) -> Callable[..., Manifest]:
    """The function of one reader.

    Raises:
        ManifestError: no such reader; the known ones are listed.
        PluginError: a plug-in that does not import; when it is called, one that fails or gives no Manifest.
    """
    found = READERS.find(name)
    plugin, function = found.plugin, found.load(found.row.target)
    if plugin is None:
        own: Callable[..., Manifest] = function
        return own

    @wraps(function)
    def read(*args: Any, **options: Any) -> Manifest:
        with plugin.running(found.row.target):
            made = function(*args, **options)
        if not isinstance(made, Manifest):
            raise plugin.wrong(f"{found.row.target} gave a {type(made).__name__}, expected a Manifest")
        return made

    return read
