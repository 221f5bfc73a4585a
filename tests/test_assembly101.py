"""Assembly101: official counts from names, its quirks, features from LMDBs to a training step, and broken files."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets import assembly101
from crossview.datasets.assembly101 import FINE, SLOTS, Options, Span, catalog, read_annotations
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.sampling.sequences import Sequences
from crossview.datasets.synthetic import layouts
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.errors import UserError
from crossview.platform.cli import prepare
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset
from crossview.platform.train.launcher import start
from crossview.platform.train.metrics import read_metrics

WORLD = WorldConfig(
    actions=("strike_peg",), train_takes=3, val_takes=1, test_takes=1, ego_cameras=4, exo_cameras=3, size_px=32,
    min_frames=24, max_frames=30, cut="whole",
)  # fmt: skip
A = "nusar-2021_action_both_9015-b05b_9015_user_id_2021-02-02_161800"
B = "nusar-2021_action_both_9065-c09a_9095_user_id_2021-02-23_151023"
ACTIONS = "action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls"
FINE_COLUMNS = f"id,video,start_frame,end_frame,{ACTIONS},toy_id,toy_name,is_shared,is_RGB"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("assembly101")
    options: Options = layouts.export("assembly101", write(WORLD, folder / "world"), folder / "root")
    return options


@pytest.fixture(scope="module")
def found(exported: Options, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog(exported, prober=Prober(tmp_path_factory.mktemp("indices")))


def of_features(exported: Options, packed: Path) -> Options:
    assert exported.root is not None
    return replace(exported, root=None, features=exported.root / "TSM_features", packed=packed)


def text(file: Path, *lines: str, end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(end.join(lines) + end, newline="")
    return file


def coarse(folder: Path, lists: dict[str, list[str]], labels: dict[str, list[str]] | None = None) -> Path:
    """Coarse annotations: recordings by "train_assembly" and so on, and the lines of label files."""
    base = folder / "coarse-annotations"
    for split, part in itertools.product(("train", "val", "test"), ("assembly", "disassembly")):
        rows = [f"{part}_{name}.txt\t\tnotshared\ta30\tsuv" for name in lists.get(f"{split}_{part}", ())]
        text(base / "coarse_splits" / f"{split}_coarse_{part}.txt", "\n".join(rows), end="")
    text(base / "actions.csv", ACTIONS, *(f"{k},0,0,act {k},act,it" for k in range(202)), end="\r\n")
    for name, rows in (labels or {}).items():
        text(base / "coarse_labels" / f"{name}.txt", *rows)
    return folder


def official_names() -> list[str]:
    """350 recordings in the grammar of the real names; seven have two persons."""
    toys = [f"{kind}{number:02d}{part}" for kind in "abc" for number in range(1, 12) for part in ("", "a", "f")]
    names = []
    for k in range(350):
        user = 9011 + k % 48
        actor = user - 1 if k < 7 else user
        names.append(f"nusar-2021_action_both_{actor}-{toys[k % 99]}_{user}_user_id_2021-02-{1 + k // 50:02d}_{k:06d}")
    return names


def test_official_counts(tmp_path: Path) -> None:
    names = official_names()
    train, val, test = names[:204], names[204:265], names[265:]
    lists = {
        "train_assembly": train[:191], "train_disassembly": train[2:], "val_assembly": val[:60],
        "val_disassembly": val[1:], "test_assembly": test[:83], "test_disassembly": test[1:],
    }  # fmt: skip
    coarse(tmp_path, lists)
    sequences = [f"{key.partition('_')[2]}_{name}" for key, of in lists.items() for name in of]
    family = [[camera for camera in SLOTS if camera.endswith("rgb")] for _ in range(2)]
    for k in range(2):
        family[k] += [camera for camera in SLOTS if camera.startswith("HMC")][4 * k : 4 * k + 4]
    views = [12] * 651 + [11] * 8 + [10] + [8] * 20
    rows = [f"{s}/{camera}.mp4" for k, (s, count) in enumerate(zip(sequences, views, strict=True))
            for camera in family[k % 2][:count]]  # fmt: skip
    assert len(rows) == 8_070
    text(tmp_path / "coarse-annotations" / "coarse_seq_views.txt", *rows)
    read = read_annotations(tmp_path, ("coarse",))
    assert read.sequences == {"train": 393, "val": 120, "test": 167}
    assert Counter(read.splits.values()) == {"train": 204, "val": 61, "test": 85}
    assert read.classes["coarse"] == tuple(f"act {k}" for k in range(202))
    assert set(read.videos) == {row.partition("assembly_")[2].removesuffix(".mp4") for row in rows}
    persons = [assembly101.RECORDING.fullmatch(name) for name in names]
    assert sum(person["actor"] != person["user"] for person in persons if person) == 7


def test_fine_classes_keep_their_official_ids(tmp_path: Path) -> None:
    base = tmp_path / "fine-grained-annotations"
    rows = [f"{k},{k},{k % 24},{k % 90},act {k},verb {k % 24},noun {k % 90}" for k in reversed(range(1380))]
    text(base / "actions.csv", f"id,{ACTIONS}", *rows)
    text(base / "train.csv", FINE_COLUMNS, f"7,{A}/C10404_rgb.mp4,84,111,1379,11,29,x,y,z,a30,suv,0,1")
    read = read_annotations(tmp_path, FINE)
    assert [len(read.classes[kind]) for kind in FINE] == [24, 90, 1380]
    assert read.classes["action"][1379] == "act 1379"
    labels = (("verb", "verb 11"), ("noun", "noun 29"), ("action", "act 1379"))
    assert read.fine == {f"{A}/C10404_rgb": [Span(84, 111, labels)]}
    assert read.splits == {A: "train"}


def test_recordings_views_and_persons(found: Catalog) -> None:
    by_scene: dict[str, list[Recording]] = {}
    for recording in found.recordings:
        by_scene.setdefault(recording.scene, []).append(recording)
    views = Counter(tuple(r.view for r in of) for of in by_scene.values())
    assert views == {("e1", "e2", "e3", "e4", "v1", "v2", "v3"): 4, ("v1", "v2", "v3"): 1}
    serials = {re.sub("mono10bit|HMC|[_.]|mp4", "", Path(r.path).name) for r in found.recordings if r.view == "e1"}
    assert serials == {"84346135", "21176875"}
    assert {r.perspective for r in found.recordings if r.view < "f"} == {"ego"}
    first = found.recordings[0]
    assert (first.subject, first.action) == ("9011", "a01")
    assert Counter(found.protocols["default"].values()) == {"train": 17, "val": 7, "test": 7}


def test_times_are_in_seconds_whatever_the_rate_of_the_file(found: Catalog, exported: Options) -> None:
    rates = {r.scene: r.fps for r in found.recordings}
    assert set(rates.values()) == {15.0, 60.0}  # the first scene is at 60, as all real ones are
    assert exported.root is not None
    world = Catalog.load(exported.root.parent / "world")
    scenes = list(dict.fromkeys(r.scene for r in world.recordings))
    for recording in found.recordings:
        if recording.view != "v1" or found.split_of(recording) == "test":
            continue
        number = int(recording.scene[-6:]) - 100000
        phases = [s for s in world.segments if s.name == "phase" and s.recording.split("/")[1] == scenes[number]]
        expected = sorted({(s.start_s, s.end_s, s.label.replace("_", " ")) for s in phases})
        if number == 1:
            expected = expected[2:]  # it has one of the two sequences
        segments = sorted((s.start_s, s.end_s, s.label) for s in found.segments
                          if s.recording == recording.id and s.name == "coarse")  # fmt: skip
        assert [label for *_, label in segments] == [label for *_, label in expected]
        np.testing.assert_allclose([s[:2] for s in segments], [s[:2] for s in expected], atol=1e-9)


def test_a_truncated_file_loses_the_labels_after_its_end(found: Catalog) -> None:
    cut, whole = (next(r for r in found.recordings if r.view == view) for view in ("e3", "e1"))
    assert cut.scene == whole.scene
    assert cut.num_frames < whole.num_frames
    ends = [max(s.end_s for s in found.segments if s.recording == r.id) for r in (cut, whole)]
    assert ends[0] == pytest.approx(cut.num_frames / 60)
    assert any(re.match(rf"left out: \d+ spans outside their video \({cut.id} at ", n) for n in found.notes)


def test_a_truncated_file_shortens_no_other_camera(found: Catalog) -> None:
    """The benchmark's code shortens every camera that it reads after such a one."""
    scene = next(r.scene for r in found.recordings if r.view == "e3")
    of = {r.view: r.id for r in found.recordings if r.scene == scene}
    ends = {view: max(s.end_s for s in found.segments if s.recording == name) for view, name in of.items()}
    assert ends.pop("e3") < min(ends.values())
    assert list(ends.values()) == pytest.approx([ends["v1"]] * 6)


