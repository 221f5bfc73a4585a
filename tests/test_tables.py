"""A user's CSV as spreadsheets, editors and hands write it: read rightly, or refused by line with a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import videos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets import folder
from crossview.datasets.catalog.listing import LONGEST, SEPARATORS, Problems, cells, table, text_lines
from crossview.datasets.catalog.recording_lines import read_lines
from crossview.errors import UserError

HEADER = ["path", "split", "scene", "view", "perspective", "action", "start_offset_s"]
LINES = [
    ["a.mp4", "train", "s", "head", "ego", "café", "0.5"],
    ["b, c.mp4", "train", "s", "left", "exo", "café", ""],
    ["d.mp4", "train", "t", "left", "exo", "", "-1e-1"],
]
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text_of(lines: list[list[str]], separator: str = ",", end: str = "\n") -> str:
    quoted = [[f'"{v.replace(chr(34), chr(34) * 2)}"' if set(v) & {*SEPARATORS, '"'} else v for v in r] for r in lines]
    return end.join(separator.join(line) for line in quoted) + end


def catalogued(root: Path, data: bytes) -> list[tuple[str, str, float]]:
    """What the adapter makes of a CSV: (path, action, start_offset_s) per line, without opening any video."""
    for name in ("a.mp4", "b, c.mp4", "d.mp4"):
        (root / name).touch()
    (root / "v.csv").write_bytes(data)
    lines = read_lines(root, root / "v.csv")
    return [(line.values["path"], line.values["action"], line.start_offset_s) for line in lines]


EXPECTED = [("a.mp4", "café", 0.5), ("b, c.mp4", "café", 0.0), ("d.mp4", "", -0.1)]


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be with mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    text = text_of([HEADER, *LINES], separator, end)
    data = ("\ufeff" + text).encode("utf-16-be") if "mark" in encoding else text.encode(encoding)
    assert catalogued(tmp_path, data) == EXPECTED


def test_spaces_case_blank_lines_and_emptied_cells_do_not_matter(tmp_path: Path) -> None:
    untidy = [
        " Path ,SPLIT, scene,view,Perspective,action,Start_Offset_S,,", "", ",,,,,,,,", "   ",
        ' a.mp4, train ,s,head, EGO,"café" ,0.5,,', '"b, c.mp4",train,s,left,exo, "café",,,',
        "d.mp4,train,t,left,Exo,,-0.1",
    ]  # fmt: skip
    assert catalogued(tmp_path, "\n".join(untidy).encode()) == EXPECTED


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ("path,split\na.mp4,café".encode("cp1252"), [r"line 2: the bytes e9 are not UTF-8; save the file as UTF-8"]),
        ("path;split\na".encode("utf-16-le"), [r"line 1: it holds a NUL character.*save the file as UTF-8"]),
        (b"\xff\xfep", [r"v\.csv, line 1: the bytes 70 are not UTF-16-LE; save the file as UTF-8"]),
        (b"", [r"v\.csv: it is empty; write the header path,split"]),
        (b"\n , \n", [r"line 2: it names none of the columns; the first line must be the header path,split"]),
        (b"path,path,Split,sceen,view,perspective\n", [
            r"line 1: column 'path' is there 2 times; keep one",
            r"line 1: column 'sceen' is unknown; did you mean 'scene'\?",
            r"line 1: column 'scene' is missing",
        ]),
        (b"path,split,scene,view,perspective\n", [r"v\.csv: it lists no recording"]),
    ],
)  # fmt: skip
def test_files_and_headers_that_cannot_be_read(tmp_path: Path, data: bytes, messages: list[str]) -> None:
    with pytest.raises(UserError) as error:
        catalogued(tmp_path, data)
    found = str(error.value).splitlines()
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert re.search(message, line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('a.mp4,train,s,head,ego,"open,0', "a quote .* is not closed in this line"),
        ('a.mp4,train,s,head,ego,open",0', "a quote .* stands inside a value"),
        ('a.mp4,train,s,head,ego,"op"en,0', "a quote .* stands inside a value"),
        ("a.mp4,train,s,head,ego,tea", ".* does not fit the header, which has 7 columns, not 6"),
        ("a.mp4,train,s,head,ego,tea,0,x", ".* does not fit the header, which has 7 columns, not 8.*in quotes"),
        ("a.mp4,train,s,head,ego,tea,\"0,5\"", "column 'start_offset_s': '0,5' is not a number.*such as 0.5"),
        ("a.mp4,train,s,head,ego,tea,1_000", "column 'start_offset_s': '1_000' is not a number.*such as 1.25"),
        ("a.mp4,train,s,head,ego,tea,1e999", "column 'start_offset_s': '1e999' is not a number"),
        ("a.mp4,train,s,head,ego,tea,nan", "column 'start_offset_s': 'nan' is not a number"),
        ("../a.mp4,train,s,head,ego,tea,0", r"column 'path': '\.\./a\.mp4' leads out of .*relative to it"),
        ("/a.mp4,train,s,head,ego,tea,0", "column 'path': '/a.mp4' leads out of .*relative to it"),
        ("x\\a.mp4,train,s,head,ego,tea,0", "column 'path': x\\\\a\\.mp4 is missing.*write '/' between folders"),
        (f"{'a' * 5000},train,s,head,ego,tea,0", "column 'path': .{,160} is missing"),
        (f"{'a' * (LONGEST + 1)},train", f"it has {LONGEST + 7} characters, and at most {LONGEST} are read"),
        ("a.mp4\0,train,s,head,ego,tea,0", "it holds a NUL character"),
        ("a.mp4,,s,head,ego,tea,0", "column 'split': it is empty"),
        ("a.mp4,train,s/1,head,ego,tea,0", "column 'scene': 's/1' holds a '/'"),
        ("a.mp4,train,s,head,first,tea,0", "column 'perspective': 'first' is unknown; write ego or exo"),
    ],
)  # fmt: skip
def test_a_broken_line_is_refused_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    good = "d.mp4,train,t,left,exo,tea,0"
    with pytest.raises(UserError, match=rf"v\.csv, line 4[:,] {message}") as error:
        catalogued(tmp_path, "\n".join([",".join(HEADER), good, "", line, ""]).encode())
    assert len(str(error.value)) < 1000
    assert "could not convert" not in str(error.value)


def test_quotes_that_span_lines_lose_none_of_them(tmp_path: Path) -> None:
    """Four lines, of which the second opens a quote that only the fourth closes."""
    lines = ['a.mp4,train,s,head,ego,"open,', "b.mp4,train,s,left,exo,open,", 'c.mp4,train,s,right,exo,open",']
    for name in "bce":
        (tmp_path / f"{name}.mp4").touch()
    with pytest.raises(UserError) as error:
        catalogued(tmp_path, "\n".join([",".join(HEADER), *lines, "e.mp4,train,s,back,exo,open,"]).encode())
    first, second = str(error.value).splitlines()
    assert re.search(r"v\.csv, line 2: a quote", first)
    assert re.search(r"v\.csv, line 4: a quote", second)


def test_all_broken_lines_are_listed_up_to_ten(tmp_path: Path) -> None:
    wrong = [f"gone{k}.mp4,train,s,v{k},ego,tea,soon" for k in range(6)]
    wrong.insert(3, '"')
    with pytest.raises(UserError) as error:
        catalogued(tmp_path, "\n".join([",".join(HEADER), *wrong]).encode())
    found = str(error.value).splitlines()
    assert len(found) == Problems.SHOWN + 1
    assert [int(re.findall(r"line (\d+)", line)[0]) for line in found[:10]] == [2, 2, 3, 3, 4, 4, 5, 6, 6, 7]
    assert found[10] == "... and 3 more"


def test_one_file_is_one_camera_of_a_scene_and_in_one_split(tmp_path: Path) -> None:
    lines = [
        "a.mp4,train,s,head,ego,,", "a.mp4,train,s,left,exo,,", "./a.mp4,val,t,head,ego,,", "d.mp4,train,u,head,ego,,",
        "d.mp4,train,v,head,ego,,",  # one file may serve two scenes of a split
    ]  # fmt: skip
    with pytest.raises(UserError) as error:
        catalogued(tmp_path, "\n".join([",".join(HEADER), *lines]).encode())
    twin, split = str(error.value).splitlines()
    assert re.search(r"line 3: a\.mp4 is in line 2 already as view 'head' of this scene", twin)
    assert re.search(r"line 4: \./a\.mp4 is in split 'val' and in split 'train', there as a\.mp4", split)


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a #1 100%20 [é].mp4").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    (found,) = catalogued(root, (",".join(HEADER) + "\nlinked/a #1 100%20 [é].mp4,train,s,head,ego,tea,0").encode())
    assert found[0] == "linked/a #1 100%20 [é].mp4"


@QUICK
@given(data=st.data())
def test_what_is_written_is_read(tmp_path: Path, data: st.DataObject) -> None:
    """Any values come back as they were, one row per line."""
    value = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=8).map(str.strip)
    rows = data.draw(st.lists(st.lists(value, min_size=3, max_size=3), max_size=5))
    separator = data.draw(st.sampled_from(SEPARATORS))
    (tmp_path / "t.csv").write_text(text_of([["x", "y", "z"], *rows], separator), encoding="utf-8", newline="")
    problems = Problems()
    found = list(table(tmp_path / "t.csv", ("x", "y"), ("z",), problems))
    assert not problems
    assert [list(row.values.values()) for row in found] == [row for row in rows if any(row)]


@QUICK
@given(data=st.binary(max_size=60) | st.text("path,;\t\n\r\"é 'x", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_and_no_line_is_lost(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(b"x,y\n" + data)
    problems, refused, rows = Problems(), "", []
    try:
        rows = list(table(tmp_path / "t.csv", ("x", "y"), (), problems))
    except UserError as error:
        refused = str(error)
    if refused:
        assert re.search(r"t\.csv, line \d+: ", refused)
        return
    lines = [line for line in re.split("\r\n|\r|\n", data.decode()) if re.sub('[,"]', "", line).strip()]
    numbers = {row.number for row in rows} | {int(re.findall(r"line (\d+)", p)[0]) for p in problems.found}
    assert len(rows) + len(problems.found) == len(numbers) >= len(lines)


def test_lines_count_as_editors_count_them(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("one\r\n\r\ntwo\u2028still two\rthree\x0c\n".encode())
    assert text_lines(tmp_path / "t.txt") == [(1, "one"), (3, "two\u2028still two"), (4, "three\x0c")]
    assert cells(tmp_path / "t.txt", 1, ' a ;"b;""c"""; d', ";") == ["a", 'b;"c"', "d"]
    assert cells(tmp_path / "t.txt", 1, ',"a.mp4"  , "", b,', ",") == ["", "a.mp4", "", "b", ""]


