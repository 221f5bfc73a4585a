"""The clip table, retrieval between cameras and action probes, against small cases and plain loops."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import balanced_accuracy_score

from crossview.downstream.action_probe import probes
from crossview.downstream.action_probe.probes import accuracies, balanced, fit_probes, to_fit
from crossview.downstream.clip_table import NAMES, ClipTable
from crossview.downstream.retrieval.clip_retrieval import KS, clip_retrieval


def clips(vectors, cameras, *, per_scene=1, subjects=None, actions=None) -> ClipTable:
    """Vectors in the order scene, instant, camera; each scene has its own subject unless told otherwise."""
    count = len(vectors)
    at = np.arange(count)
    camera = at % len(cameras)
    instant = at // len(cameras) % per_scene
    scene = at // (len(cameras) * per_scene)
    view = np.array(cameras)[camera]
    return ClipTable(
        vectors=vectors,
        recording=np.array([f"val/s{s}/{v}" for s, v in zip(scene, view, strict=True)]),
        scene=np.array([f"s{s}" for s in scene]),
        view=view,
        perspective=np.where(view == "ego", "ego", "exo"),
        subject=np.array(subjects)[scene] if subjects else np.array([f"p{s}" for s in scene]),
        action=np.array(actions)[scene] if actions else np.full(count, "wave"),
        instant=instant,
    )


def action_probe(fit: ClipTable, test: ClipTable, seen: set[str]) -> dict[str, float]:
    return accuracies(fit_probes(fit, seen).predict(test), test, seen)


def majority(fit: ClipTable, test: ClipTable, seen: set[str]) -> dict[str, float]:
    return accuracies(probes.majority(to_fit(fit, seen), test), test, seen)


def test_the_majority_is_the_commonest_action_to_fit_on() -> None:
    fit = clips(np.ones((3, 2)), ("ego",), actions=["a", "b", "b"])
    found = probes.majority(fit, clips(np.ones((2, 2)), ("ego",), actions=["a", "b"]))
    assert {name: actions.tolist() for name, actions in found.items()} == {"linear": ["b", "b"], "knn": ["b", "b"]}


def parts(e: ClipTable) -> dict:
    return {name: getattr(e, name).copy() for name in (*NAMES, "vectors", "instant")}


def shuffled(e: ClipTable, seed: int) -> ClipTable:
    order = np.random.default_rng(seed).permutation(len(e))
    return ClipTable(**{name: values[order] for name, values in parts(e).items()})


def test_the_table_survives_a_file(tmp_path):
    e = clips(np.random.default_rng(0).normal(size=(12, 5)), ("ego", "exo1"), per_scene=2)
    pq.write_table(e.to_table(), tmp_path / "clips.parquet", row_group_size=5)
    back = ClipTable.from_table(pq.read_table(tmp_path / "clips.parquet"))
    for name, values in parts(e).items():
        assert np.array_equal(getattr(back, name), values), name
    assert back.vectors.dtype == np.float32
    with pytest.raises(ValueError, match=r"columns \['subject'\] are missing"):
        ClipTable.from_table(e.to_table().drop(["subject"]))
    with pytest.raises(ValueError, match="no rows"):
        ClipTable.from_table(e.to_table().slice(0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["vectors"].__setitem__((3, 0), np.inf), "val/s0/exo1: the vector of the clip at instant 1 is not"),
        (lambda p: p.update(instant=p["instant"][:-1]), r"instant has shape \(11,\) for 12 vectors"),
        (lambda p: p.update(vectors=np.zeros((0, 3))), "at least one clip"),
        (lambda p: p["perspective"].__setitem__(slice(None), "top"), "perspective is 'top'"),
        (lambda p: p["subject"].__setitem__(2, "other"), "val/s0/ego: subject is both 'p0' and 'other'"),
        (lambda p: p["instant"].__setitem__(2, 0), "val/s0/ego: 2 clips of camera 'ego' at instant 0 of scene 's0'"),
        (lambda p: p["instant"].__setitem__(2, -1), "val/s0/ego: instant is -1"),
    ],
)
def test_a_broken_table_is_refused(change, message):
    p = parts(clips(np.ones((12, 3)), ("ego", "exo1"), per_scene=2))
    p["subject"] = p["subject"].astype("U8")
    change(p)
    with pytest.raises(ValueError, match=message):
        ClipTable(**p)


def test_retrieval_of_a_case_worked_by_hand():
    # Unit vectors at angles; ego asks exo. Scene 0: right clip nearest. Scene 1: one is nearer. Scene 2: two are.
    ego, exo = np.deg2rad([0, 50, 100]), np.deg2rad([5, 70, 46])
    angles = np.stack([ego, exo], axis=1).reshape(-1)
    found = clip_retrieval(clips(np.stack([np.cos(angles), np.sin(angles)], 1), ("ego", "exo")))
    one = next(p for p in found.pairs if p.query == "ego")
    # distances of 0: 5, 70, 46; of 50: 45, 20, 4; of 100: 95, 30, 54
    assert one.recall == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}
    assert one.median_rank == 2.0
    assert one.within_scene == 1.0  # one clip per scene
    assert one.chance == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}
    # exo asks ego: 5 -> 5, 45, 95; 70 -> 70, 20, 30; 46 -> 46, 4, 54
    other = next(p for p in found.pairs if p.query == "exo")
    assert other.recall[1] == pytest.approx(2 / 3)
    assert found.scores["retrieval/R@1/seen"] == pytest.approx(0.5)
    assert not any("held_out" in name for name in found.scores)


def brute(e: ClipTable, a: str, b: str, within: bool) -> list[int]:
    """Place of the right clip for each query, by loops and exact sums."""
    ranks = []
    for i in range(len(e)):
        targets = [j for j in range(len(e)) if (e.view[j], e.scene[j], e.instant[j]) == (b, e.scene[i], e.instant[i])]
        if e.view[i] != a or not targets:
            continue
        asked = e.vectors[i].astype(float)
        scored = []
        for j in range(len(e)):
            if e.view[j] == b and (not within or e.scene[j] == e.scene[i]):
                other = e.vectors[j].astype(float)
                cosine = sum(asked * other) / (sum(asked**2) * sum(other**2)) ** 0.5
                scored.append((-round(cosine, 8), j))
        ranks.append(1 + [j for _, j in sorted(scored)].index(targets[0]))
    return ranks


@pytest.mark.parametrize("ties", [False, True])
def test_retrieval_equals_plain_loops_with_missing_cameras_and_ties(ties, monkeypatch):
    monkeypatch.setattr("crossview.downstream.retrieval.clip_retrieval.CHUNK_ENTRIES", 50)  # several chunks
    rng = np.random.default_rng(1)
    cameras = ("ego", "exo1", "exo2")
    vectors = rng.integers(1, 3, (90, 3)) if ties else rng.normal(size=(90, 3))
    e = shuffled(clips(vectors, cameras, per_scene=3), 2)
    lost = (e.view == "exo1") & np.isin(e.scene, ("s1", "s4")) | (e.view == "ego") & (e.scene == "s2")
    lost |= (e.view == "exo2") & (e.scene == "s3") & (e.instant == 1)
    e = e.select(~lost, "all")
    found = clip_retrieval(e, seen={"ego", "exo1"})
    assert [(p.query, p.gallery) for p in found.pairs] == [(a, b) for a in cameras for b in cameras if a != b]
    for pair in found.pairs:
        ranks = np.array(brute(e, pair.query, pair.gallery, within=False))
        within = np.array(brute(e, pair.query, pair.gallery, within=True))
        assert pair.queries == len(ranks)
        assert pair.recall == {k: pytest.approx((ranks <= k).mean()) for k in KS}
        assert pair.median_rank == np.median(ranks)
        assert pair.within_scene == pytest.approx((within == 1).mean())
        assert pair.seen == ("exo2" not in (pair.query, pair.gallery))
    for name, seen in (("seen", True), ("held_out", False)):
        mine = [p for p in found.pairs if p.seen == seen]
        assert found.scores[f"retrieval/R@5/{name}"] == pytest.approx(np.mean([p.recall[5] for p in mine]))
        inside = found.scores[f"retrieval/R@1/within_scene/{name}"]
        assert inside == pytest.approx(np.mean([p.within_scene for p in mine]))


def test_what_shares_the_content_is_found_and_random_vectors_are_at_chance():
    rng = np.random.default_rng(3)
    content = np.repeat(rng.normal(size=(400, 32)), 2, axis=0)  # 100 scenes, 4 instants
    camera = np.tile(rng.normal(size=(2, 32)), (400, 1))
    good = clip_retrieval(clips(content + 0.2 * camera, ("ego", "exo"), per_scene=4))
    assert good.scores["retrieval/R@1/seen"] > 0.95
    noise = clip_retrieval(clips(rng.normal(size=(800, 32)), ("ego", "exo"), per_scene=4))
    assert noise.chance["retrieval/R@1/within_scene/seen"] == 0.25
    assert noise.chance["retrieval/R@10/seen"] == 10 / 400
    for name, value in noise.scores.items():
        assert abs(value - noise.chance[name]) < 0.05, name


def test_a_constant_embedding_gains_nothing_from_ties():
    e = shuffled(clips(np.ones((120, 4)), ("ego", "exo"), per_scene=3), 0)
    found = clip_retrieval(e)
    assert found.scores["retrieval/R@1/seen"] == pytest.approx(found.chance["retrieval/R@1/seen"])


def test_cameras_without_a_common_instant_are_refused():
    e = clips(np.ones((4, 2)), ("ego", "exo"))
    apart = ClipTable(**{**parts(e), "instant": (e.view == "exo").astype(int)})
    with pytest.raises(ValueError, match="no instant is shown by two of them"):
        clip_retrieval(apart)
    with pytest.raises(ValueError, match="none of 4 is of cameras"):
        e.of_views({"top"})


def acted(seed: int, scenes: int, shift: float = 0.0) -> ClipTable:
    """Three actions by direction, half a scale per subject, a third camera that mirrors the first channel."""
    rng = np.random.default_rng(seed)
    cameras = ("ego", "exo1", "exo2")
    actions = [("wave", "nod", "clap")[s % 3] for s in range(scenes)]
    direction = np.random.default_rng(0).normal(size=(3, 8))
    vectors = np.repeat(direction[np.arange(scenes) % 3], 6, axis=0) + 0.3 * rng.normal(size=(scenes * 6, 8))
    vectors[2::3] *= 1 - shift
    return clips(vectors, cameras, per_scene=2, actions=actions, subjects=[f"{seed}-{s // 3}" for s in range(scenes)])


def test_both_probes_read_the_action_of_new_people_and_fail_on_a_camera_that_shows_another_world():
    fit, test = acted(1, 12), acted(2, 9, shift=2.0)
    scores = action_probe(fit, test, {"ego", "exo1"})
    assert set(scores) == {f"action_probe/{p}/{c}" for p in ("linear", "knn") for c in ("seen", "held_out")}
    assert scores["action_probe/linear/seen"] == scores["action_probe/knn/seen"] == 1.0
    assert max(scores["action_probe/linear/held_out"], scores["action_probe/knn/held_out"]) < 0.5
    base = majority(fit, test, {"ego", "exo1"})
    assert base == dict.fromkeys(scores, pytest.approx(1 / 3))
    assert set(action_probe(fit, test, {"ego", "exo1", "exo2"})) == {
        "action_probe/linear/seen",
        "action_probe/knn/seen",
    }


def test_agreement_is_between_cameras_of_one_instant_of_one_scene():
    test = clips(np.ones((12, 2)), ("ego", "exo1", "exo2"), per_scene=2)  # two scenes of two instants
    order = sorted(zip(test.scene.tolist(), test.instant.tolist(), test.view.tolist(), range(12), strict=True))
    predicted = np.empty(12, "U1")
    predicted[[row for *_, row in order]] = list("aabbbbabcaaa")  # by instant
    found = probes.agreement({"knn": predicted}, test)
    assert found == {"action_probe/knn/consistency": pytest.approx((1 + 3 + 0 + 3) / 12)}
    assert probes.agreement({"knn": predicted[:4]}, clips(np.ones((4, 2)), ("ego",), per_scene=2)) == {}


def test_balanced_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice(["a", "b", "c"], 50, p=[0.7, 0.2, 0.1]), rng.choice(["a", "b", "c", "d"], 50)
    assert balanced(truth, predicted) == pytest.approx(
        np.mean([(predicted[truth == name] == name).mean() for name in "abc"])
    )
    known = predicted != "d"
    assert balanced(truth[known], predicted[known]) == pytest.approx(
        balanced_accuracy_score(truth[known], predicted[known])
    )


def test_neighbours_equal_a_plain_loop(monkeypatch):
    monkeypatch.setattr(probes, "CHUNK_ENTRIES", 100)
    rng = np.random.default_rng(4)
    vectors, queries = rng.normal(size=(70, 4)), rng.normal(size=(31, 4))
    actions = rng.choice(["a", "b", "c"], 70)
    found = probes.neighbours(vectors, actions, queries)
    for query, name in zip(queries, found, strict=True):
        cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        votes = dict.fromkeys("abc", 0.0)
        for j in np.argsort(-cosine)[: probes.NEIGHBOURS]:
            votes[actions[j]] += np.exp(cosine[j] / probes.TEMPERATURE)
        assert name == max(votes, key=votes.get)


def test_the_strength_is_chosen_on_people_that_were_held_out(monkeypatch):
    asked = []
    real = probes._held_out_score

    def watched(vectors, actions, kept, left, strength):
        asked.append((set(people[kept]), set(people[left]), strength))
        return real(vectors, actions, kept, left, strength)

    monkeypatch.setattr(probes, "_held_out_score", watched)
    e = acted(1, 12)
    people = e.subject
    probes.fit_linear(e.vectors, e.action, e.subject)
    assert {strength for *_, strength in asked} == set(probes.STRENGTHS)
    assert len(asked) == probes.FOLDS * len(probes.STRENGTHS)
    assert all(not kept & left for kept, left, _ in asked)
    assert set().union(*(left for _, left, _ in asked)) == set(people)


def test_probes_refuse_what_they_cannot_fit():
    fit, test = acted(1, 12), acted(2, 9)
    single = fit.select(fit.action == "wave", "wave")
    with pytest.raises(ValueError, match="all 16 clips to fit on show the action 'wave'"):
        action_probe(single, test, {"ego", "exo1"})
    with pytest.raises(ValueError, match="action 'wave' is evaluated, but no clip to fit on shows it"):
        action_probe(fit.select(fit.action != "wave", "others"), test, {"ego", "exo1"})
    alone = fit.select(fit.subject == "1-0", "one")
    with pytest.raises(ValueError, match="all 12 clips to fit on are of subject '1-0'"):
        action_probe(alone, test, {"ego", "exo1"})
