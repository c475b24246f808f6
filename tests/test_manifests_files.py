"""A file or folder appears whole, or what was there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelbank.manifests.files import appearing


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_takes_the_place_of_the_old_one_at_the_end(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    if before is not None:
        path.write_text(before)
    with appearing(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert (path.read_text() if path.exists() else None) == before
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_folder", [False, True])
def test_after_an_error_nothing_has_changed(stop: type[BaseException], is_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    if not is_folder:
        path.write_text("old")
    with pytest.raises(stop), appearing(path) as partial:
        if is_folder:
            (partial / "inner").mkdir(parents=True)
        else:
            partial.write_text("half")
        raise stop
    assert [found.name for found in tmp_path.iterdir()] == ([] if is_folder else ["thing"])
    assert is_folder or path.read_text() == "old"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with appearing(tmp_path / "made") as partial:
        partial.mkdir()
        (partial / "a").write_text("x")
        assert not (tmp_path / "made").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["made", "made/a"]
