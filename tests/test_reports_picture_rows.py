"""Rows of pictures: which steps, what they show, and that nothing lies on anything else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.input_strip import rows_of
from reelbank.heads.reports.picture_rows import Block, PictureRow, columns_of, picture_rows

WARNING = "RANDOM WEIGHTS: resnet34 was never trained; numbers from it say nothing about the published model."


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 16, 100])
def test_columns_are_spread_from_the_first_step_to_the_last(steps: int) -> None:
    columns = columns_of(steps)
    assert len(columns) == min(steps, 8)
    assert (columns[0], columns[-1]) == (0, steps - 1)
    gaps = np.diff(columns)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("columns", "blocks", "size"), [(1, 1, (7, 7)), (2, 2, (64, 48)), (8, 3, (48, 64))])
def test_no_picture_or_text_lies_on_another_or_off_the_page(columns: int, blocks: int, size: tuple[int, int]) -> None:
    gray, rgb = np.zeros(size, np.uint8), np.full((*size, 3), 80, np.uint8)
    rows = [
        PictureRow(title="frames of a store " * 8, pictures=[rgb] * columns, under=["12.34 s"] * columns),
        PictureRow(title="$x_{1$ predicts walk", pictures=[gray] * columns),
    ]
    block = Block(title="a very long name of a clip/of_somebody, true label none " * 3, rows=rows)
    figure = picture_rows(
        "Title", [block] * blocks, heading=Heading(source="s " * 60, count="n", warning=WARNING), notes=["note " * 40]
    )
    assert png(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    assert len(figure.axes) == 2 * columns * blocks
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
    for one, other in itertools.combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert width <= 1 or height <= 0.15 * min(one.height, other.height), "only the empty space of letters may touch"


def test_inputs_are_shown_as_what_they_are() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    (row,) = rows_of("frames", frames, ["0 s", "1 s", "2 s"])
    assert np.array_equal(np.stack(row.pictures), frames)
    assert list(row.under) == ["0 s", "1 s", "2 s"]

    flow = rng.integers(0, 256, (5, 2, 6, 6), dtype=np.uint8)
    x, y = rows_of("flow", flow)
    assert [x.title, y.title] == ["flow, x", "flow, y"]
    assert np.array_equal(np.stack([x.pictures, y.pictures], axis=1), flow)

    (bits,) = rows_of("moving", np.eye(7, dtype=bool)[None])
    assert np.array_equal(bits.pictures[0], 255 * np.eye(7, dtype=np.uint8))
    (gray,) = rows_of("moving", np.full((1, 7, 7), 0.5, np.float16))
    assert np.unique(gray.pictures[0]).tolist() == [128]

    maps = rng.normal(size=(4, 5, 3, 3)).astype(np.float16)
    (mean,) = rows_of("maps", maps)
    shown = np.stack(mean.pictures).astype(float)
    assert (shown.min(), shown.max()) == (0, 255)
    np.testing.assert_allclose(np.corrcoef(shown.ravel(), maps.astype(float).mean(axis=1).ravel())[0, 1], 1, atol=1e-4)


def test_of_many_steps_at_most_eight_are_shown_with_their_own_texts() -> None:
    (row,) = rows_of("moving", np.linspace(0, 1, 15)[:, None, None] * np.ones((15, 2, 2)), [str(i) for i in range(15)])
    assert list(row.under) == ["0", "2", "4", "6", "8", "10", "12", "14"]
    assert [int(picture[0, 0]) for picture in row.pictures] == [round(255 * i / 14) for i in range(0, 15, 2)]
