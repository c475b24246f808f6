"""What every field of every config takes: text for a path, one value for several, and a sentence for anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reelbank.manifests
import reelbank.store
from reelbank.extract import FeaturizeConfig
from reelbank.heads import ProbeConfig, TrainConfig, TrainingError, predict
from reelbank.heads.explain_config import ExplainConfig
from reelbank.heads.predict_config import PredictConfig
from reelbank.heads.probes.search_config import FindConfig
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.store import StoreError
from reelbank.store.accepted import WrongKind, accepted
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.options import Option, from_options, options
from reelbank.store.testing import write_store

CONFIGS = (
    *(FeaturizeConfig, TrainConfig, SweepConfig, RecipeConfig, ProbeConfig, FindConfig, PredictConfig),
    ExplainConfig,
    *(ExportConfig, ImportConfig),
)
NEEDED: dict[str, Any] = {"model": "flow", "store": "a.zarr", "recipe": "r"}
"""What some config must be given."""
BESIDE: dict[Any, Callable[[str], dict[str, Any]]] = {
    ProbeConfig: lambda name: {"views": True} if name == "clip" else {},
    ExplainConfig: lambda name: {"run": "r", "clip": "a"} | ({"gradcam": True} if name in ("classes", "input") else {}),
    ExportConfig: lambda name: {"format": "parquet"} if name == "probe" else {},
    FindConfig: lambda name: {} if name in ("clip", "image", "video") else {"image": "a.png"},
    PredictConfig: lambda name: {"run": "r"} | ({} if name in ("store", "video") else {"video": "a.mp4"}),
}
"""What else is needed where a field is given, of configs whose fields depend on each other."""
ONE: dict[str, str] = {
    "augment": "noise", "mapping": "frame=frame_no", "metric": "mae", "sampling": "uniform:4", "sweep": "lr=1,2",
}  # fmt: skip
"""A value of fields that take no free text."""
UNTRIED = ("analysis", "analysis_option", "aux_weight", "group_lr", "head_option", "init_from", "pixel_augment")
"""Fields whose values are of plug-ins or other fields; what they refuse is tried."""
FIELDS = [(config, name) for config in CONFIGS for name in options(config)]


def kind_of(one: Option) -> tuple[Any, bool]:
    """(what one value of a field is, whether it may be None)."""
    kinds = (one.type,) if get_origin(one.type) is tuple else get_args(one.type) or (one.type,)
    return next(kind for kind in kinds if kind is not NoneType), NoneType in kinds


def made(config: Any, name: str, value: Any) -> Any:
    """What the field holds after `value` was given."""
    needed = {need: what for need, what in NEEDED.items() if need in options(config) and need != name}
    if config in BESIDE:
        needed = BESIDE[config](name)
    found = from_options(config, needed | {name: value})
    one = options(config)[name]
    for part in one.path:
        found = getattr(found, part)
    return getattr(found, one.entry.name)


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_every_field_takes_one_and_many_text_and_path_and_nothing_else(config: Any, name: str) -> None:
    one = options(config)[name]
    kind, may_be_none = kind_of(one)
    wrong = [object(), b"x", {"a": 1}, *([] if may_be_none else [None])]
    if kind is Path:
        assert made(config, name, "a") == made(config, name, Path("a")) == Path("a")
    elif get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        (item, _) = get_args(kind)
        if name not in UNTRIED:
            value = 3 if item is int else ONE.get(name, "a")
            held = made(config, name, value)
            assert held == (item(value),)
            for several in ([value], (value,), iter([value])):
                assert made(config, name, several) == held
            if item is not int:
                assert made(config, name, PurePosixPath(value)) == held
        wrong += [[object()], {"a"}, 1.5]
    elif get_origin(kind) is tuple:
        assert made(config, name, [0.1, 0.5]) == (0.1, 0.5)
        wrong += [0.1, (0.1,), "ab", (0.1, "x")]
    elif kind is bool:
        wrong += [1, "yes"]
    elif kind in (int, float):
        wrong += ["1", True]
    for value in wrong:
        with pytest.raises(ValueError) as refused:
            made(config, name, value)
        said = str(refused.value)
        assert said.startswith(f"{one.flag} ") and " must be " in said, said
        assert one.name.replace("_", "-") in said or one.name in said, said


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (FeaturizeConfig, {"model": 3}, "--model 3 must be text, or several"),
        (
            FeaturizeConfig,
            {"model": "flow", "deadline_seconds": "9"},
            "--deadline '9' must be a number (the field dead",
        ),
        (FeaturizeConfig, {"model": "flow", "manifest": 3}, "--manifest 3 must be a path, as text or Path"),
        (FeaturizeConfig, {"model": "flow", "seed": None}, "--seed None must be a whole number"),
        (TrainConfig.of, {"store": ["a", 3]}, "--store 3 must be a path, as text or Path, or several"),
        (TrainConfig.of, {"store": "a", "betas": 0.9}, "--betas 0.9 must be a tuple of 2 numbers"),
    ],
)
def test_a_wrong_type_is_said_with_field_value_and_what_is_expected(
    config: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError) as refused:
        config(**values)
    assert str(refused.value).startswith(said)


SCALARS = st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.binary(), st.just(Path("a")))


@given(value=st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(st.text(), SCALARS)), hint=st.sampled_from(
    [bool, int, float, str, Path, str | None, Path | None, tuple[str, ...], tuple[Path, ...], tuple[int, ...],
     tuple[float, float], tuple[float, float] | None]
))  # fmt: skip
def test_what_is_accepted_is_of_the_fields_type_and_stays_what_it_is(value: Any, hint: Any) -> None:
    try:
        held = accepted(value, hint)
    except WrongKind:
        return
    again = accepted(held, hint)
    assert repr(again) == repr(held)
    assert type(again) is type(held)


def test_numbers_of_numpy_become_those_of_python() -> None:
    config = FeaturizeConfig(model="flow", workers=np.int64(2), deadline_seconds=np.float32(2.5))
    assert (type(config.workers), type(config.deadline_seconds), config.deadline_seconds) == (int, float, 2.5)
    assert accepted(1, float) == 1 and type(accepted(1, float)) is int


def test_functions_take_text_and_path_one_and_many(tmp_path: Path) -> None:
    rows = [{"clip_id": "a", "kcal": 1.0}]
    path = str(tmp_path / "a.zarr")
    write_store(path, {"cls": [np.zeros((2, 3), np.float32)]}, rows)
    assert reelbank.store.open(path).num_clips == reelbank.store.open(Path(path)).num_clips == 1
    table = tmp_path / "m.csv"
    table.write_text("clip_id,video,kcal,other\na,a.mp4,1,2\n")
    read = reelbank.manifests.read
    assert read(str(table), target_columns="other") == read(table, target_columns=["other"])
    with pytest.raises(StoreError, match="two stores or more, 1 given"):
        reelbank.store.merge(tmp_path / "out.zarr", path)
    with pytest.raises(StoreError, match=r"stores: 3 must be a path, as text or Path, or several"):
        reelbank.store.merge(tmp_path / "out.zarr", [path, 3])  # type: ignore[list-item]
    with pytest.raises(TrainingError, match=r"store: None must be a path"):
        predict(tmp_path, None)  # type: ignore[arg-type]
