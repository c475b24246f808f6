"""Tables as people's programs write them: dialects, numbers, names of columns, paths; what is mended is said."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from reelbank import cli
from reelbank.manifests import Manifest, ManifestError, read, write
from reelbank.manifests.datasets.csv_map import read_csv
from reelbank.manifests.datasets.folder import read_folder
from reelbank.manifests.datasets.intervals import read_intervals
from reelbank.manifests.datasets.official import read_list
from reelbank.manifests.reading import read_table


def _set(folder: Path, table: str | bytes, videos: Iterable[str] = ("a.mp4", "b.mp4"), *, name: str = "t.csv") -> Path:
    """A table beside its videos."""
    folder.mkdir(parents=True, exist_ok=True)
    for video in videos:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).write_bytes(b"x")
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return folder / name


def _rows(manifest: Manifest) -> list[tuple[str, str, float | None, float | None]]:
    return [(clip.video, clip.label, clip.start_seconds, clip.end_seconds) for clip in manifest.clips]


def _said(manifest: Manifest) -> str:
    return " | ".join(manifest.notes)


# dialects

DIALECTS = {
    "sep line": ("t.csv", "sep=;\r\nvideo;label\r\na.mp4;walk\r\nb.mp4;run\r\n", "separated by semicolons"),
    "quoted sep line": ("t.csv", '"sep=|"\nvideo|label\na.mp4|walk\nb.mp4|run\n', "separated by |"),
    "sep line of commas": ("t.csv", "sep=,\nvideo,label\na.mp4,walk\nb.mp4,run\n", ""),
    "a comma in a quoted name": ("t.csv", 'video;label;"note, free"\na.mp4;walk;x\nb.mp4;run;"y, z"\n', "semicolons"),
    "pipes": ("t.csv", "video|label\na.mp4|walk\nb.mp4|run\n", "separated by |"),
    "tabs": ("t.csv", "video\tlabel\na.mp4\twalk\nb.mp4\trun\n", "separated by tabs"),
    "tsv": ("t.tsv", "video\tlabel\na.mp4\twalk\nb.mp4\trun\n", ""),
    "txt": ("t.txt", "video\tlabel\na.mp4\twalk\nb.mp4\trun\n", ""),
    "tsv of semicolons": ("t.tsv", "video;label\na.mp4;walk\nb.mp4;run\n", "semicolons"),
    "quoted names": ("t.csv", '"video";"label"\n"a.mp4";"walk"\n"b.mp4";"run"\n', "semicolons"),
    "quotes behind spaces": ("t.csv", 'video, "label"\na.mp4, "walk"\nb.mp4, "run"\n', ""),
    "spaces behind commas": ("t.csv", "video, label\na.mp4, walk\nb.mp4, run\n", "outer spaces of label"),
    "empty rows": ("t.csv", "video,label\na.mp4,walk\n,\nb.mp4,run\n , \n", "2 empty rows of {}, the first on line 3"),
    "empty rows first": ("t.csv", ";\n;\nvideo;label\na.mp4;walk\nb.mp4;run\n", "left out: 2 empty rows of {}"),
    "empty columns": ("t.csv", "video;label;;\na.mp4;walk;;\nb.mp4;run;;\n", "2 empty columns"),
    "old mac ends": ("t.csv", "video,label\ra.mp4,walk\rb.mp4,run\r", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
def test_every_dialect_is_read_and_said(case: str, tmp_path: Path) -> None:
    name, text, note = DIALECTS[case]
    path = _set(tmp_path, text, name=name)
    manifest = read_csv(path)
    assert _rows(manifest) == [("a.mp4", "walk", None, None), ("b.mp4", "run", None, None)]
    assert note.format(path) in _said(manifest)
    if "spaces behind" not in case:  # names with outer spaces are refused where no maker mends them
        assert read(path).clips == manifest.clips


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp1252", "Windows-1252"), ("utf-16", "UTF-16"), ("utf-8", ""), ("utf-8-sig", "")]
)
def test_encodings_of_spreadsheets_are_read_and_said(encoding: str, name: str, tmp_path: Path) -> None:
    path = _set(tmp_path, "video;label\nläufe.mp4;läufen €5\n".encode(encoding), ["läufe.mp4"])
    manifest = read_csv(path)
    assert _rows(manifest)[0][:2] == ("läufe.mp4", "läufen €5")
    assert (f"is not UTF-8: its letters are read as {name}, such as" in _said(manifest)) is bool(name)
    assert not name or "läuf" in _said(manifest)


def test_a_row_with_too_many_cells_is_named_by_its_line_behind_a_sep_line(tmp_path: Path) -> None:
    path = _set(tmp_path, "sep=;\nvideo;label\na.mp4;walk\nb.mp4;run;x\n")
    with pytest.raises(ManifestError, match=r"line 4: 3 cells, but .* 2 columns; a cell that holds a semicolon needs"):
        read_csv(path)


WORDS = st.text(st.sampled_from("abz äß,;|'\".\t"), min_size=1, max_size=8)
NUMBERS = st.one_of(st.none(), st.integers(0, 10**7).map(lambda n: n / 1000))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    has_sep=st.booleans(),
    decimal=st.sampled_from(["point", "comma"]),
    thousands=st.booleans(),
    free=WORDS,
    rows=st.lists(st.tuples(NUMBERS, NUMBERS, WORDS), min_size=1, max_size=5),
)
def test_one_table_in_every_dialect_gives_one_manifest(
    separator: str, quoting: Any, ending: str, encoding: str, has_sep: bool, decimal: str, thousands: bool, free: str,
    rows: list[tuple[float | None, float | None, str]], tmp_path: Path,
) -> None:  # fmt: skip
    """All but the line ends, and a `1.200` that the other numbers do not explain: then it asks."""
    assume(free.strip("\t .") == free and "\t" not in free)
    assume(encoding != "cp1252" or not re.search("[äß]{4}", " ".join([free, *(word for _, _, word in rows)])))
    header = ["video", "label", "start_seconds", "kcal", free]
    labels = ["läufen", "walk"]
    cells = [
        [f"{i}.mp4", labels[i % 2], _spelled(start, decimal, thousands), _spelled(kcal, decimal, thousands), word]
        for i, (start, kcal, word) in enumerate(rows)
    ]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=ending).writerows([header, *cells])
    text = (f"sep={separator}{ending}" if has_sep else "") + buffer.getvalue()
    path = _set(tmp_path, text.encode(encoding), [f"{i}.mp4" for i in range(len(rows))])
    manifest = read_csv(path, decimal=decimal)
    assert manifest.column("label") == [row[1] for row in cells]
    assert [clip.start_seconds for clip in manifest.clips] == [start for start, _, _ in rows]
    assert [None if math.isnan(value) else value for value in manifest.column("kcal")] == [kcal for _, kcal, _ in rows]
    assert manifest.column(free) == [word for _, _, word in rows]
    write(manifest, tmp_path / "m.csv", overwrite=True)
    assert read(tmp_path / "m.csv").clips == manifest.clips
    try:
        assert read_csv(path).clips == manifest.clips  # the numbers told
    except ManifestError as error:
        assert "may be" in str(error)


def _spelled(number: float | None, decimal: str, thousands: bool) -> str:
    if number is None:
        return ""
    text = f"{number:,}" if thousands else f"{number}"
    return text.translate(str.maketrans(".,", ",.")) if decimal == "comma" else text


# numbers


@pytest.mark.parametrize(
    ("column", "values", "note"),
    [
        (["0,5", "1.200"], [0.5, 1200], "marks of thousands are taken out: '1.200' of kcal is 1200"),
        (["0.5", "1.200"], [0.5, 1.2], "points are decimal: '1.200' of kcal is 1.200"),
        (["1.234,5", "1.200"], [1234.5, 1200], "decimal commas are read as points: '1.234,5' of kcal is 1234.5"),
        (["1,234.5", "1,200"], [1234.5, 1200], "marks of thousands"),
        (["1.234.567", "2"], [1234567, 2], "marks of thousands"),
        (["1 234,5", "1\u202f200"], [1234.5, 1200], "decimal commas"),
        (["1'234.50", "7"], [1234.5, 7], "marks of thousands"),
        (["-1,5", "2,5E+03"], [-1.5, 2500], "decimal commas"),
        (["0.5", "1,25"], [0.5, 1.25], "decimal commas"),
        (["12", ""], [12, math.nan], "columns taken"),
    ],
)
def test_numbers_of_a_column_explain_each_other(
    column: list[str], values: list[float], note: str, tmp_path: Path
) -> None:
    path = _set(
        tmp_path, "video;kcal\n" + "".join(f"{v};{c}\n" for v, c in zip(["a.mp4", "b.mp4"], column, strict=True))
    )
    manifest = read_csv(path)
    assert [str(value) for value in manifest.column("kcal")] == [str(float(value)) for value in values]
    assert note in _said(manifest)
    assert list(map(str, read(path).column("kcal"))) == list(map(str, manifest.column("kcal")))


def test_a_number_that_may_be_two_is_explained_by_another_column_or_asked_about(tmp_path: Path) -> None:
    path = _set(tmp_path, "video;start_seconds;kcal\na.mp4;0,5;1.200\nb.mp4;1;1.300\n")
    assert list(read_csv(path).column("kcal")) == [1200, 1300]
    path = _set(tmp_path, "video;weight;kcal\na.mp4;70.5;1.200\nb.mp4;;1.300\n")  # a column that is kept as text
    assert list(read_csv(path).column("kcal")) == [1.2, 1.3]
    for text in ("video;kcal\na.mp4;1.200\n", "video;start_seconds;kcal\na.mp4;0,5;1.200\nb.mp4;0.5;3\n"):
        path = _set(tmp_path, text)
        with pytest.raises(ManifestError, match=r"line 2: kcal '1\.200' may be 1\.200 or 1200, .*--decimal comma or"):
            read_csv(path)
        assert read_csv(path, decimal="comma").column("kcal")[0] == 1200
        assert read_csv(path, decimal="point").column("kcal")[0] == 1.2
    with pytest.raises(ManifestError, match="decimal = 'dot'; choose from comma, point"):
        read_csv(path, decimal="dot")
    options = ["--decimal", "comma", "--out", str(tmp_path / "m.csv")]
    result = CliRunner().invoke(cli.main, ["manifest", "csv", str(path), *options])
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "m.csv").column("kcal")[0] == 1200


def test_numbers_of_a_plain_csv_are_what_they_always_were(tmp_path: Path) -> None:
    """A comma parts its cells, so a point is decimal, whatever is quoted in a column of text."""
    path = _set(tmp_path, 'video,kcal,start_seconds,pair\na.mp4,1.200,12.345,"1,5"\nb.mp4,2.300,1.000,"2,5"\n')
    manifest = read(path)
    assert (list(manifest.column("kcal")), manifest.column("pair")) == ([1.2, 2.3], ["1,5", "2,5"])
    assert not any("point" in note or "thousand" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [("0:01,5", 1.5), ("00:01:02.5", 62.5), ("1:00:05", 3605), ("90:00", 5400), (" 0:07 ", 7), ("00:00:01.200", 1.2)],
)
def test_clocks_are_seconds_for_every_reader(cell: str, seconds: float, tmp_path: Path) -> None:
    path = _set(tmp_path, f"clip_id;video;start_seconds;end_seconds\n1;a.mp4;{cell};9999\n2;b.mp4;1;2\n")
    for manifest in (read_csv(path), read_intervals(path), read(path)):
        assert manifest.clips[0].start_seconds == seconds
        assert "clocks are read as seconds" in _said(manifest)


@pytest.mark.parametrize("name", ["start_ms", "Start (ms)", "Begin Time - msec", "onset_milliseconds"])
def test_milliseconds_are_seconds_where_the_name_says_so(name: str, tmp_path: Path) -> None:
    path = _set(tmp_path, f"video,{name},end\na.mp4,1500,2\n")
    manifest = read_intervals(path)
    assert _rows(manifest) == [("a.mp4", "", 1.5, 2.0)]
    assert "milliseconds are read as seconds: '1500' of start_seconds is 1.5" in _said(manifest)
    assert read_csv(path, mapping={"start_seconds": name}).clips[0].start_seconds == 1.5


def test_intervals_read_what_csv_reads(tmp_path: Path) -> None:
    for text in (
        "video;start;end;label\na.mp4;1,5;3,25;gehen\nb.mp4;4,5;6,0;laufen\n",
        "sep=|\nvideo|start|end|label\na.mp4|0:01,5|0:03,25|gehen\nb.mp4|4,5|6|laufen\n",
    ):
        manifest = read_intervals(_set(tmp_path, text))
        assert _rows(manifest) == [("a.mp4", "gehen", 1.5, 3.25), ("b.mp4", "laufen", 4.5, 6.0)]
        mapping = {"start_seconds": "start", "end_seconds": "end"}
        assert _rows(read_csv(tmp_path / "t.csv", mapping=mapping)) == _rows(manifest)


def test_an_official_list_is_not_mended(tmp_path: Path) -> None:
    path = _set(tmp_path, "label;youtube_id\nrun;x\n")
    assert "separated by semicolons" in read_table(path).notes[0]
    with pytest.raises(ManifestError, match="semicolons: an official list is needed as it was published"):
        read_list(path)
    with pytest.raises(ManifestError, match="columns 'kcal' and 'Kcal' differ only in case"):
        read_list(_set(tmp_path, "key,kcal,Kcal\nA01/a.avi,1,2\n"))


def test_an_error_says_what_was_guessed(tmp_path: Path) -> None:
    path = _set(tmp_path, "video,start,end,person,split\na.mp4,1,2,A,train\nb.mp4,1,2,A,test\nc.mp4,1,2,B,test\n")
    with pytest.raises(ManifestError, match="group 'A' is on both sides") as caught:
        read_intervals(path)
    assert any("the group is column 'person'" in note for note in caught.value.__notes__)


# columns


def test_doubled_columns_are_refused_by_every_maker(tmp_path: Path) -> None:
    path = _set(tmp_path, "clip_id,video,start,end,label,label\n1,a.mp4,5,10,walk,x\n")
    for make in (read_csv, read_intervals, read):
        with pytest.raises(ManifestError, match=r"t\.csv: column 'label' is there twice"):
            make(path)
    path = _set(tmp_path, "video,start,end,class,Class\na.mp4,5,10,walk,x\n")
    with pytest.raises(ManifestError, match=r"'class' and 'Class' may both be label; say which: --map label=class"):
        read_intervals(path)
    assert read_intervals(path, mapping={"label": "Class"}).column("label") == ["x"]
    with pytest.raises(ManifestError, match="'class' and 'Class' differ only in case"):
        read_csv(path)


def test_two_columns_mapped_to_one_are_refused(tmp_path: Path) -> None:
    path = _set(tmp_path, "video,a,b\na.mp4,1,2\n")
    result = CliRunner().invoke(cli.main, ["manifest", "csv", str(path), "--map", "label=a", "--map", "label=b"])
    assert result.exit_code == cli.WRONG_USE
    assert "'label' is mapped to 'a' and to 'b'" in result.stderr


HACS = "classname,youtube_id,subset,start,end,label\nArchery,a2X,training,15.5,17.5,1\nDrum,NUd,training,7,9,-1\n"
EPIC = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,narration,verb,verb_class,noun\n"
    "P03_0,P03,P03_02,00:00:03.29,00:00:04.26,197,put box,put,1,box\n"
    "P03_1,P03,P03_02,00:00:23.79,00:00:24.60,1427,take bin,take,5,bin\n"
)
BORIS = (
    "Observation id,Media file,Total length,FPS,Subject,Behavior,Behavioral category,Behavior type,Start (s),Stop (s)\n"
    "o,a.mp4,539.920,25.0,No focal subject,s,,STATE,1.800,8.125\n"
    "o,b.mp4,539.920,25.0,No focal subject,p,,POINT,32.825,32.825\n"
)
ELAN = (
    "Tier\tBegin Time - hh:mm:ss.ms\tBegin Time - ss.msec\tBegin Time - msec\tEnd Time - msec\tAnnotation\tFile Path\n"
    "hand\t00:00:01.200\t1.200\t1200\t3400\tpoint\tC:\\x\\a.mp4\n"
)
CHARADES = (
    "id,subject,scene,length,actions\na,LW02,Kitchen,12.5,c092 11.90 21.20;c147 0.00 12.60\nb,XV1,Hall,9,\n"
    "c,XV1,Hall,9,c092 1 2\n"
)


def test_hacs_label_of_numbers_names_the_column_of_words(tmp_path: Path) -> None:
    path = _set(tmp_path, HACS, ["a2X.mp4", "x/NUd.mp4"])
    manifest = read_intervals(path)
    assert manifest.column("video") == ["a2X.mp4", "x/NUd.mp4"]
    assert "label holds numbers only (-1, 1), and 'classname' may be the class (--map label=classname)" in _said(
        manifest
    )
    assert "columns taken: video=youtube_id, split=subset, label=label, start_seconds=start" in _said(manifest)
    again = read_intervals(path, mapping={"label": "classname"})
    assert again.column("label") == ["Archery", "Drum"]
    assert "--map label" not in _said(again)
    mapping = {"video": "youtube_id"}
    assert "--map label=classname" in _said(read_csv(path, mapping=mapping))
    assert "column 'start' is kept as text, and may be start_seconds (--map start_seconds=start)" in _said(
        read_csv(path, mapping=mapping)
    )


def test_epic_names_the_likely_label_and_takes_the_participant_for_the_group(tmp_path: Path) -> None:
    manifest = read_intervals(_set(tmp_path, EPIC, ["P03/P03_02.MP4"]))
    assert _rows(manifest)[0] == ("P03/P03_02.MP4", "", 3.29, 4.26)
    assert manifest.column("group") == ["P03", "P03"]
    assert "perhaps --map label=verb" in _said(manifest)


def test_boris_subject_that_is_nobody_is_no_group(tmp_path: Path) -> None:
    path = _set(tmp_path, BORIS)
    manifest = read_intervals(path)
    assert _rows(manifest)[0] == ("a.mp4", "s", 1.8, 8.125)
    assert manifest.column("group") == ["a.mp4", "b.mp4"]
    assert "column 'Subject' names nobody ('No focal subject'): the group is the video" in _said(manifest)
    assert "video=Media file, label=Behavior" in _said(manifest)
    assert set(read_intervals(path, mapping={"group": "Subject"}).column("group")) == {"No focal subject"}
    tabs = _set(tmp_path / "tabs", BORIS.replace(",", "\t"), name="boris.tsv")
    assert _rows(read_intervals(tabs)) == _rows(manifest)


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        (["a A", "b A", "c B"], ["A", "A", "B"]),
        (["a A", "a B", "b B", "c C"], ["A+B", "A+B", "A+B", "C"]),
        (["a A", "b ", "c NA"], ["A", "b.mp4", "c.mp4"]),
        (["a A", "b A"], ["a.mp4", "b.mp4"]),
        (["a A", "a B", "b B"], ["a.mp4", "a.mp4", "b.mp4"]),
        (["a A", "a B"], ["A+B", "A+B"]),
        (["a A", "a B", "a C", "a D", "a E", "b F"], ["A+B+C+2 more"] * 5 + ["F"]),
    ],
)
def test_a_guessed_subject_keeps_subject_and_video_together(
    pairs: list[str], groups: list[str], tmp_path: Path
) -> None:
    lines = [f"{pair.split(' ')[0]}.mp4,{i},{i + 1},{pair.split(' ')[1]}\n" for i, pair in enumerate(pairs)]
    path = _set(tmp_path, "video,start,end,subject\n" + "".join(lines), ["a.mp4", "b.mp4", "c.mp4"])
    assert read_intervals(path).column("group") == groups


def test_a_column_called_group_is_taken_as_it_is(tmp_path: Path) -> None:
    path = _set(tmp_path, "video,start,end,Group\na.mp4,1,2,x\nb.mp4,1,2,x\n")
    assert read_intervals(path).column("group") == ["x", "x"]


def test_elan_times_are_taken_in_seconds_and_paths_of_windows_are_read(tmp_path: Path) -> None:
    path = _set(tmp_path, ELAN, ["C:/x/a.mp4"], name="elan.txt")
    manifest = read_intervals(path)
    assert _rows(manifest) == [("C:/x/a.mp4", "point", 1.2, 3.4)]
    assert "start_seconds=Begin Time - hh:mm:ss.ms, end_seconds=End Time - msec" in _said(manifest)


def test_charades_intervals_are_clips_of_their_own(tmp_path: Path) -> None:
    path = _set(tmp_path, CHARADES, ["a.mp4", "b.mp4", "c.mp4"])
    manifest = read_intervals(path, mapping={"video": "id"})
    assert _rows(manifest) == [("a.mp4", "c092", 11.9, 21.2), ("a.mp4", "c147", 0.0, 12.6), ("c.mp4", "c092", 1, 2)]
    assert manifest.column("group") == ["LW02", "LW02", "XV1"]
    assert manifest.column("clip_id")[0] == "a@11.9-21.2"
    assert "'actions' holds several intervals per cell: a clip is made of each; 1 rows without any are left" in _said(
        manifest
    )
    assert len(read_intervals(path, mapping={"video": "id", "label": "label"})) == 3
    with pytest.raises(ManifestError, match=r"no column for video .* found id, subject, .*--map video=COLUMN"):
        read_intervals(path)


def test_charades_as_whole_videos_says_which_column_may_be_what(tmp_path: Path) -> None:
    manifest = read_csv(_set(tmp_path, CHARADES, ["a.mp4", "b.mp4", "c.mp4"]), mapping={"video": "id"})
    assert manifest.column("video") == ["a.mp4", "b.mp4", "c.mp4"]
    assert "--map label=actions" not in _said(manifest)
    assert "column 'actions' holds several intervals per cell: `reelbank manifest intervals` makes" in _said(manifest)
    assert "column 'subject' is kept as text, and may be group (--map group=subject)" in _said(manifest)


def test_a_label_may_be_a_column_whose_texts_repeat(tmp_path: Path) -> None:
    rows = "".join(f"a.mp4,{i},{i + 1},{'xy'[i % 2]},w{i}\n" for i in range(6))
    assert "perhaps --map label=what" in _said(read_intervals(_set(tmp_path, f"video,start,end,what,note\n{rows}")))


def test_a_column_of_nobody_is_not_proposed_for_the_group(tmp_path: Path) -> None:
    assert "group=Subject" not in _said(read_csv(_set(tmp_path, BORIS), mapping={"video": "Media file"}))


def test_seconds_of_elan_have_a_decimal_point(tmp_path: Path) -> None:
    text = "Begin Time - ss.msec\tEnd Time - ss.msec\tAnnotation\tFile\n1.000\t2.500\twalk\ta.mp4\n"
    (clip,) = read_intervals(_set(tmp_path, text)).clips
    assert (clip.start_seconds, clip.end_seconds, clip.label) == (1, 2.5, "walk")


@pytest.mark.parametrize("make", [read_csv, read_intervals])
def test_words_for_splits_are_read_and_said(make: Callable[..., Manifest], tmp_path: Path) -> None:
    """`training` took part in no training: HACS calls it so."""
    rows = [("training", 1), ("Validation", 2), ("TEST", 3), ("train", 4), ("training", 5), ("extra", 6)]
    text = "video,start,end,split\n" + "".join(f"a.mp4,{n},{n + 1},{split}\n" for split, n in rows)
    if make is read_csv:
        text = text.replace("start,end", "start_seconds,end_seconds")
    manifest = make(_set(tmp_path, text), allow_group_overlap=True)
    assert [clip.split for clip in manifest.clips] == ["train", "val", "test", "train", "train", "extra"]
    said = _said(manifest)
    assert "split 'training' is read as 'train' (2 clips)" in said
    assert "split 'TEST' is read as 'test' (1 clips)" in said and "'extra' is read" not in said


def test_a_missing_video_column_is_proposed(tmp_path: Path) -> None:
    path = _set(tmp_path, "Media file,label\na.mp4,x\n")
    result = CliRunner().invoke(cli.main, ["manifest", "csv", str(path), "--out", str(tmp_path / "m.csv")])
    assert result.exit_code == cli.WRONG_USE
    assert "perhaps --map 'video=Media file'" in result.stderr


def test_taken_columns_are_one_line_of_the_command(tmp_path: Path) -> None:
    path = _set(tmp_path, "file,onset,duration,behavior,x,y\na.mp4,1,2,walk,,\n")
    result = CliRunner().invoke(cli.main, ["manifest", "intervals", str(path), "--out", str(tmp_path / "m.csv")])
    taken = "columns taken: video=file, label=behavior, start_seconds=onset, duration=duration; kept as text: x, y"
    assert taken in result.stderr.splitlines()
    assert "columns taken: video=video; kept as text" in _said(read_csv(_set(tmp_path, "video,x\na.mp4,1\n")))


# paths

PATHS = {
    "outer spaces": ("vids/a.mp4 ", "vids/a.mp4", "outer spaces of paths are removed (1)"),
    "backslashes": ("vids\\a.mp4", "vids/a.mp4", "backslashes of paths are read as slashes (1)"),
    "both": (" vids\\a.mp4", "vids/a.mp4", "backslashes"),
    "case": ("VIDS/A.MP4", "vids/a.mp4", "differ in case or in Unicode's form (1): 'VIDS/A.MP4' is 'vids/a.mp4'"),
    "case and backslashes": ("Vids\\A.mp4", "vids/a.mp4", "differ in case"),
    "composed": (unicodedata.normalize("NFC", "vids/é.mp4"), unicodedata.normalize("NFD", "vids/é.mp4"), "Unicode"),
    "decomposed": (unicodedata.normalize("NFD", "vids/é.mp4"), unicodedata.normalize("NFC", "vids/é.mp4"), "Unicode"),
    "file URL": ("file:///x%20y/vids/a.mp4", "vids/a.mp4", "file:// URLs are read as paths (1)"),
    "file URL of Windows": (
        "file:///C:/me/vids/a.mp4",
        "vids/a.mp4",
        "from their last folders that are, below the root",
    ),
    "drive": ("C:\\me\\vids\\a.mp4", "vids/a.mp4", "are taken from their last folders"),
    "of another machine": ("/home/me/vids/a.mp4", "vids/a.mp4", "'/home/me/vids/a.mp4' is 'vids/a.mp4'"),
    "no suffix": ("a", "vids/a.mp4", "names without a suffix are those of videos below the root (1): 'a' is"),
}


@pytest.mark.parametrize("case", PATHS)
def test_paths_are_found_as_the_files_are_called(case: str, tmp_path: Path) -> None:
    cell, file, note = PATHS[case]
    for make, text in (
        (read_csv, f"clip_id,video,label\n1,{cell},walk\n"),
        (read_intervals, f"video,start,end\n{cell},1,2\n"),
    ):
        manifest = make(_set(tmp_path, text, [file]))
        assert manifest.column("video") == [file]
        assert note in _said(manifest)


@pytest.mark.parametrize("file", ["vids/a.mp4 ", " a.mp4", "a\\b.mp4", "A.MP4"])
def test_a_path_whose_file_is_there_stays(file: str, tmp_path: Path) -> None:
    path = _set(tmp_path, f"clip_id,video\n1,{file}\n", [file, "a.mp4", "vids/a.mp4"])
    manifest = read_csv(path)
    assert manifest.column("video") == [file]
    assert not any("paths" in note for note in manifest.notes)


def test_two_files_that_a_name_may_mean_are_not_guessed(tmp_path: Path) -> None:
    path = _set(tmp_path, "clip_id,video\n1,a.mp4\n2,b.mp4\n", ["A.mp4", "a.MP4", "b.mp4"])
    assert "1 of 2 videos are missing" in _said(read_csv(path))
    path = _set(tmp_path / "stems", "clip_id,video\n1,a\n", ["p/a.mp4", "q/a.avi"])
    with pytest.raises(ManifestError, match=r"line 2: video 'a' may be p/a\.mp4 or q/a\.avi in .*; write its folder"):
        read_csv(path)


def test_a_path_of_the_root_is_not_mended_out_of_it(tmp_path: Path) -> None:
    path = _set(tmp_path, "clip_id,video\n1,..\\a.mp4\n", ["a.mp4", "vids/b.mp4"])
    with pytest.raises(ManifestError, match="leaves the root"):
        read_csv(path, root=tmp_path / "vids")


def test_other_path_columns_are_mended_too(tmp_path: Path) -> None:
    path = _set(tmp_path, "clip_id,video,flow_x\n1,a.mp4,f\\x.png\n", ["a.mp4", "f/x.png"])
    assert read_csv(path).column("flow_x") == ["f/x.png"]


def test_a_wrong_root_is_found_before_anything_runs(tmp_path: Path) -> None:
    lines = "".join(f"vids/{i}.mp4,walk\n" for i in range(120))
    path = _set(tmp_path, "video,label\n" + lines, [f"vids/{i}.mp4" for i in range(120)])
    arguments = ["manifest", "csv", str(path), "--root", str(tmp_path / "vids"), "--out", str(tmp_path / "m.csv")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == cli.WRONG_USE
    first = result.stderr.splitlines()[0]
    assert "none of its 120 videos is there: 'vids/0.mp4' would be" in first
    assert first.endswith(f"with --root (it lies under {tmp_path})")
    assert "columns taken: video=video" in result.stderr
    assert not (tmp_path / "m.csv").exists()
    (tmp_path / "vids/7.mp4").unlink()
    (tmp_path / "vids/9.mp4").unlink()
    note = f"2 of 120 videos are missing under {tmp_path}; the first is 'vids/7.mp4' (line 9)"
    assert note in read_csv(path).notes
    assert not any("missing" in note for note in read_csv(_set(tmp_path, "video\nvids/1.mp4\n")).notes)


def test_annotations_without_their_videos_are_no_wrong_root(tmp_path: Path) -> None:
    path = _set(tmp_path, "clip_id,video,annotations\n1,a.mp4,k.json\n", ["k.json"])
    assert "1 of 1 videos are missing" in _said(read_csv(path))
    assert len(read_csv(_set(tmp_path, "clip_id,annotations\n1,k.json\n"))) == 1


# folders


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["walk/trail .mp4", "walk/b.mp4"], ["walk/b", "walk/trail"]),
        (["walk/a .mp4", "walk/a.mp4"], ["walk/a .mp4", "walk/a.mp4"]),
        (["walk /a.mp4", "walk/a.mp4"], ["walk /a", "walk/a"]),
        ([" walk/a.mp4", "run/a.mp4"], ["run/a", "walk/a"]),
        (["train /walk/a.mp4", "test/walk/a.mp4"], ["test/walk/a", "train /walk/a"]),
    ],
)
def test_names_of_files_and_folders_may_end_in_spaces(files: Sequence[str], ids: Sequence[str], tmp_path: Path) -> None:
    _set(tmp_path / "set", "", files)
    (tmp_path / "set/t.csv").unlink()
    manifest = read_folder(tmp_path / "set")
    assert sorted(manifest.column("clip_id")) == ids
    assert set(manifest.column("label")) <= {"walk", "run"}
    assert all(path is not None and path.is_file() for path in map(manifest.video_path, manifest.clips))
    spaced = any(name != name.strip() for file in files for name in file.split("/")[-2:-1])
    assert any("outer spaces of class folders" in note for note in manifest.notes) is spaced
    write(manifest, tmp_path / "m.csv")
    assert len(read(tmp_path / "m.csv")) == len(files)


# anything


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.lists(st.sampled_from(["video", "start", "Stop (ms)", "Subject", "label", "kcal", "x", "", "clip_id"])),
    rows=st.lists(st.lists(st.sampled_from(["a.mp4", "a", "1.200", "1,5", "0:01", "..\\x", " ", "\0", "A 1 2", "-1"]))),
    separator=st.sampled_from(",;\t|"),
    decimal=st.sampled_from([None, "comma"]),
)
def test_any_table_is_read_or_refused_by_name(
    header: list[str], rows: list[list[str]], separator: str, decimal: str | None, tmp_path: Path
) -> None:
    lines = [separator.join((*row, *header)[: len(header)]) for row in rows]
    path = _set(tmp_path, "\n".join([separator.join(header), *lines]))
    for make in (read_csv, read_intervals):
        try:
            manifest = make(path, decimal=decimal)
        except ManifestError as error:
            assert "t.csv" in str(error)
        else:
            assert len(manifest) >= 1


def test_empty_split_is_said(tmp_path: Path) -> None:
    manifest = read_csv(_set(tmp_path, "video,label,split\na.mp4,x,train\nb.mp4,y,\n"))
    assert "1 clips have an empty split, and take part in no training and no test" in _said(manifest)
    assert "(train 1, no split 1)" in manifest.summary()