def test_annotated_frame_1_is_the_first_feature(tmp_path: Path) -> None:
    """Keys count from 1 as annotations do; LTContext's code for arrays counts them from 0."""
    lines = ["0000000001\t0000000021\tact 3", "0000000021\t0000000041\tact 5"]
    listed = {"train_assembly": [A], "val_disassembly": [B], "test_assembly": [official_names()[0]]}
    coarse(tmp_path, listed, {f"assembly_{A}": lines, f"disassebly_{B}": lines})  # misspelt, as in the benchmark's code
    (tmp_path / "TSM_features" / "C10095_rgb").mkdir(parents=True)
    with lmdb.open(str(tmp_path / "TSM_features" / "C10095_rgb"), map_size=2**26) as env, env.begin(write=True) as put:
        for frame in range(1, 41):
            put.put(f"{A}/C10095_rgb/C10095_rgb_{frame:010d}.jpg".encode(), np.full(2048, frame, "<f4").tobytes())
    options = Options(
        annotations=tmp_path, features=tmp_path / "TSM_features", packed=tmp_path / "packed", labels=("coarse",)
    )
    made = catalog(options)
    assert f"without labels: 1 of coarse_labels (disassembly_{B}.txt)" in made.notes
    row = SequencePlan(made, Sequences(kind="coarse", classes=202, chunk=1), seed=0, test=True).row(0)
    shown = np.load(made.file(made.recordings[0]))[row.frames[0, :, 0], 0]
    assert shown.tolist() == list(range(1, 41))
    assert row.targets["coarse"].tolist() == [3] * 20 + [5] * 20


