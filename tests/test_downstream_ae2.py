"""The vectorised tasks against straight-line transcriptions of their definitions, and unit values."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from downstream_samples import phased, random_table, table, with_content
from scipy.stats import kendalltau
from sklearn.linear_model import LinearRegression
from sklearn.metrics import f1_score, r2_score
from sklearn.svm import SVC

from crossview.downstream.baselines import time_only
from crossview.downstream.frame_table import FrameTable
from crossview.downstream.neighbours import nearest
from crossview.downstream.phases import task
from crossview.downstream.phases.ae2 import evaluate
from crossview.downstream.phases.classification import phase_f1
from crossview.downstream.phases.config import Options
from crossview.downstream.phases.few_shot import few_shot
from crossview.downstream.phases.frame_retrieval import average_precision, retrieval_map
from crossview.downstream.phases.kendall_tau import kendall_tau, tau_b
from crossview.downstream.phases.progression import progression_r2, targets
from crossview.downstream.phases.svm import fit_predict

SEEDS = range(4)
TIES = [False, True]


def plain_f1(train, test, fitted, scored) -> float:
    model = SVC().fit(train.vectors[fitted], train.labels[fitted])
    return f1_score(test.labels[scored], model.predict(test.vectors[scored]), average="weighted")


def plain_map(e: FrameTable, k: int, query_rows, cross: bool) -> float:
    precisions = []
    x = e.vectors.astype(np.float64)
    for q in query_rows:
        candidates = [
            r for r in range(len(e)) if e.video[r] != e.video[q] and not (cross and e.is_ego[r] == e.is_ego[q])
        ]
        distances = [((x[r] - x[q]) ** 2).sum() for r in candidates]
        ranked = [candidates[i] for i in np.argsort(distances, kind="stable")[:k]]
        hits, total = 0, 0.0
        for rank, row in enumerate(ranked, start=1):
            if e.labels[row] == e.labels[q]:
                hits += 1
                total += hits / rank
        precisions.append(total / hits if hits else 0.0)
    return float(np.mean(precisions))


def plain_r2(train, test, time_column: bool) -> float:
    def rows_and_targets(e):
        phases = max(e.labels) + 1
        out = []
        for video in range(len(e.videos)):
            rows = np.flatnonzero(e.video == video)
            for phase in range(phases):
                shown = [t for t, row in enumerate(rows) if e.labels[row] == phase]
                out += [(phase, row, (t - shown[-1]) / len(rows)) for t, row in enumerate(rows) if shown]
        return phases, out

    def inputs(e):
        x = e.vectors.astype(np.float64)
        return np.hstack([x, 1e-3 * e.frame[:, None]]) if time_column else x

    (fit_phases, fit), (test_phases, scored) = rows_and_targets(train), rows_and_targets(test)
    scores = []
    for phase in range(min(fit_phases, test_phases)):
        rows, y = zip(*[(row, y) for c, row, y in fit if c == phase], strict=True)
        model = LinearRegression().fit(inputs(train)[list(rows)], y)
        rows, y = zip(*[(row, y) for c, row, y in scored if c == phase], strict=True)
        scores.append(r2_score(y, model.predict(inputs(test)[list(rows)])))
    return float(np.mean(scores))


def plain_tau(e: FrameTable) -> float:
    taus = []
    x = e.vectors.astype(np.float64)
    for i in range(len(e.videos)):
        for j in range(len(e.videos)):
            if i == j:
                continue
            queries, gallery = x[e.video == i][::5], x[e.video == j][::5]
            found = [int(np.argmin([((g - q) ** 2).sum() for g in gallery])) for q in queries]
            tau = kendalltau(np.arange(len(found)), found).statistic
            if not math.isnan(tau):
                taus.append(tau)
    return float(np.mean(taus)) if taus else 0.0


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_retrieval_equals_a_loop_over_queries(seed, ties):
    e = random_table(seed, ties=ties)
    scores = retrieval_map(e)
    assert scores["regular"] == pytest.approx(plain_map(e, 10, range(len(e)), False), abs=1e-9)
    assert scores["ego2exo"] == pytest.approx(plain_map(e, 10, np.flatnonzero(e.is_ego), True), abs=1e-9)
    assert scores["exo2ego"] == pytest.approx(plain_map(e, 10, np.flatnonzero(~e.is_ego), True), abs=1e-9)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_retrieval_takes_other_k(k):
    e = random_table(9, ties=True)
    assert retrieval_map(e, k=k)["regular"] == pytest.approx(plain_map(e, k, range(len(e)), False), abs=1e-9)


def test_retrieval_with_fewer_candidates_than_k_uses_those_there_are():
    e = random_table(0, ties=False, videos=2)
    small = table([4, 3], e.labels[:7], e.vectors[:7], [0])
    assert retrieval_map(small)["ego2exo"] == pytest.approx(plain_map(small, 10, range(4), True), abs=1e-9)


def test_all_frames_equal_is_decided_by_order():
    e = phased(6, 0, low=30, high=60)
    assert retrieval_map(e)["regular"] == pytest.approx(plain_map(e, 10, range(len(e)), False), abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_ties_survive_rounding_of_the_distance_expansion(offset):
    rng = np.random.default_rng(0)
    few = (rng.normal(size=(5, 64)) + offset).astype(np.float32)
    gallery = few[rng.integers(0, 5, 300)]  # 60 copies of each vector: ties cross the edge of any shortlist
    queries = few[rng.integers(0, 5, 20)]
    found = nearest(queries, gallery, np.zeros(20), np.ones(300), 10)
    for query, rows in zip(queries, found, strict=True):
        assert rows.tolist() == np.flatnonzero((gallery == query).all(1))[:10].tolist()


@pytest.mark.parametrize("cross", [False, True])
def test_neighbours_never_come_from_the_query_video_or_its_view(cross):
    e = phased(4, 1, low=20, high=40).replace_vectors(np.arange(len(phased(4, 1, low=20, high=40)))[:, None])
    queries, gallery = (e.is_ego, ~e.is_ego) if cross else (np.ones(len(e), bool),) * 2
    found = nearest(e.vectors[queries], e.vectors[gallery], e.video[queries], e.video[gallery], 10)
    assert (found >= 0).all()
    assert (e.video[gallery][found] != e.video[queries][:, None]).all()
    if cross:
        assert (e.is_ego[gallery][found] != e.is_ego[queries][:, None]).all()


def test_average_precision_of_hits_at_odd_ranks():
    hits = np.array([[1, 0] * 5, [0] * 10, [1] * 10], dtype=bool)
    np.testing.assert_allclose(average_precision(hits), [0.678730, 0.0, 1.0], atol=5e-7)


def test_progression_targets():
    values = targets(np.array([0, 0, 1, 1, 2]), 4)
    np.testing.assert_allclose(values[:, 0], [-0.2, 0, 0.2, 0.4, 0.6])
    np.testing.assert_allclose(values[:, 1], [-0.6, -0.4, -0.2, 0, 0.2])
    np.testing.assert_allclose(values[:, 2], [-0.8, -0.6, -0.4, -0.2, 0])
    assert np.isnan(values[:, 3]).all()


@pytest.mark.parametrize("time_column", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_progression_equals_one_regression_per_phase(seed, time_column):
    train, test = with_content(phased(8, seed), 1), with_content(phased(6, seed + 50), 2)
    gone = (train.video == 2) & (train.labels == 1)  # a phase that one video does not show
    train = FrameTable(
        train.vectors, np.where(gone, 0, train.labels), train.video, train.frame, train.is_ego, train.videos
    )
    expected = plain_r2(train, test, time_column)
    assert progression_r2(train, test, time_column=time_column) == pytest.approx(expected, abs=1e-9)


def test_progression_scores_phases_that_both_splits_show():
    train, test = with_content(phased(8, 0, phases=4), 1), with_content(phased(6, 1, phases=3), 2)
    assert progression_r2(train, test) == pytest.approx(plain_r2(train, test, False), abs=1e-9)


def test_progression_scores_a_phase_on_the_videos_that_show_it():
    train, test = with_content(phased(8, 0), 1), with_content(phased(6, 1), 2)
    gone = (test.video == 2) & (test.labels == 1)
    labels = np.where(gone, 0, test.labels)
    test = FrameTable(test.vectors, labels, test.video, test.frame, test.is_ego, test.videos)
    assert gone.any()
    assert progression_r2(train, test) == pytest.approx(plain_r2(train, test, False), abs=1e-9)


def ramp_pair(backwards: bool) -> FrameTable:
    ramp = np.arange(23.0)
    return table([23, 23], np.zeros(46), np.r_[ramp, ramp[::-1] if backwards else ramp][:, None], [0])


def test_tau_of_a_ramp():
    assert kendall_tau(ramp_pair(backwards=False)) == 1.0
    assert kendall_tau(ramp_pair(backwards=True)) == -1.0


def test_tau_reads_five_of_23_frames():
    e = ramp_pair(backwards=False)
    read = e.frame % 5 == 0
    assert read.sum() == 10
    unread = np.where(e.is_ego, 40.0, -40.0)[:, None]
    assert kendall_tau(e.replace_vectors(np.where(read[:, None], e.vectors, unread))) == 1.0


def test_tau_of_constant_videos_is_left_out_and_zero_where_nothing_is_left():
    ramp = np.arange(23.0)
    mixed = table([23, 23, 23], np.zeros(69), np.r_[ramp, ramp, np.full(23, 40.0)][:, None], [0])
    # To and from the constant third video every frame has one neighbour; the pairs of the two ramps remain.
    assert kendall_tau(mixed) == 1.0
    assert kendall_tau(table([23, 23], np.zeros(46), np.ones((46, 3)), [0])) == 0.0
    assert math.isnan(tau_b(np.ones(5)))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_tau_equals_a_loop_over_pairs(seed, ties):
    e = random_table(seed, ties=ties)
    assert kendall_tau(e) == pytest.approx(plain_tau(e), abs=1e-9)


@pytest.mark.parametrize("phases", [2, 3, 4])
def test_svm_predicts_as_scikit_learn_does(phases):
    train, test = phased(6, 0, phases=phases), phased(4, 1, phases=phases)
    train, test = with_content(train, 2, noise=4.0), with_content(test, 3, noise=4.0)
    (predicted,) = fit_predict(train.vectors, train.labels, test.vectors)
    np.testing.assert_array_equal(predicted, SVC().fit(train.vectors, train.labels).predict(test.vectors))


def test_phase_f1_equals_scikit_learn():
    train, test = with_content(phased(8, 0), 2, noise=4.0), with_content(phased(6, 1), 3, noise=4.0)
    every = slice(None)
    expected = {
        "regular": plain_f1(train, test, every, every),
        "ego2exo": plain_f1(train, test, train.is_ego, ~test.is_ego),
        "exo2ego": plain_f1(train, test, ~train.is_ego, test.is_ego),
    }
    assert phase_f1(train, test) == pytest.approx(expected, abs=1e-9)


def test_the_time_column_enters_progression_only():
    train, test = with_content(phased(6, 0), 1, noise=4.0), with_content(phased(4, 1), 2, noise=4.0)
    without, with_time = evaluate(train, test), evaluate(train, test, time_column=True)
    assert with_time.pop("progression_r2") > without.pop("progression_r2") + 0.01
    assert with_time == without


def test_keys_of_evaluate():
    train, test = with_content(phased(4, 0), 1), with_content(phased(4, 1), 2)
    names = {f"{task}/{way}" for task in ("phase_f1", "map@5") for way in ("regular", "ego2exo", "exo2ego")}
    scores = evaluate(train, test, k=5)
    assert set(scores) == names | {"progression_r2", "kendall_tau"}
    assert {f"map@5/{way}": value for way, value in retrieval_map(test, k=5).items()}.items() <= scores.items()


def test_the_option_k_reaches_frame_retrieval(monkeypatch):
    asked = {}
    monkeypatch.setattr(task.ae2, "predict", lambda fitted, test, k=10: asked.update(k=k))
    monkeypatch.setattr(task.Task, "frames", lambda self, part, action: None)
    part = SimpleNamespace(table=pa.table({"action": ["wave"]}))
    task.Task(Options(k=5)).predict({"wave": None}, part)
    assert asked == {"k": 5}


def test_perspective_does_not_come_from_names():
    train, test = with_content(phased(6, 0, low=40, high=60), 1), with_content(phased(4, 1, low=40, high=60), 2)
    renamed = [
        FrameTable(e.vectors, e.labels, e.video, e.frame, e.is_ego, tuple(f"/data/ego/exo/{v}" for v in e.videos))
        for e in (train, test)
    ]
    assert evaluate(*renamed) == evaluate(train, test)


def test_a_clock_scores_without_content():
    """A clock is no use for claims: it nearly wins tau and progression on videos with random phase boundaries."""
    scores = [evaluate(time_only(phased(12, s)), time_only(phased(10, 100 + s))) for s in range(3)]
    mean = {name: np.mean([row[name] for row in scores]) for name in scores[0]}
    assert mean["kendall_tau"] == pytest.approx(0.997, abs=0.003)
    assert mean["progression_r2"] == pytest.approx(0.75, abs=0.1)
    for way in ("regular", "ego2exo", "exo2ego"):
        assert mean[f"phase_f1/{way}"] == pytest.approx(0.5, abs=0.1)
        assert mean[f"map@10/{way}"] == pytest.approx(0.56, abs=0.1)


def test_few_shot_draws_as_seeded_sampling_does():
    train, test = with_content(phased(6, 0), 1, noise=3.0), with_content(phased(4, 1), 2, noise=3.0)
    result = few_shot(train, test, shots=(2, 10, "half", "all"), draws=3, draws_of_half=2)
    assert set(result) == {"2", "half", "all"}  # 10 is more than there are
    f1, accuracy = [], []
    for i in range(3):
        random.seed(42 + i)
        drawn = random.sample(list(range(6)), 2)
        chosen = np.isin(train.video, drawn)
        f1.append(plain_f1(train, test, chosen, slice(None)))
        model = SVC().fit(train.vectors[chosen], train.labels[chosen])
        accuracy.append(model.score(train.vectors[~chosen], train.labels[~chosen]))
    two = result["2"]
    assert (two.videos, two.draws) == (2, 3)
    assert (two.f1, two.f1_std) == pytest.approx((np.mean(f1), np.std(f1)), abs=1e-9)
    assert two.unselected_accuracy == pytest.approx(np.mean(accuracy), abs=1e-9)
    assert result["half"].draws == 2
    assert result["half"].videos == 3
    assert result["all"].draws == 1
    assert result["all"].f1_std == 0
    assert result["all"].f1 == pytest.approx(phase_f1(train, test)["regular"])
    assert math.isnan(result["all"].unselected_accuracy)


def test_few_shot_defaults_are_the_benchmarks():
    rng = np.random.default_rng(0)
    train = table([4] * 12, np.tile([0, 0, 1, 1], 12), rng.normal(size=(48, 3)), range(6))
    result = few_shot(train, train)
    assert {name: (r.videos, r.draws) for name, r in result.items()} == {
        "1": (1, 50), "2": (2, 50), "3": (3, 50), "5": (5, 50), "10": (10, 50), "half": (6, 10), "all": (12, 1)
    }  # fmt: skip


def test_few_shot_of_one_class_predicts_it():
    rng = np.random.default_rng(0)
    train = table([5, 5], [0] * 5 + [1] * 5, rng.normal(size=(10, 3)), [0])
    result = few_shot(train, train, shots=(1,), draws=4)["1"]
    assert result.unselected_accuracy == 0.0
    assert result.f1 == pytest.approx(1 / 3)
    assert few_shot(table([5], [0] * 5, np.ones((5, 3)), [0]), train, shots=("half",)) == {}
