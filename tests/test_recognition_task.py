"""The task that scores recognition, on predictions made by hand: fusion, parts of the samples, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossview.downstream.recognition.config import Options
from crossview.downstream.recognition.epic_metrics import epic_accuracies
from crossview.downstream.recognition.metrics import average_precisions, log_scores
from crossview.downstream.recognition.task import Scored, Task
from crossview.downstream.task import Predicted, PredictionPart, Recorded
from crossview.errors import UserError
from crossview.platform.evaluate.tasks import options_from

RNG = np.random.default_rng(0)
NAMES = {"action": ("pour", "cut", "stir"), "verb": tuple("abcdefg"), "noun": tuple("uvwxyz")}


def recorded(name: str, view: str, subject: str = "p1") -> Recorded:
    return Recorded(
        id=name,
        dataset="d",
        scene=name,
        view=view,
        perspective="exo",
        subject=subject,
        action=f"{subject}'s",
        start_s=0,
        end_s=1,
        frame_labels={},
    )


def shown(count: int, *classes: int) -> np.ndarray:
    out = np.zeros(count, np.uint8)
    out[list(classes)] = 1
    return out


def sample(scene: str, view: str, targets: dict[str, np.ndarray], outputs: dict[str, Any], **changes: Any) -> Predicted:
    """One that a camera shows; outputs (V, C) by kind."""
    one = Predicted(
        unit=0,
        recordings=(f"d/{scene}/{view}",),
        scene=f"d/{scene}",
        views=(view,),
        perspectives=("exo",),
        span=(0, 10),
        chunk=1,
        labels=np.empty(0, np.int64),
        targets=targets,
        outputs={kind: np.asarray(of, np.float32) for kind, of in outputs.items()},
    )
    return replace(one, **changes)


def part(samples: list[Predicted], *, split: str = "val", **given: Any) -> PredictionPart:
    kinds = samples[0].targets
    known: dict[str, Any] = {"left_out": 0, "encoder_seen": None, "encoded": False, "seen": frozenset({"c1", "c2"})}
    subjects = given.pop("subjects", {})
    records = {s.recordings[0]: recorded(s.recordings[0], s.views[0], subjects.get(s.scene, "p1")) for s in samples}
    classes = {kind: NAMES[kind] for kind in kinds}
    return PredictionPart(
        split=split, recordings=tuple(records.values()), samples=tuple(samples), classes=classes, **known | given
    )


TRAIN = part([sample(f"t{k}", "c1", {"action": shown(3, c)}, {}) for k, c in enumerate((1, 1, 1, 0, 2))], split="train")


def scored(
    test: PredictionPart, train: PredictionPart = TRAIN, **options: Any
) -> tuple[dict[str, float], Scored, Task]:
    made = options_from("recognition", options)
    assert isinstance(made, Options)
    of = Task(made)
    predictions = of.predict(of.fit(train), test)
    found = of.score(predictions, test)
    assert found.keys() <= made.metrics().keys()
    assert np.isfinite(list(found.values())).all()
    return found, predictions, of


def actions(*rows: tuple[str, str, int, list[list[float]]]) -> PredictionPart:
    """(scene, camera, class, probabilities of each view)."""
    return part([sample(scene, view, {"action": shown(3, c)}, {"action": of}) for scene, view, c, of in rows])


HAND = actions(
    ("s1", "c1", 0, [[0.8, 0.1, 0.1], [0.0, 0.6, 0.4]]),  # mean 0.4 0.35 0.25: right; max 0.8
    ("s1", "c3", 0, [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]),  # right
    ("s1", "c2", 0, [[0.2, 0.7, 0.1], [0.2, 0.7, 0.1]]),  # wrong
    ("s2", "c1", 1, [[0.3, 0.3, 0.4], [0.1, 0.8, 0.1]]),  # right
    ("s2", "c3", 1, [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]),  # wrong
)


def test_views_are_fused_and_cameras_scored_apart_and_together() -> None:
    found, *_ = scored(HAND)
    assert found == pytest.approx(
        {
            "recognition/top1": 3 / 5,
            "recognition/mean_class": (2 / 3 + 1 / 2) / 2,
            "recognition/top1/seen": 2 / 3,
            "recognition/top1/held_out": 1 / 2,
            "recognition/top1/fused": 1 / 2,  # s1: 0.4+0.2+0.9 is the highest; s2: 0.2+0.1, 0.55+0.2, 0.25+0.7
            "recognition/mean_class/fused": 1 / 2,
            "recognition/consistency": 1 / 4,  # c1 and c3 of s1, of three pairs there and one of s2
        }
    )


def test_the_largest_view_decides_where_it_is_asked_for() -> None:
    views = actions(("s", "c1", 0, [[0.9, 0.1, 0.0], [0.0, 0.55, 0.45], [0.0, 0.55, 0.45]]))
    assert scored(views)[0]["recognition/top1"] == 0
    assert scored(views, fusion="max")[0]["recognition/top1"] == 1


def test_baselines_are_the_commonest_class_and_chance() -> None:
    for name, expected in (("majority", 2 / 5), ("chance", 1 / 3)):
        baseline = Task(Options()).baselines()[name]
        predictions = baseline.predict(baseline.fit(TRAIN), HAND)
        found = baseline.score(predictions, HAND)
        assert found["recognition/top1"] == pytest.approx(expected)
        assert baseline.fixed
    assert baseline.details(predictions, HAND) == {}


def test_a_missing_label_is_left_out_and_said() -> None:
    test = replace(HAND, samples=(*HAND.samples, replace(HAND.samples[0], targets={"action": shown(3)})))
    found, predictions, task = scored(test)
    assert found["recognition/top1"] == pytest.approx(3 / 5)
    notes = task.notes(predictions, TRAIN, test)
    assert notes[0] == "Recognition in 6 recordings or segments, from 2 views of each, fused by their mean."
    assert notes[1:] == ["1 samples have no action and are left out of its scores."]


def test_classes_that_training_lacks_and_a_split_of_one_class_are_said() -> None:
    ones = actions(("s1", "c1", 2, [[0.2, 0.2, 0.6]]), ("s2", "c1", 2, [[0.6, 0.2, 0.2]]))
    train = part([sample("t", "c1", {"action": shown(3, 0)}, {})])
    found, predictions, task = scored(ones, train)
    assert found["recognition/top1"] == found["recognition/mean_class"] == 0.5
    assert task.notes(predictions, train, ones)[1:] == [
        "1 of 3 classes of kind 'action' are tested and never occur in training.",
        "All samples have the same action, so that its accuracy says little.",
    ]


@pytest.mark.parametrize(
    ("test", "options", "message"),
    [
        (actions(("s", "c1", 0, [[np.nan] * 3])), {}, r"d/s/c1, frames 0 to 10: the predicted .* are not finite"),
        (
            part([sample("s", "c1", {"action": shown(3)}, {"action": [[1, 0, 0]]})]),
            {},
            r"split 'val': none of its 1 samples has a label of kind 'action'",
        ),
        (
            part([sample("s", "c1", {"action": shown(3, 0, 2)}, {"action": [[1, 0, 0]]})]),
            {},
            r"d/s/c1, frames 0 to 10: it has 2 classes of kind 'action'",
        ),
        (HAND, {"tail_verbs": ["pour"]}, r"tail_verbs has 'pour', which is none of the 0 classes of kind 'verb'"),
    ],
)
def test_what_cannot_be_scored_is_refused(test: PredictionPart, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scored(test, **options)


def test_a_class_is_named_once_in_a_tail() -> None:
    with pytest.raises(UserError, match="tail_verbs is a, a; name each class once"):
        Options(tail_verbs=("a", "a"))


# Several classes


def several(count: int = 30) -> PredictionPart:
    targets = RNG.random((count, 3)) < [0.3, 0.6, 0.0]
    outputs = RNG.random((count, 4, 3))
    samples = [
        sample(f"s{k}", "c1" if k % 3 else "c9", {"action": target.astype(np.uint8)}, {"action": of})
        for k, (target, of) in enumerate(zip(targets, outputs, strict=True))
    ]
    return part(samples, several_classes=True)


def test_several_classes_have_an_average_precision_each_of_the_largest_view() -> None:
    test = several()
    targets = np.stack([s.targets["action"] for s in test.samples]).astype(bool)
    highest = np.stack([s.outputs["action"].max(0) for s in test.samples])
    held_out = np.array([s.views[0] == "c9" for s in test.samples])
    found, predictions, task = scored(test)
    for name, rows in (("", held_out | True), ("/held_out", held_out), ("/seen", ~held_out)):
        expected = average_precisions(highest[rows], targets[rows])
        assert np.isnan(expected[2])
        assert found.pop(f"recognition/map{name}") == pytest.approx(expected[:2].mean())
    assert not found
    assert task.notes(predictions, TRAIN, test)[1:] == [
        "1 of 3 classes of kind 'action' have no sample and no part in the mean."
    ]
    mean = scored(test, fusion="mean")[0]["recognition/map"]
    assert mean == pytest.approx(
        np.nanmean(average_precisions(np.stack([s.outputs["action"].mean(0) for s in test.samples]), targets)), abs=1e-6
    )
    lines = task.details(predictions, test)["classes"]
    assert [line["class"] for line in lines] == ["pour", "cut"]
    majority = task.baselines()["majority"]
    prevalence = majority.score(majority.predict(majority.fit(TRAIN), test), test)["recognition/map"]
    assert prevalence == pytest.approx(targets[:, :2].mean())
    chance = task.baselines()["chance"]
    assert chance.score(chance.predict(chance.fit(TRAIN), test), test) == {}


def test_samples_without_any_class_count_as_showing_none() -> None:
    """As Charades-Ego's videos without an action: they rank among the negatives."""
    one = part(
        [
            sample("s1", "c1", {"action": shown(3, 0)}, {"action": [[0.5, 0, 0]]}),
            sample("s2", "c1", {"action": shown(3)}, {"action": [[0.9, 0, 0]]}),
        ],
        several_classes=True,
    )
    assert scored(one)[0]["recognition/map"] == 0.5