def test_a_link_to_a_file_of_the_scene_is_no_camera_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    lines = ["a.mp4,train,s,head,ego,,", "link.mp4,train,s,left,exo,,"]
    with pytest.raises(UserError, match=r"line 3: link\.mp4 is in line 2 already as view 'head' of this scene"):
        catalogued(tmp_path, "\n".join([",".join(HEADER), *lines]).encode())


def test_further_columns_are_passed_over_where_they_are_named(tmp_path: Path) -> None:
    videos.write(tmp_path / "a.mp4", frames=5)
    csv = tmp_path / "list.csv"
    csv.write_text("Note;path;split;scene;view;perspective;Take No\nfine;a.mp4;train;s;v;ego;7\n")
    with pytest.raises(UserError) as refused:
        folder.catalog(folder.Options(root=tmp_path, csv=csv, ignore_columns=("note",)))
    assert str(refused.value).startswith(f"{csv}, line 1: column 'take no' is unknown; choose from path, split,")
    assert str(refused.value).endswith("or pass over it with --ignore-columns 'take no'")
    (found,) = folder.catalog(folder.Options(root=tmp_path, csv=csv, ignore_columns=("note", "Take No"))).recordings
    assert (found.path, found.scene) == ("a.mp4", "s")
    for names, said in (
        (("note", "take no", "view"), "column 'view' is needed; take it out of --ignore-columns"),
        (("note", "take no", "mood"), "there is no column 'mood', which --ignore-columns names; take it out of that"),
    ):
        with pytest.raises(UserError, match=said):
            folder.catalog(folder.Options(root=tmp_path, csv=csv, ignore_columns=names))