def test_withheld_labels_and_what_is_missing(found: Catalog) -> None:
    tested = {r.id for r in found.recordings if found.split_of(r) == "test"}
    assert tested
    assert not [s for s in found.segments if s.recording in tested]
    assert found.notes[0] == "coarse sequences in the lists: train 7, val 2, test 2"
    assert found.notes[1].startswith("recordings: 5 of 6 listed are here; missing: 1 (nusar-2021_action_both_9099-c09a")
    assert found.notes[2].startswith("videos or features of coarse sequences: 31 of 32 listed are here; missing: 1")


def test_only_the_labels_asked_for(exported: Options, tmp_path: Path) -> None:
    made = catalog(replace(exported, labels=("coarse", "verb")), prober=Prober(tmp_path))
    assert {s.name for s in made.segments} == set(made.classes) == {"coarse", "sequence", "verb"}


def test_features_are_packed_once_and_catalogued(exported: Options, tmp_path: Path) -> None:
    options = of_features(exported, tmp_path / "packed")
    made = catalog(options)
    assert made.root == tmp_path / "packed"
    assert {(r.kind, r.fps) for r in made.recordings} == {("features", 30.0)}
    assert Counter(made.protocols["default"].values()) == {"train": 14, "val": 7, "test": 7}
    assert not made.quarantined
    assert options.features is not None
    for recording in made.recordings:
        camera = Path(recording.path).stem
        with lmdb.open(str(options.features / camera), readonly=True, lock=False) as env, env.begin() as reading:
            keys = [f"{recording.scene}/{camera}/{camera}_{k + 1:010d}.jpg" for k in range(recording.num_frames)]
            exact = np.stack([np.frombuffer(reading.get(key.encode()), "<f4") for key in keys])
        packed = np.load(made.file(recording), mmap_mode="r")
        assert (packed.dtype, packed.shape) == (np.float16, (recording.num_frames, 2048))
        np.testing.assert_array_equal(packed, exact.astype(np.float16))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "packed").rglob("*.npy")}
    again = catalog(replace(options, features=None))  # the LMDBs may be gone by then
    assert again.recordings == made.recordings
    assert catalog(options).recordings == made.recordings
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "packed").rglob("*.npy")} == before


def test_features_that_lack_a_frame_are_set_aside(exported: Options, tmp_path: Path) -> None:
    options = of_features(exported, tmp_path / "packed")
    assert options.features is not None
    camera, broken = "C10095_rgb", tmp_path / "TSM_features"
    shutil.copytree(options.features / camera, broken / camera)
    with lmdb.open(str(broken / camera), map_size=2**34) as env, env.begin(write=True) as writing:
        cursor = writing.cursor()
        cursor.first()
        recording = cursor.key().decode().split("/")[0]
        assert writing.delete(f"{recording}/{camera}/{camera}_{5:010d}.jpg".encode())
    made = catalog(replace(options, features=broken))
    (aside,) = made.quarantined
    assert aside.path == f"{recording}/{camera}.npy"
    assert re.search(rf"{camera}, keys {recording}/.*: frame 5 of \d+ is missing", aside.reason)
    assert len(made.recordings) == 3
    assert not (tmp_path / "packed" / aside.path).exists()