# Verbs and nouns


def verbs_and_nouns(count: int = 200) -> PredictionPart:
    samples = []
    for k in range(count):
        verb, noun = int(RNG.integers(7)), int(RNG.integers(6))
        outputs = {
            "verb": RNG.dirichlet(np.ones(7) + 3 * shown(7, verb), 2),
            "noun": RNG.dirichlet(np.ones(6) + 3 * shown(6, noun), 2),
        }
        samples.append(sample(f"s{k}", "c1", {"verb": shown(7, verb), "noun": shown(6, noun)}, outputs))
    return part(samples, subjects={f"d/s{k}": f"p{k % 4}" for k in range(count)})


def test_verbs_nouns_and_actions_are_scored_as_the_official_rule_has_it() -> None:
    test = verbs_and_nouns()
    train = part([replace(s, outputs={}) for s in test.samples[:2]], subjects={"d/s0": "p1", "d/s1": "p2"})
    found, *_ = scored(test, train, tail_verbs=["b", "c"], tail_nouns=["z"], unseen="subject")
    fused = {kind: np.stack([s.outputs[kind].astype(float).mean(0) for s in test.samples]) for kind in ("verb", "noun")}
    labels = {kind: np.array([s.targets[kind].argmax() for s in test.samples]) for kind in ("verb", "noun")}
    official = epic_accuracies(
        log_scores(fused["verb"]),
        log_scores(fused["noun"]),
        labels["verb"],
        labels["noun"],
        tail_verbs=(1, 2),
        tail_nouns=(5,),
        unseen=np.arange(200) % 4 % 3 == 0,  # p0 and p3
    )
    assert len(official) == 12
    for name, value in official.items():
        kind, *of, measure = name.split("/")
        assert found["/".join(["recognition", measure, kind, *of])] == pytest.approx(value), name
    assert "recognition/mean_class/verb" in found
    chance = Task(Options()).baselines()["chance"]
    guessed = chance.score(chance.predict(chance.fit(train), test), test)
    assert guessed["recognition/top1/action"] == pytest.approx(1 / 42)
    assert guessed["recognition/top5/noun"] == pytest.approx(5 / 6)
    assert guessed["recognition/top1/verb"] == pytest.approx(1 / 7)


