"""Kills and power cuts while a head is trained; `attacks.training_cut` tries hundreds of states, here are some."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from attacks import training_cut
from part_stores import part_store

from reelbank.heads import TrainConfig, TrainingError, predict, train_head
from reelbank.heads.runs import directory as directories


@pytest.mark.parametrize(("name", "states"), [("run", 4), ("more epochs", 4), ("overwrite", 2)])
def test_no_state_of_the_disk_gives_another_result(name: str, states: int) -> None:
    found = training_cut.try_training(name, states, seed=4)
    assert found.not_held == ()
    assert found.facts["different states"] > 10


def _config(folder: Path, **options: object) -> TrainConfig:
    return TrainConfig.of(store=(folder / "s.zarr",), run=folder / "run", **{**training_cut.SMALL, **options})


def test_what_a_killed_process_left_of_a_new_run_is_no_run(tmp_path: Path) -> None:
    part_store(tmp_path / "s.zarr")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.json.999999999.partial").write_text("{")
    train_head(_config(tmp_path))
    assert not list((tmp_path / "run").glob(".*"))


def test_a_run_that_goes_on_is_not_finished_until_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_store(tmp_path / "s.zarr")
    train_head(_config(tmp_path))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reelbank.heads.runs.run.write_finished", killed)
        train_head(_config(tmp_path, epochs=5, resume=True))
    with pytest.raises(TrainingError, match="is not a finished run"):
        predict(tmp_path / "run", tmp_path / "s.zarr")
    assert train_head(_config(tmp_path, epochs=5, resume=True)).results["training"]["epochs_run"] == 5


def test_a_damaged_checkpoint_is_said_with_what_to_do(tmp_path: Path) -> None:
    part_store(tmp_path / "s.zarr")
    wanted = train_head(_config(tmp_path)).results["splits"]
    checkpoint = tmp_path / "run/last.safetensors"
    checkpoint.write_bytes(b"")
    with pytest.raises(TrainingError, match="remove it, and its training starts again at the first epoch"):
        train_head(_config(tmp_path, resume=True))
    checkpoint.unlink()
    assert train_head(_config(tmp_path, resume=True)).results["splits"] == wanted


def test_a_kill_while_a_run_is_replaced_leaves_a_run_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_store(tmp_path / "s.zarr")
    train_head(_config(tmp_path, folds=2))

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(directories.shutil, "rmtree", killed)
        train_head(_config(tmp_path, overwrite=True))
    assert (tmp_path / "run/config.json").is_file()
    assert not (tmp_path / "run/results.json").exists()
    train_head(_config(tmp_path, overwrite=True))
    assert not (tmp_path / "run/fold-0").exists()
    shutil.rmtree(tmp_path / "run")