@pytest.mark.parametrize(("name", "pairs"), [("paper_step1", 2), ("paper_step2", 1)])
def test_evgap_trains_on_packed_features(exported: Options, tmp_path: Path, name: str, pairs: int) -> None:
    words = {"annotations": exported.annotations, "features": of_features(exported, tmp_path).features,
             "packed": tmp_path / "packed", "out": tmp_path / "catalog"}  # fmt: skip
    prepare.run(["assembly101", *(word for key, value in words.items() for word in (f"--{key}", str(value)))])
    recipe = preset("evgap", name)
    run = start(
        tmp_path / "run",
        "evgap",
        Experiment(
            data=Data(catalog=tmp_path / "catalog"),
            method=replace(recipe.method, clips_per_video=pairs),
            optim=replace(recipe.optim, batch=2, epochs=None, steps=1, warmup_share=None, warmup_steps=0),
            compute=Compute(device="cpu", threads=1),
            every=Cadence(log=1),
        ),
        in_process=True,
    )
    (row,) = read_metrics(run)
    assert np.isfinite(row["loss"])
    assert row["loss"] > 0


@pytest.mark.parametrize(
    ("label", "rule"),
    [
        ("000000001\t000000009\tact 5 b", r"line 2: action 'act 5 b' is none of the 202 of actions\.csv"),
        ("000000001\t000000009", r"line 2: .* has no action; a line is first frame, end and action"),
        ("x\t000000009\tact 5", r"line 2: 'x' is not a whole number"),
        ("-1\t000000009\tact 5", r"line 2: '-1' is not a whole number"),
    ],
)
def test_broken_coarse_labels(tmp_path: Path, label: str, rule: str) -> None:
    coarse(tmp_path, {"train_assembly": [A]}, {f"assembly_{A}": ["000000001\t000000002\tact 1\tmore\tfields", label]})
    with pytest.raises(UserError, match=rf"coarse_labels/assembly_{A}\.txt, {rule}"):
        read_annotations(tmp_path, ("coarse",))


def test_a_label_that_ends_before_it_begins_is_left_out(tmp_path: Path) -> None:
    coarse(tmp_path, {"val_disassembly": [B]}, {f"disassembly_{B}": ["9\t9\tact 1", "9\t4\tact 1", "1\t3\tact 7"]})
    read = read_annotations(tmp_path, ("coarse",))
    spans = [Span(1, 3, (("coarse", "act 7"),)), Span(1, 3, (("sequence", "disassembly"),))]
    assert read.coarse == {B: spans}
    assert [case.rpartition("/")[2] for case in read.left_out] == [f"disassembly_{B}.txt, line {k}" for k in (1, 2)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1,{A}/C10404_rgb.mp4,8,9,9,0,0,a,b,c,t,s,0,1", "verb 0, noun 0, action 9: an id is none of actions.csv"),
        ("1,{A}/C10404_rgb.mp4,8,9,,0,0,a,b,c,t,s,0,1", "action : an id is none of actions.csv"),
        ("1,{A}/C10404.mp4,8,9,0,0,0,a,b,c,t,s,0,1", "'{A}/C10404' names no video"),
        ("1,../C10404_rgb.mp4,8,9,0,0,0,a,b,c,t,s,0,1", "'../C10404_rgb' names no video"),
        ("1,{A}/C10404_rgb.mp4,8", "it has 3 values for 14 columns"),
        ("1,{A}/C10404_rgb.mp4,8.5,9,0,0,0,a,b,c,t,s,0,1", "'8.5' is not a whole number"),
        ('1,"{A}/C10404_rgb.mp4,8,9,0,0,0,a,b,c,t,s,0,1', "a quote"),
    ],
)
def test_broken_fine_lines(tmp_path: Path, line: str, rule: str) -> None:
    base = tmp_path / "fine-grained-annotations"
    text(base / "actions.csv", f"id,{ACTIONS}", "0,0,0,0,a,b,c")
    text(base / "validation.csv", FINE_COLUMNS, line.replace("{A}", A))
    with pytest.raises(UserError, match=rf"validation\.csv, line 2: .*{re.escape(rule.replace('{A}', A))}"):
        read_annotations(tmp_path, FINE)


