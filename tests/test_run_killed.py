"""A featurize that is killed by SIGKILL; `attacks.killed_featurize` does it hundreds of times."""

from __future__ import annotations

from attacks import killed_featurize


def test_a_killed_featurize_makes_the_same_store_when_it_runs_again() -> None:
    (found,) = killed_featurize.attack(3, seed=2)
    assert found.not_held == ()
    assert found.facts["killed"] >= 2
