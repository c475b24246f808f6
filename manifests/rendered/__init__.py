"""The labelled sets that reelbank renders itself, behind `reelbank manifest synth...`: one file and one row each.

A renderer takes a folder and keyword options, writes files and DIRECTORY/manifest.csv, and returns the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Count:
    """A whole number that a set is rendered by, as an option of its command: `--clips 120`."""

    least: int
    most: int
    default: int
    text: str


@dataclass(frozen=True, kw_only=True)
class RenderedRow:
    """One set, as the table and its command show it.

    Attributes:
        target: `module:function`, loaded on first use. It takes the folder, `counts`, `seed`, `overwrite`, `progress`.
        summary: one line for the list of commands.
        text: for the command's help.
        counts: {keyword of the function: the option}.
        files: what they are, and the folder below DIRECTORY that they lie in.
    """

    target: str
    summary: str
    text: str
    counts: Mapping[str, Count]
    files: tuple[str, str]


RENDERED: Mapping[str, RenderedRow] = {
    "synth": RenderedRow(
        target="reelbank.manifests.rendered.synth:render",
        summary="Render a small labelled video set.",
        text="Render a small labelled video set: the class is the motion, kcal grows with speed.",
        counts={"clips": Count(least=1, most=100_000, default=120, text="Number of clips.")},
        files=("Videos", "videos"),
    ),
    "synth-gtea61": RenderedRow(
        target="reelbank.manifests.rendered.synth_gtea61:render",
        summary="Render a first-person set laid out as GTEA61.",
        text=(
            "Render a first-person set laid out as GTEA61: eight actions, users S1 to S4 (S2 is test), a moving camera."
            "\n\nclose_jar and put_cup are open_jar and take_cup played backwards: only the order of frames tells them "
            "apart. Frames alone are rendered; motion maps and warp flow come from `featurize --model motion-map "
            "--model warp-flow`."
        ),
        counts={"clips": Count(least=1, most=10_000, default=160, text="Number of clips.")},
        files=("Frames", "processed_frames2"),
    ),
    "synth-hmdb51": RenderedRow(
        target="reelbank.manifests.rendered.synth_hmdb51:render",
        summary="Render outlines that drift, laid out as HMDB51.",
        text=(
            "Render a set laid out as HMDB51: three outlines x four directions in which the whole picture drifts."
            "\n\nOne frame tells the outline and not the direction, the motion tells the direction and not the "
            "outline: a model of frames is right in at most one clip of four, one of flow alone in one of three. The "
            "group is the subject, and each of the three splits tests three tenths of the subjects. `manifest hmdb51 "
            "DIRECTORY --groups films` reads it."
        ),
        counts={
            "subjects": Count(least=3, most=999, default=10, text="Sources of clips, each with its own looks."),
            "clips_per_class": Count(
                least=3, most=10_000, default=20, text="Clips of each of the 12 classes, by all subjects in turn."
            ),
        },
        files=("Videos", ""),
    ),
    "synth-stanford40": RenderedRow(
        target="reelbank.manifests.rendered.synth_stanford40:render",
        summary="Render such outlines as stills, laid out as Stanford 40.",
        text=(
            "Render still images laid out as Stanford 40, of the classes of synth-hmdb51: a fading trail shows the "
            "direction.\n\nFor the first stage of a model of single frames. `manifest stanford40 DIRECTORY` reads it."
        ),
        counts={"images_per_class": Count(least=2, most=999, default=40, text="Images of each of the 12 classes.")},
        files=("Images", "JPEGImages"),
    ),
}