def test_a_recording_in_two_splits(tmp_path: Path) -> None:
    coarse(tmp_path, {"train_assembly": [A]})
    base = tmp_path / "fine-grained-annotations"
    text(base / "actions.csv", f"id,{ACTIONS}", "0,0,0,0,a,b,c")
    text(base / "test.csv", "id,video,start_frame,end_frame", f"0,{A}/C10404_rgb.mp4,1,2")
    with pytest.raises(UserError, match=rf"test\.csv, line 2: {A} is in split test, and in train before"):
        read_annotations(tmp_path, ())


def test_broken_class_lists(tmp_path: Path) -> None:
    base = tmp_path / "fine-grained-annotations"
    text(base / "actions.csv", f"id,{ACTIONS}", "0,0,0,0,a,b,c", "1,0,1,0,d,e,c", "2,x,1,0,d,e,c", "3,99999,1,0,d,e,c")
    with pytest.raises(UserError) as refused:
        read_annotations(tmp_path, FINE)
    said = str(refused.value)
    assert re.search(r"actions\.csv, line 3, column 'action_id': 0 has the names 'a' and 'd'", said)
    assert re.search(r"line 4, column 'action_id': 'x' is not a whole number", said)
    assert re.search(r"line 5, column 'action_id': 99999 with the name 'd'; give a number up to 9,999", said)


def test_wrong_folders(tmp_path: Path, exported: Options) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"neither coarse-annotations nor fine-grained.*it holds photos.*--annotations"):
        catalog(replace(exported, annotations=tmp_path))
    with pytest.raises(UserError, match=r"none: neither .*the folder is missing"):
        catalog(replace(exported, annotations=tmp_path / "none"))
    with pytest.raises(UserError, match=r"no VIEW/data\.mdb is here.*it holds photos.*as --features"):
        catalog(replace(of_features(exported, tmp_path / "p"), features=tmp_path))
    with pytest.raises(UserError, match=r"no RECORDING/VIEW\.npy is here.*it holds photos.*pass --features"):
        catalog(replace(exported, root=None, packed=tmp_path))
    for options in (replace(exported, root=None), replace(exported, packed=tmp_path)):
        with pytest.raises(UserError, match="give --root for a catalog of videos, or --packed"):
            catalog(options)
    (tmp_path / "C10095_rgb.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"none is in a folder that is named as a recording"):
        catalog(replace(exported, root=tmp_path))


def test_one_file_per_view(tmp_path: Path, exported: Options) -> None:
    for path in (f"{A}/HMC_84346135_mono10bit.mp4", f"ego/{A}/HMC_21176875_mono10bit.MP4"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"")
    said = r"_84346135_mono10bit\.mp4: ego/.*_21176875_mono10bit\.MP4 is the same view .*; remove one"
    with pytest.raises(UserError, match=said):
        catalog(replace(exported, root=tmp_path))


def test_a_missing_list(tmp_path: Path) -> None:
    coarse(tmp_path, {"train_assembly": [A]})
    (tmp_path / "coarse-annotations" / "coarse_splits" / "val_coarse_assembly.txt").unlink()
    with pytest.raises(UserError, match=r"val_coarse_assembly\.txt: the file is missing; get it again"):
        read_annotations(tmp_path, ())
    text(tmp_path / "coarse-annotations" / "coarse_splits" / "val_coarse_assembly.txt", f"{A}.txt\t\t-")
    with pytest.raises(UserError, match=rf"val_coarse_assembly\.txt, line 1: '{A}\.txt' names no sequence"):
        read_annotations(tmp_path, ())


WORDS = st.sampled_from(
    [A, B, f"{A}/C10404_rgb.mp4", f"assembly_{A}.txt", "\t", ",", "1", "30", "-4", "act 5", '"', "é", ""]
)
LINES = st.lists(st.lists(WORDS | st.text(max_size=4), max_size=9).map("".join), max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(splits=LINES, labels=LINES, rows=LINES, classes=LINES)
def test_annotations_of_any_text_are_read_or_refused(
    tmp_path: Path, splits: list[str], labels: list[str], rows: list[str], classes: list[str]
) -> None:
    coarse(tmp_path, {"train_assembly": [A]}, {f"assembly_{A}": labels})
    with (tmp_path / "coarse-annotations" / "coarse_splits" / "val_coarse_assembly.txt").open("a") as file:
        file.write("\n".join(splits))
    text(tmp_path / "coarse-annotations" / "coarse_seq_views.txt", *rows)
    base = tmp_path / "fine-grained-annotations"
    text(base / "actions.csv", f"id,{ACTIONS}", "0,0,0,0,a,b,c", *classes)
    text(base / "train.csv", FINE_COLUMNS, *rows)
    with contextlib.suppress(UserError):
        read_annotations(tmp_path, ("coarse", *FINE))
