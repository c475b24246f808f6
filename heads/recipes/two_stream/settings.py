"""What the runs of the study of two-stream networks share (SYSTEMS.md 5.2 to 5.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.recipe import Published, RecipeRow

FEATURES = (
    "12 classes of HMDB51, split 1 (756 training, 84 validation, 360 test clips), 12 of Stanford-40 with both parts "
    "merged, and GoogLeNet with ImageNet's weights"
)
DOUBLE_SOFTMAX = "ce-on-softmax"
SHARED: Mapping[str, Any] = {
    "target": "none", "stage": "1", "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "batch": 32, "epochs": 15,
    "early_stop_epochs": 0, "keep": "last", "judge_train": True, "metric": ("ce_on_softmax",),
}  # fmt: skip
STILLS_NOTE = (
    "Frame nets begin with a run on still images, Stanford-40 in the publication: give its store (frames:squash224) "
    "after the others. Without one they begin with the backbone's weights alone, which is said."
)
LOSS_NOTE = (
    "The publication's loss is cross-entropy on the output of a softmax: of 12 classes it is ln(e + 11) - 1 = 1.6187 "
    "at best and 2.6187 for a sure mistake, so 1.6187 plus the error rate, which its tables show. `two-stream/beyond` "
    "has cross-entropy on logits."
)


def row(
    name: str,
    head: str,
    cells: Mapping[str, str],
    *,
    options: tuple[str, ...] = (),
    starts_from: tuple[str, ...] = (),
    against: str = "",
    published: Mapping[str, float] | None = None,
    **more: Any,
) -> RecipeRow:
    """A training of `head` with `options`, on the set of the first store."""
    own = {"head_option": options} if options else {}
    return RecipeRow(
        name=name,
        cells=cells,
        options={"head": head, **own, **more},
        starts_from=starts_from,
        against=against,
        published=Published(values=dict(published or {})),
        stores="matching",
    )


def stills(cells: Mapping[str, str], published: Mapping[str, float] | None = None) -> RecipeRow:
    """The frame net on still images, with which frame nets of clips begin."""
    return RecipeRow(
        name="stills",
        cells=cells,
        options={"head": "frame-net"},
        published=Published(values=dict(published or {})),
        stores="other-set",
        is_optional=True,
    )


STILLS = ("stills",)
"""What a frame net of clips starts from."""
