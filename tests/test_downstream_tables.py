"""The embedding table, baselines, projections and result tables."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from downstream_samples import phased, random_table, table, with_content

from crossview.downstream.baselines import margin, time_only
from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases.ae2 import evaluate
from crossview.downstream.phases.frame_retrieval import retrieval_map
from crossview.downstream.projection import nearest_across_views, subsample, tsne
from crossview.downstream.table import from_arrow, markdown, to_arrow


def parts(e: FrameTable) -> dict:
    return {name: getattr(e, name) for name in ("vectors", "labels", "video", "frame", "is_ego", "videos")}


def same(a: FrameTable, b: FrameTable) -> bool:
    return a.videos == b.videos and all(np.array_equal(x, parts(b)[k]) for k, x in parts(a).items() if k != "videos")


def test_table_round_trip_through_parquet(tmp_path):
    e = random_table(0, ties=False)
    pq.write_table(e.to_table(), tmp_path / "e.parquet", row_group_size=20)
    back = FrameTable.from_table(pq.read_table(tmp_path / "e.parquet"))
    assert same(e, back)
    assert back.vectors.dtype == np.float32
    assert same(FrameTable.from_table(e.to_table().slice(int(e.video_slices()[1].start))), split(e, range(1, 6)))


def split(e: FrameTable, videos) -> FrameTable:
    kept = np.isin(e.video, list(videos))
    renumbered = np.searchsorted(list(videos), e.video[kept])
    names = tuple(e.videos[i] for i in videos)
    return FrameTable(e.vectors[kept], e.labels[kept], renumbered, e.frame[kept], e.is_ego[kept], names)


def test_slices_are_the_videos():
    e = random_table(1, ties=False)
    assert [e.video[s].tolist() for s in e.video_slices()] == [[i] * (e.video == i).sum() for i in range(6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["vectors"].__setitem__((5, 0), np.nan), "video-0: the vector of frame 5 is not finite"),
        (lambda p: p.update(labels=p["labels"][:-1]), "labels has shape"),
        (lambda p: p["labels"].__setitem__(0, -1), "video-0: frame 0 has label -1"),
        (lambda p: p["video"].__setitem__(0, 1), "video-0: its frames come after a later video"),
        (lambda p: p["frame"].__setitem__(1, 0), "video-0: frame 0 follows frame 0"),
        (lambda p: p["is_ego"].__setitem__(0, not p["is_ego"][0]), "video-0: is_ego changes"),
        (lambda p: p.update(videos=(*p["videos"], "empty")), "7 videos are listed"),
        (lambda p: p.update(videos=(*p["videos"][:-1], "video-0")), "'video-0' occurs in two places"),
        (lambda p: p.update(vectors=np.zeros((0, 4))), "at least one frame"),
    ],
)
def test_broken_tables_name_the_video(change, message):
    fields = {k: np.copy(v) if k != "videos" else v for k, v in parts(random_table(2, ties=False)).items()}
    change(fields)
    with pytest.raises(ValueError, match=message):
        FrameTable(**fields)


def test_missing_columns_and_rows_are_named():
    e = random_table(0, ties=False)
    with pytest.raises(ValueError, match="label"):
        FrameTable.from_table(e.to_table().drop_columns(["label"]))
    with pytest.raises(ValueError, match="no rows"):
        FrameTable.from_table(e.to_table().slice(0, 0))


def test_evaluate_refuses_what_it_cannot_score():
    e = random_table(0, ties=False)
    only_ego = FrameTable(e.vectors, e.labels, e.video, e.frame, np.ones(len(e)), e.videos)
    with pytest.raises(ValueError, match="width 8, evaluated ones 3"):
        evaluate(e, e.replace_vectors(e.vectors[:, :3]))
    with pytest.raises(ValueError, match=r"evaluated split: all 6 videos .* are ego"):
        evaluate(e, only_ego)
    with pytest.raises(ValueError, match=r"train split: all 6 videos .* are ego"):
        evaluate(only_ego, e)
    other = FrameTable(e.vectors, e.labels + 5, e.video, e.frame, e.is_ego, e.videos)
    with pytest.raises(ValueError, match="no phase occurs both"):
        evaluate(e, other)
    with pytest.raises(ValueError, match="k is 0"):
        evaluate(e, e, k=0)


def test_time_only_is_the_position_in_the_video():
    e = time_only(table([4, 2], [0] * 6, np.ones((6, 3)), [0]))
    np.testing.assert_allclose(e.vectors[:, 0], [0, 0.25, 0.5, 0.75, 0, 0.5])
    assert e.dim == 1


def test_content_beats_the_clock_across_views():
    train, test = phased(12, 0), phased(8, 1)
    rows = {
        "trained": evaluate(with_content(train, 2), with_content(test, 3)),
        "time only": evaluate(time_only(train), time_only(test)),
    }
    gains = margin(rows)
    for way in ("ego2exo", "exo2ego"):
        assert gains[f"phase_f1/{way}"].mean > 0.2
        assert gains[f"map@10/{way}"].mean > 0.1
    assert gains["kendall_tau"].mean < 0


def test_margin_is_over_the_best_control_of_each_metric():
    rows = {
        "trained": {"f1": [0.7, 0.8, 0.9], "tau": [0.9, 0.9, 0.9]},
        "random init": {"f1": [0.5, 0.6, 0.4], "tau": [0.1, 0.2, 0.3]},
        "time only": {"f1": 0.45, "tau": 0.99},
        "broken": {"f1": float("nan")},
    }
    gains = margin(rows)
    assert gains["f1"].baseline == "random init"
    assert (gains["f1"].mean, gains["f1"].spread) == pytest.approx((0.3, np.std([0.2, 0.2, 0.5], ddof=1)))
    assert gains["tau"].baseline == "time only"
    assert gains["tau"].mean == pytest.approx(-0.09)


def test_where_less_is_better_the_best_baseline_is_the_lowest_and_a_margin_below_it():
    rows = {"trained": {"error": 0.2}, "random init": {"error": 0.3}, "time only": {"error": 0.5}}
    gain = margin(rows, lower={"error"})["error"]
    assert (gain.baseline, gain.mean) == ("random init", pytest.approx(0.1))


def test_one_seed_shows_no_spread():
    gains = margin({"trained": {"f1": 0.9}, "time only": {"f1": [0.5, 0.6]}})
    assert gains["f1"].mean == pytest.approx(0.35)
    assert math.isnan(gains["f1"].spread)


def test_margin_needs_a_baseline():
    with pytest.raises(ValueError, match="at least one baseline"):
        margin({"trained": {"f1": 0.9}})
    with pytest.raises(ValueError, match="no baseline has a score for 'f1'"):
        margin({"trained": {"f1": 0.9}, "time only": {"tau": 1.0}})


def test_result_tables():
    rows = {"trained": {"f1": [0.7, 0.8, 0.9], "tau": 0.5}, "time only": {"f1": 0.45}}
    assert markdown(rows) == (
        "|  | f1 | tau |\n| --- | ---: | ---: |\n| trained | 0.800 ± 0.100 | 0.500 |\n| time only | 0.450 |  |\n"
    )
    assert from_arrow(to_arrow(rows)) == {"trained": {"f1": [0.7, 0.8, 0.9], "tau": [0.5]}, "time only": {"f1": [0.45]}}


def test_subsample_balances_perspectives():
    e = phased(6, 0, low=30, high=60)
    rows = subsample(e, 40, seed=3)
    assert len(np.unique(rows)) == 40
    assert e.is_ego[rows].sum() == 20
    assert np.array_equal(rows, subsample(e, 40, seed=3))
    assert not np.array_equal(rows, subsample(e, 40, seed=4))
    assert len(subsample(e, 10**6, seed=0)) == len(e)


def test_tsne_is_seeded_and_separates_phases():
    e = with_content(phased(6, 0, low=30, high=60), 1, noise=0.1)
    first, again = tsne(e, frames=60, seed=1), tsne(e, frames=60, seed=1)
    assert first.points.shape == (60, 2)
    np.testing.assert_array_equal(first.points, again.points)
    groups = e.labels[first.rows] * 2 + e.is_ego[first.rows]
    spread = np.mean([first.points[groups == g].std(0).max() for g in np.unique(groups)])
    assert spread < first.points.std(0).min()
    assert np.isfinite(tsne(time_only(e), frames=20).points).all()


def test_nearest_frames_across_views():
    e = with_content(phased(4, 0, low=30, high=60), 1, noise=0.1)
    rows = np.arange(0, len(e), 7)
    found = nearest_across_views(e, rows, k=3)
    assert (e.is_ego[found] != e.is_ego[rows][:, None]).all()
    distances = ((e.vectors[rows[0]].astype(float) - e.vectors[~e.is_ego].astype(float)) ** 2).sum(1)
    assert found[0, 0] == np.flatnonzero(~e.is_ego)[distances.argmin()]
    assert retrieval_map(e, k=3)["ego2exo"] > 0.9