def test_segments_of_one_span_have_its_labels_in_turn() -> None:
    """A verb with two nouns is two segments."""
    targets = {"verb": shown(7, 3), "noun": shown(6, 1, 4)}
    outputs = {"verb": [shown(7, 3)], "noun": [shown(6, 4)]}
    twice = [replace(sample("s", "c1", targets, outputs), scene=f"d/s#{k}") for k in range(2)]
    found, predictions, _ = scored(part(twice), part([replace(s, outputs={}) for s in twice]))
    assert predictions.kinds["noun"].labels.tolist() == [1, 4]
    assert found["recognition/top1/noun"] == 0.5
    with pytest.raises(UserError, match="it has 2 classes of kind 'noun'"):
        scored(part(twice[:1]), part([replace(s, outputs={}) for s in twice]))


def test_details_have_every_class_and_camera_and_pair_of_cameras() -> None:
    _, predictions, task = scored(HAND)
    details = task.details(predictions, HAND)
    assert details["classes"][0] == {"kind": "action", "class": "pour", "samples": 3, "right": pytest.approx(2 / 3)}
    assert details["cameras"][2] == {"kind": "action", "camera": "c3", "seen": False, "samples": 2, "top1": 0.5}
    assert details["camera_pairs"][1] == {
        "kind": "action", "camera": "c1", "other": "c3", "agreement": 0.5, "instants": 2,
    }  # fmt: skip
