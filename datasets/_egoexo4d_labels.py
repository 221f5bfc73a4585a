"""The labels of Ego-Exo4D: splits, keysteps of the benchmark, all annotated keysteps, proficiency."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crossview.datasets.catalog import Recording, Segment
from crossview.datasets.catalog.annotations import Spans
from crossview.datasets.catalog.classes import distinct
from crossview.datasets.catalog.found import dropped
from crossview.datasets.catalog.listing import Problems, table, whole_number
from crossview.datasets.catalog.records import AGAIN, an_object, json_file, optional, value
from crossview.errors import UserError

PROFICIENCY = ("Novice", "Early Expert", "Intermediate Expert", "Late Expert")


class Span(NamedTuple):
    """A labelled span of a take, in s from its start."""

    start_s: float
    end_s: float
    kind: str
    label: str


class Annotations:
    """Splits, classes and spans of the takes, and what of them is left out."""

    def __init__(self, root: Path, takes: set[str]) -> None:
        self.folder, self.takes = root / "annotations", takes
        self.left_out: dict[str, list[str]] = {}
        self.cut = Spans()
        self.spans: dict[str, list[Span]] = {}
        """By take_uid."""
        self.classes: dict[str, tuple[str, ...]] = {}
        self.splits: dict[str, dict[str, str]] = {"takes": self._takes()}
        """By protocol and take_uid."""
        self._keysteps()
        self._steps()
        self._proficiency()

    def segments(self, uid: str, recording: Recording) -> Iterator[Segment]:
        """A take's spans on the clock of one of its recordings, cut at its end."""
        late_s = recording.start_offset_s
        for span in self.spans.get(uid, ()):
            case = f"{recording.id} at {span.start_s:g} s"
            if times := self.cut.within(recording, span.start_s - late_s, span.end_s - late_s, case):
                yield Segment(recording.id, *times, span.kind, span.label)

    def notes(self) -> tuple[str, ...]:
        """Sentences on what is left out, of which segments only after `segments`."""
        return (*dropped(self.left_out), *self.cut.notes())

    def _takes(self) -> dict[str, str]:
        file = self.folder / "splits.json"
        if not file.is_file():
            raise UserError(f"{file}: the file is missing; download it with --parts annotations")
        found, where = json_file(file, dict), str(file)
        if "take_uid_to_split" in found:
            of = value(found, "take_uid_to_split", dict, where)
        else:
            lists = value(found, "split_to_take_uids", dict, where)
            of = {str(uid): split for split in lists for uid in value(lists, split, list, where)}
        if unknown := [uid for uid in of if uid not in self.takes]:
            self.left_out["takes of splits.json that takes.json lacks"] = unknown
        return {uid: value(of, uid, str, where) for uid in of}

    def _keysteps(self) -> None:
        """The benchmark: classes by label_id; its test segments have no label."""
        folder = self.folder / "keystep_benchmark"
        names = _label_mapping(folder / "label_mapping.csv")
        unknown = "segments with a label_id that label_mapping.csv lacks"
        if not names:
            unknown = "labels of keystep_benchmark, whose label_mapping.csv is missing; download it"
        members = self.splits["keystep"] = {}
        for split, part in (("train", "train"), ("val", "val"), ("test", "test_unannotated")):
            file = folder / f"keystep_segment_{part}.json"
            if not file.is_file():
                continue
            for number, entry in enumerate(value(json_file(file, dict), "segments", list, str(file))):
                where = f"{file}, segments[{number}]"
                segment = an_object(entry, where)
                uid, label = value(segment, "take_uid", str, where), optional(segment, "label_id", int, where)
                if not self._knows(uid, where):
                    continue
                members[uid] = split
                if label is not None and 0 <= label < len(names):
                    self._add(uid, segment, "keystep", names[label], where)
                elif label is not None:
                    self._leave_out(unknown, where)
        if names:
            self.classes["keystep"] = names

    def _steps(self) -> None:
        """All annotated keysteps; classes in the order of their unique ids."""
        known: dict[int, str] = {}
        annotated: list[tuple[Path, dict[str, Any]]] = []
        for split in ("train", "val", "test"):
            if (file := self.folder / f"keystep_{split}.json").is_file():
                annotated.append((file, json_file(file, dict)))
                words = value(annotated[-1][1], "vocabulary", dict, str(file))
                for key in words:
                    try:
                        known[whole_number(key)] = value(words, key, str, f"{file}, vocabulary")
                    except UserError as error:
                        raise UserError(f"{file}, vocabulary: {error}") from error
        names = dict(zip(sorted(known), distinct([(known[n], f"step {n}") for n in sorted(known)]), strict=True))
        for file, found in annotated:
            takes = value(found, "annotations", dict, str(file))
            for uid in takes:
                of = an_object(takes[uid], f"{file}, take {uid}")
                if not self._knows(uid, f"{file}, take {uid}"):
                    continue
                for number, entry in enumerate(value(of, "segments", list, f"{file}, take {uid}")):
                    where = f"{file}, take {uid}, segments[{number}]"
                    step = value(an_object(entry, where), "step_unique_id", int, where)
                    if step in names:
                        self._add(uid, entry, "step", names[step], where)
                    else:
                        self._leave_out("segments with a step that the vocabulary lacks", where)
        if names:
            self.classes["step"] = tuple(names.values())

    def _proficiency(self) -> None:
        """The demonstrator's, one score per take: a list, or an object that has it as "annotations"."""
        members = self.splits["proficiency"] = {}
        for split in ("train", "val"):
            file = self.folder / f"proficiency_demonstrator_{split}.json"
            if not file.is_file():
                continue
            found = json_file(file, dict, list)
            for number, entry in enumerate(
                value(found, "annotations", list, str(file)) if isinstance(found, dict) else found
            ):
                where = f"{file}, entry {number}"
                score = value(an_object(entry, where), "proficiency_score", str, where)
                uid = value(entry, "take_uid", str, where)
                if score not in PROFICIENCY:
                    self._leave_out(f"scores other than {', '.join(PROFICIENCY)}", f"{where}: {score!r}")
                elif self._knows(uid, where):
                    members[uid] = split
                    self.spans.setdefault(uid, []).append(Span(0.0, math.inf, "proficiency", score))
        if members:
            self.classes["proficiency"] = PROFICIENCY

    def _knows(self, uid: str, where: str) -> bool:
        if uid not in self.takes:
            self._leave_out("annotations of takes that takes.json lacks", where)
        return uid in self.takes

    def _add(self, uid: str, segment: dict[str, Any], kind: str, label: str, where: str) -> None:
        start_s, end_s = value(segment, "start_time", float, where), value(segment, "end_time", float, where)
        if end_s <= start_s:
            self._leave_out("segments that end where they start or before", where)
        else:
            self.spans.setdefault(uid, []).append(Span(start_s, end_s, kind, label))

    def _leave_out(self, reason: str, case: str) -> None:
        self.left_out.setdefault(reason, []).append(case.removeprefix(f"{self.folder}/"))


def _label_mapping(file: Path) -> tuple[str, ...]:
    """The benchmark's classes by label_id; none without the file."""
    if not file.is_file():
        return ()
    problems = Problems()
    found: dict[int, dict[str, str]] = {}
    for row in table(file, ("label_id", "step_name"), ("step_unique_id", "scenario_name"), problems):
        where = f"{file}, line {row.number}, column 'label_id'"
        try:
            number = whole_number(row.values["label_id"])
        except UserError as error:
            problems.add(f"{where}: {error}")
            continue
        if number in found:
            problems.add(f"{where}: {number} is there twice; {AGAIN}")
        found[number] = row.values
    if not problems and sorted(found) != list(range(len(found))):
        problems.add(f"{file}: its {len(found)} label_ids do not count from 0 without a gap; {AGAIN}")
    problems.refuse()
    rows = [found[number] for number in sorted(found)]
    return distinct([(row["step_name"], row.get("scenario_name", ""), f"label_id {row['label_id']}") for row in rows])
