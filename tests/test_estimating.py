"""What `doctor --model` says of a run before it: measured on a few clips, scaled to all, nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from reelbank import cli
from reelbank.extract import FeaturizeConfig, estimating, featurize
from reelbank.extract.estimating import Timed
from reelbank.extract.run import todo as planning
from reelbank.extract.run.messages import Tally
from reelbank.manifests.events import Event

TALLY = Tally(decode_seconds=1.0, prepare_seconds=0.25, forward_seconds=3.0, write_seconds=0.75)


@pytest.fixture
def config(synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeaturizeConfig:
    shutil.copytree(synth_set, tmp_path / "set", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "set")
    monkeypatch.setenv("REELBANK_WEIGHTS", "pretrained")
    return FeaturizeConfig(model=("flow:dis",), manifest=Path("manifest.csv"), sampling=("uniform:2",), device="cpu")


def test_estimate_says_time_bytes_and_memory_and_leaves_nothing(config: FeaturizeConfig) -> None:
    before = sorted(Path().rglob("*"))
    told: list[Event] = []
    found = dict(estimating.estimate(config, told.append))
    assert sorted(Path().rglob("*")) == before
    said = r"flow:dis: about (\d+) s for \d+ clips with \d+ workers? on cpu; (\d) of them took [\d.]+ s of one worker"
    about, timed = re.match(said, found["estimate"]).groups()  # type: ignore[union-attr]
    assert int(about) < 600
    assert 1 <= int(timed) <= estimating.MOST_CLIPS
    assert told[0].done == 0
    assert told[-1].done >= 1
    assert not Path("/proc/self/status").exists() or "each; this machine has" in found["memory"]
    notes: list[str] = []
    featurize(config, lambda event: notes.append(event.note))
    assert found["bytes"] in notes


@pytest.mark.parametrize(
    ("device", "said"), [("cpu", "about 21 s for 16"), ("cuda", "about 25 s for 16")]
)  # fmt: skip
def test_measured_seconds_are_scaled_to_all_clips(
    device: str, said: str, config: FeaturizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading by bytes of files, the rest by clips; on a GPU the model works beside the workers."""
    manifest = planning.read_manifest(config)
    chosen = planning.select(manifest, config).tolist()[:16]
    job = replace(planning.make_job(config, "flow:dis", Path()), device=device, store=Path("flow.zarr"))
    monkeypatch.setattr(estimating, "default_workers", lambda has_remote, decode: 2)
    monkeypatch.setattr(estimating, "_bytes_of", lambda paths: 100)
    timed = Timed(tally=TALLY, num_clips=2, num_bytes=200, start_seconds=1.0, peak_bytes=2**30)
    found = dict(estimating._sentences(job, manifest, chosen, timed, False))
    assert len(chosen) == 16
    assert said in found["estimate"]
    assert "2 of them took 5.0 s of one worker just now, mostly forward" in found["estimate"]
    assert "at most about 3.2 GB: 2 and the parent, 1.1 GB each" in found["memory"]
    nothing = replace(timed, num_clips=0)
    found = dict(estimating._sentences(job, manifest, chosen, nothing, False))
    assert found["estimate"] == "flow:dis: none of the clips that were tried gives features; no time is told"


@pytest.mark.parametrize(("model", "timed"), [("resnet18", True), ("dinov2:vitg14", False)])
def test_weights_that_are_not_here_are_named(
    model: str, timed: bool, config: FeaturizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "cached_file", lambda source: None)
    monkeypatch.setattr(estimating, "ENOUGH_SECONDS", 0.0)
    found = dict(estimating.estimate(replace(config, model=(model,), sampling=("uniform:1",))))
    assert re.fullmatch(rf"{model}: \S+\.pth is not here; the run fetches it first", found["weights"])
    assert found["estimate"].endswith(", on random weights" if timed else "no time is told before its weights are here")


def test_sample_is_spread_over_files_that_are_soon_read(
    config: FeaturizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = planning.read_manifest(config)
    chosen = planning.select(manifest, config).tolist()
    job = planning.make_job(config, "flow:dis", Path())
    sizes = {manifest.clips[i].video: size for i, size in zip(chosen, range(1, len(chosen) + 1), strict=True)}
    monkeypatch.setattr(estimating, "_bytes_of", lambda paths: sizes[os.path.relpath(paths[0], manifest.root)])
    monkeypatch.setattr(estimating, "MOST_TIMED_BYTES", len(chosen) - 1)
    found = [size for _, size in estimating._sample(job, manifest, chosen)]
    assert (found[0], found[-1], len(found)) == (1, len(chosen) - 1, estimating.MOST_CLIPS)
    monkeypatch.setattr(estimating, "MOST_TIMED_BYTES", 0)
    assert [size for _, size in estimating._sample(job, manifest, chosen)] == [1]


def test_doctor_estimates_a_run_of_the_manifest_that_it_finds(config: FeaturizeConfig) -> None:
    result = CliRunner().invoke(cli.main, ["doctor", "--model", "flow:dis", "--sampling", "uniform:2"])
    assert result.exit_code == cli.OK, result.output
    assert {"manifest", "estimate", "bytes"} <= {line.split()[0] for line in result.stdout.splitlines()}
    hint = CliRunner().invoke(cli.main, ["doctor", "--manifest", "manifest.csv"])
    assert "estimate  with --model, as for featurize: seconds, bytes and memory of a run" in hint.stdout
    wrong = CliRunner().invoke(cli.main, ["doctor", "--sampling", "all"])
    assert (wrong.exit_code, "go with --model" in wrong.stderr) == (cli.WRONG_USE, True)
    unknown = CliRunner().invoke(cli.main, ["doctor", "--model", "flw"])
    assert (unknown.exit_code, "did you mean 'flow'" in unknown.stderr) == (cli.WRONG_USE, True)
