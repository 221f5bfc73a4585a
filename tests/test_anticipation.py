"""Action anticipation: TempAgg against loops, what it is fed, its scores, and a run on the layout of Assembly101."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import evgap_tiny
import numpy as np
import pytest
import tempagg_loops
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.datasets import assembly101
from crossview.datasets.catalog import Catalog, Recording, Segment, one_protocol
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic import layouts
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.downstream import results
from crossview.downstream.anticipation.config import Config, Network, Observed, Options, presets
from crossview.downstream.anticipation.metrics import class_mean_recall, fused, in_top_k
from crossview.downstream.anticipation.model import Model
from crossview.downstream.anticipation.snippets import SnippetMax, recent_ranges, spanning_ranges
from crossview.downstream.anticipation.task import Task
from crossview.downstream.anticipation.tempagg import TempAgg, losses
from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.task import Predicted, PredictionPart, Recorded
from crossview.errors import UserError
from crossview.methods.method import build
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Data, Encoder, Experiment, TrainerExperiment, preset
from crossview.platform.evaluate.result_store import read_results, read_texts
from crossview.platform.train import launcher
from crossview.platform.train.lr_schedule import learning_rate
from crossview.platform.train.settings import Validation
from crossview.platform.tune import space
from crossview.platform.tune.overrides import known_paths, paths_of, with_options

SCORED = Validation(tasks=("anticipation",))
"""As `crossview train anticipation` scores a run."""
HEADS = {"verb": 17, "noun": 90, "action": 1064}
SHORT = Observed(fps=10, horizon_s=0.2, least_s=0.2, spanning_s=1.5, spanning_snippets=(4, 2), recent_s=(1.0, 0.5, 0.2))
SMALL = Network(latent=3, width=5)
TINY = Config(verbs=3, nouns=None, actions=6, feature_width=4, observed=SHORT, network=SMALL)


def scrambled(model: nn.Module, seed: int = 0) -> Any:
    """In eval mode, with every parameter away from where it starts, norms and biases too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model.eval()


# TempAgg


@pytest.mark.parametrize(
    ("features", "attention", "count"),
    [(2048, False, 182_121_060), (2048, True, 207_387_276), (512, False, 56_291_940), (512, True, 62_683_788)],
)
def test_parameters(features: int, attention: bool, count: int) -> None:
    with torch.device("meta"):
        model = TempAgg(features, HEADS, Observed(), Network(past_attention=attention))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("hidden", [0, 6, 11])
def test_forward_is_that_of_plain_loops(attention: bool, hidden: int) -> None:
    """With the first frames hidden, whole snippets are empty."""
    heads = {"verb": 3, "noun": 4}
    model = scrambled(TempAgg(4, heads, SHORT, replace(SMALL, past_attention=attention)).double())
    frames, mask = torch.randn(2, 16, 4, dtype=torch.float64), torch.ones(2, 16, dtype=torch.bool)
    mask[0, :hidden] = False
    found = model(frames, mask)
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    for b in range(2):
        past = frames[b].tolist(), mask[b].tolist()
        spanning = [tempagg_loops.filled(tempagg_loops.snippets(*past, 15, count)) for count in (4, 2)]
        recent = [tempagg_loops.filled(tempagg_loops.snippets(*past, length, 2)) for length in (10, 5, 2)]
        slow = torch.tensor(tempagg_loops.logits(weights, spanning, recent, attention=attention))  # (R, 7)
        for name, (first, stop) in {"verb": (0, 3), "noun": (3, 7)}.items():
            torch.testing.assert_close(found.per_tab[name][:, b].float(), slow[:, first:stop], rtol=1e-5, atol=1e-5)
            summed = slow[:, first:stop].sum(0)
            torch.testing.assert_close(found.logits[name][b].float(), summed, rtol=1e-5, atol=1e-5)


def test_the_paper_takes_678_frames_of_181() -> None:
    sets = [spanning_ranges(Observed()), recent_ranges(Observed())]
    taken = [sum(last - first + 1 for of in part for first, last in of) for part in sets]
    assert (Observed().steps, taken) == (181, [550, 128])
    assert {of[-1][1] for part in sets for of in part} == {180}
    assert [of[0][0] for of in sets[1]] == [132, 144, 156, 168]


def test_an_empty_snippet_repeats_the_nearest_and_an_empty_set_the_last_frames() -> None:
    observed = Observed(fps=1, spanning_s=6, spanning_snippets=(3,), recent_s=(2.0,))
    frames = torch.arange(7.0)[None, :, None]

    def pooled(*shown: int) -> list[list[float]]:
        mask = torch.zeros(1, 7, dtype=torch.bool)
        mask[0, list(shown)] = True
        return [of[0, :, 0].tolist() for of in SnippetMax(observed)(frames, mask)]

    assert pooled(*range(7)) == [[2, 4, 6], [5, 6]]
    assert pooled(3) == [[3, 3, 3], [3, 3]]  # before the recent window, which then has the last that there is
    assert pooled(0, 1, 5, 6) == [[1, 6, 6], [5, 6]]  # of two equally near ones the later
    assert pooled(4) == [[4, 4, 4], [4, 4]]
    assert pooled() == [[0, 0, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"must be \(B, 7, D\)"):
        SnippetMax(observed)(frames[:, 1:], torch.ones(1, 6, dtype=torch.bool))


def test_a_batch_of_one_and_what_is_hidden() -> None:
    model = scrambled(TempAgg(4, {"verb": 3}, SHORT, SMALL))
    frames, mask = torch.rand(2, 16, 4), torch.ones(2, 16, dtype=torch.bool)
    mask[0, :9] = False
    both = model(frames, mask).logits["verb"]
    alone = model(frames[:1], mask[:1]).logits["verb"]
    assert alone.shape == (1, 3)
    torch.testing.assert_close(alone, both[:1])
    frames[0, :9] = 1e4
    torch.testing.assert_close(model(frames, mask).logits["verb"], both)


def test_losses_add_up_and_what_has_no_label_adds_nothing() -> None:
    per_tab = {"verb": torch.randn(4, 3, 5), "noun": torch.randn(4, 3, 7)}
    labels = {"verb": torch.tensor([1, -100, 4]), "noun": torch.full((3,), -100)}
    found = losses(per_tab, labels)
    expected = sum(functional.cross_entropy(tab[k], labels["verb"][k]) for tab in per_tab["verb"] for k in (0, 2)) / 3
    assert found["verb"].item() == pytest.approx(float(expected), rel=1e-6)
    assert found["noun"].item() == 0
    assert found["loss"].item() == pytest.approx(found["verb"].item())
    whole = {"verb": torch.tensor([1, 2, 4]), "noun": torch.tensor([0, 6, 3])}
    each = [functional.cross_entropy(tab, whole[name]) for name, tabs in per_tab.items() for tab in tabs]
    assert losses(per_tab, whole)["loss"].item() == pytest.approx(float(sum(each)), rel=1e-6)


# The trainer


def batch_of(width: int, size: int = 3, hidden: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(size, SHORT.steps, dtype=torch.bool)
    mask[0, :hidden] = False
    labels = {"target/verb": torch.arange(size) % 3, "target/action": torch.arange(size) % 6}
    return {"features": torch.randn(size, 1, SHORT.steps, width).half(), "features/mask": mask, **labels}


def encoder() -> ClipEncoder:
    torch.manual_seed(2)
    return ClipEncoder(build("evgap", evgap_tiny.TINY))


def test_windows_of_the_encoder_are_counted_back_from_the_last_frame() -> None:
    model = scrambled(Model(replace(TINY, window=6), encoder()))
    batch = batch_of(24, hidden=12)
    found, mask = model._frames(batch)
    assert found.shape == (3, 16, 32)
    features = batch["features"][:, 0, :, None]  # (B, T, 1, D)
    latest, middle, oldest = (model.encoder(features[:, first : first + 6]) for first in (10, 4, 0))
    for frames, vectors in ((range(10, 16), latest), (range(4, 10), middle), (range(4), oldest)):
        for t in frames:
            torch.testing.assert_close(found[1:, t], vectors[1:])
    torch.testing.assert_close(found[0, 12], latest[0])
    assert not found[0, :10].any()  # no frame of these windows is there, and they are not embedded
    assert mask is batch["features/mask"]
    torch.testing.assert_close(
        model.predict(batch)["action"][:1], model.predict({k: v[:1] for k, v in batch.items()})["action"]
    )


def test_one_window_where_less_is_observed_than_it_has_frames() -> None:
    model = scrambled(Model(replace(TINY, window=20), encoder()))
    found, _ = model._frames(batch_of(24))
    assert (found == found[:, :1]).all()


def step_of(model: Model, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's state before a step with a large rate."""
    assert model.encoder is not None
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    groups = [g | {"lr": 0.5 * g.pop("lr_scale", 1.0)} for g in model.parameter_groups(0.0)]
    optimiser = torch.optim.SGD(groups)
    model.train()
    model(batch)["loss"].backward()
    optimiser.step()
    return before


def test_a_frozen_encoder_stays_as_it_is() -> None:
    model = Model(replace(TINY, encoder_lr=None), encoder())
    before = step_of(model, batch_of(24))
    assert model.encoder is not None
    assert not model.encoder.training
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert len(model.parameter_groups(0.0)) == 1


def test_a_tuned_encoder_has_its_own_rate_and_nothing_waits_for_a_gradient() -> None:
    model = Model(replace(TINY, encoder_lr=0.25), encoder())
    assert [group.get("lr_scale") for group in model.parameter_groups(0.1)] == [None, 0.25]
    before = step_of(model, batch_of(24))
    assert model.encoder is not None
    assert model.encoder.training
    assert any(not torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    grouped = {id(p) for group in model.parameter_groups(0.0) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"method.feature_width is 4, but .* have 24 values.*--method.feature_width 24"):
        Model(TINY, None)(batch_of(24))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verbs": None, "actions": None}, "all None"),
        ({"verbs": 0}, "verbs is 0"),
        ({"window": 0}, "window is 0"),
        ({"encoder_lr": 0.0}, "encoder_lr is 0"),
        ({"observed": {"fps": 0}}, r"observed.fps is 0"),
        ({"observed": {"horizon_s": -1.0}}, "horizon_s is -1"),
        ({"observed": {"recent_s": ()}}, r"observed.recent_s is empty"),
        ({"observed": {"recent_s": (0.1,)}}, r"recent_snippets has 2, and observed.recent_s 0.1, which is 1 frames"),
        ({"observed": {"spanning_snippets": (4, 0)}}, r"spanning_snippets has 0"),
        ({"network": {"width": 0}}, "network.width is 0"),
        ({"network": {"dropout": 1.0}}, "network.dropout is 1"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(TINY, **{k: replace(getattr(TINY, k), **v) if isinstance(v, dict) else v for k, v in changes.items()})


def test_the_papers_schedule() -> None:
    recipe = presets()["tempagg"]()
    optim = recipe.optim
    assert (optim.optimizer, optim.batch, optim.epochs) == ("adam", 32, 15)
    rates = [learning_rate(optim, 100 * epoch, 1500) for epoch in range(15)]
    assert rates == pytest.approx([1e-4] * 9 + [1e-5] * 6)
    assert recipe.method.classes == HEADS
    past = recipe.method.sampling()
    assert (past.past_s, past.horizon_s, past.least_s, past.fps) == (6.0, 1.0, 2.0, 30)


def test_the_space_fits_the_options() -> None:
    found, recipe = space.load("anticipation", "anticipation"), preset("anticipation", "tempagg")
    before = TrainerExperiment(data=Data(catalog=Path("c")), method=recipe.method, optim=recipe.optim)
    assert set(found.paths()) <= set(known_paths("anticipation", before))
    for k in range(50):
        options = found.sample((0, k))
        after = with_options("anticipation", before, options)
        for key, value in options.items():
            for path in paths_of(key):
                at: Any = after
                for name in path.split("."):
                    at = getattr(at, name)
                assert at == value
    assert (found.mode, found.tasks) == ("max", ("anticipation",))
    assert found.metric in Options().metrics()


# Scores


def test_recall_of_the_seeded_case() -> None:
    random = np.random.RandomState(0)
    scores, labels = random.randn(200, 20), random.randint(0, 12, 200)
    assert class_mean_recall(scores, labels) == pytest.approx(0.20489223, abs=1e-8)
    assert class_mean_recall(scores, labels, k=1) == pytest.approx(0.06321001, abs=1e-8)
    assert in_top_k(scores, labels).mean() == pytest.approx(0.21)


def test_of_equal_scores_the_lower_class_is_first() -> None:
    assert in_top_k(np.zeros((3, 8)), np.array([0, 4, 5])).tolist() == [True, True, False]


def test_bad_scores_are_refused() -> None:
    with pytest.raises(UserError, match="nan: the model has diverged"):
        in_top_k(np.full((1, 8), np.nan), np.array([0]))
    with pytest.raises(ValueError, match="do not number 8 classes"):
        in_top_k(np.zeros((1, 8)), np.array([8]))
    sides = np.array(["ego", "exo"])
    with pytest.raises(UserError, match="views of segment 4 have different labels"):
        fused(np.zeros((2, 8)), np.array([1, 2]), np.array([4, 4]), sides)


NAMES = tuple(f"c{k}" for k in range(7))


def sample(
    view: str, scene: str, label: int, best: int | None = None, *, subject: str = "p", other: int = -100
) -> Predicted:
    """A view of a segment, the scores of which put one class first and then those from the highest id on."""
    scores = np.arange(7.0)
    outputs = {}
    if best is not None:
        scores[best] = 99
        outputs = {"action": scores, "verb": scores}
    return Predicted(
        unit=0,
        recordings=(f"{subject}/{view}",),
        scene=scene,
        views=(view,),
        perspectives=("ego" if view.startswith("e") else "exo",),
        span=(0, 1),
        chunk=1,
        labels=np.empty(0, np.int64),
        targets={"action": np.array(label), "verb": np.array(other)},
        outputs=outputs,
    )


def part(*samples: Predicted, **facts: Any) -> PredictionPart:
    recordings = tuple(
        Recorded(
            id=name,
            dataset="d",
            scene="s",
            view=s.views[0],
            perspective=s.perspectives[0],
            subject=subject,
            action=f"toy of {subject}",
            start_s=0.0,
            end_s=1.0,
            frame_labels={},
        )
        for name, s in {s.recordings[0]: s for s in samples}.items()
        for subject in [name.partition("/")[0]]
    )
    given = {"left_out": 0, "encoder_seen": None, "encoded": False, "seen": frozenset(s.views[0] for s in samples)}
    classes = {"action": NAMES, "verb": NAMES}
    return PredictionPart(split="val", recordings=recordings, samples=samples, classes=classes, **given | facts)


TRAIN = part(*(sample("e1", "t", label, subject="q") for label in (6, 6, 6, 0, 0, 1, 2, 3, 4)))


def scored(test: PredictionPart, options: Options | None = None, row: str | None = None) -> dict[str, float]:
    task = Task(options or Options())
    chosen = task.baselines()[row] if row else task
    return chosen.score(chosen.predict(chosen.fit(TRAIN), test), test)


MIXED = part(
    sample("e1", "s0", 0, 0),  # found
    sample("v1", "s0", 0, 6),  # 6 5 4 3 2: not found
    sample("v2", "s0", 0, 6),
    sample("e1", "s1", 1, 5),  # 5 6 4 3 2: not found
    sample("v1", "s1", 1, 1),
    sample("v1", "s2", 6, 0, subject="q"),  # 0 6 5 4 3: found
)


def test_each_view_counts_by_itself_and_all_of_a_segment_at_once() -> None:
    found = scored(MIXED)
    expected = {
        "overall/action/ego": (1 + 0) / 2,
        "overall/action/exo": (0 + 1 + 1) / 3,
        "overall/action/all": (1 / 3 + 1 / 2 + 1) / 3,
        "fused/action/ego": (1 + 0) / 2,
        "fused/action/exo": (0 + 1 + 1) / 3,
        "fused/action/all": 1.0,  # a single vote of 99 is a mean of 33 or more
        "consistency/action": 1 / 4,  # of s0, v1 and v2 agree on 6; of s1 nobody, and s2 has one camera
    }
    assert found == pytest.approx({f"anticipation/{name}": value for name, value in expected.items()})
    assert set(found) <= set(Options().metrics())


def test_perspectives_that_no_camera_has_are_left_out() -> None:
    found = scored(part(sample("v1", "s0", 0, 0)))
    assert found == {
        f"anticipation/{name}/action/{views}": 1.0 for name in ("overall", "fused") for views in ("exo", "all")
    }


def test_the_tail_and_the_unseen() -> None:
    options = Options(tail_actions=("c0", "c5"), unseen="subject")
    found = scored(MIXED, options)
    assert found["anticipation/overall/action/all/tail"] == pytest.approx(1 / 3)
    assert found["anticipation/overall/action/all/unseen"] == pytest.approx((1 / 3 + 1 / 2) / 2)  # without subject q
    assert found["anticipation/fused/action/exo/unseen"] == pytest.approx((0 + 1) / 2)
    assert scored(MIXED, replace(options, unseen="action"))["anticipation/overall/action/all/unseen"] == pytest.approx(
        5 / 12
    )
    assert set(found) <= set(options.metrics())
    known = scored(part(sample("v1", "s", 3, 3, subject="q")), options)
    assert not [name for name in known if name.endswith(("/tail", "/unseen"))]  # no class of it, nobody new
    with pytest.raises(UserError, match=r"tail_actions has 'c9', which is none of the 7 classes of kind 'action'"):
        scored(MIXED, Options(tail_actions=("c9",)))


def test_the_majority_is_what_training_shows_most() -> None:
    found = scored(MIXED, row="majority")  # 6, 0, then 1 to 3 by id; 4 and 5 are not among five
    assert found["anticipation/overall/action/all"] == 1.0
    rare = part(sample("v1", "a", 4), sample("v1", "b", 5), sample("v1", "c", 3))
    assert scored(rare, row="majority")["anticipation/overall/action/all"] == pytest.approx(1 / 3)


def test_samples_without_a_label_are_left_out_and_counted() -> None:
    test = part(
        sample("e1", "s0", 0, 0, other=5), sample("v1", "s0", 0, 6), sample("v1", "s1", -100, 0),
        left_out=1, undrawn={"v1": 2, "v3": 4},
    )  # fmt: skip
    task = Task(Options())
    predictions = task.predict(task.fit(TRAIN), test)
    assert task.score(predictions, test)["anticipation/overall/action/all"] == 0.5
    assert task.score(predictions, test)["anticipation/fused/verb/ego"] == 1.0
    assert task.items(predictions, test) == 3
    notes = task.notes(predictions, TRAIN, test)
    assert notes[0].startswith("3 of 10 annotated views of segments are scored (30.0%), of 2 segments")
    assert "v1 2, v3 4" in notes[1]
    assert notes[2:] == [
        "2 samples have no verb and are left out of its scores.",
        "All that is scored is of one verb class, c5: always predicting it is right.",
        "1 of 1 scored verb classes never occur in training (c5), and have 100.0% of the labels: these cannot be "
        "right but by chance.",
        "1 samples have no action and are left out of its scores.",
        "All that is scored is of one action class, c0: always predicting it is right.",
    ]
    lines = [line for line in task.details(predictions, test)["cameras"] if line.pop("kind") == "action"]
    assert [tuple(line.values()) for line in lines] == [
        ("e1", "ego", 1.0, 1, 0),
        ("v1", "exo", 0.0, 1, 2),
        ("v3", None, None, 0, 4),
    ]


def test_views_of_an_event_with_other_labels_are_not_fused() -> None:
    test = part(sample("e1", "s0", 0, 0), sample("v1", "s0", 1, 0))
    assert scored(test)["anticipation/fused/action/all"] == 0.5


# Runs


def foretelling(folder: Path) -> Path:
    """A catalog whose frames show, with noise, what begins next: a recording's action of 16 is another every second."""
    rng, members, segments = np.random.default_rng(0), [], []
    for k in range(8):
        actions = rng.integers(0, 16, 16)
        for view in ("ego", "exo"):
            shown = np.eye(16)[np.repeat(np.append(actions[1:], 0), 10)]
            np.save(folder / f"{k}_{view}.npy", (shown + 0.2 * rng.standard_normal(shown.shape)).astype(np.float16))
            recording = Recording(
                dataset="d", scene=str(k), view=view, perspective=view, subject="", action="", path=f"{k}_{view}.npy",
                kind="features", fps=10.0, num_frames=160, height_px=1, width_px=1,
            )  # fmt: skip
            members.append((recording, "train" if k < 6 else "val"))
            for at, action in enumerate(actions.tolist()):
                named = {"action": f"{action:02d}", "verb": str(action // 4)}
                segments += [Segment(recording.id, at, at + 1, kind, label) for kind, label in named.items()]
    classes = {"action": tuple(f"{a:02d}" for a in range(16)), "verb": tuple("0123")}
    recordings = tuple(recording for recording, _ in members)
    made = Catalog(folder, recordings, tuple(segments), protocols=one_protocol(members), classes=classes)
    made.save(folder / "catalog")
    return folder / "catalog"


def test_it_learns_what_begins_next(tmp_path: Path) -> None:
    observed = replace(SHORT, spanning_s=0.7, spanning_snippets=(2,), recent_s=(0.5,))
    network = Network(latent=4, width=32, dropout=0.0)
    config = Config(verbs=4, nouns=None, actions=16, feature_width=16, observed=observed, network=network)
    made = TrainerExperiment(
        data=Data(catalog=foretelling(tmp_path)),
        method=config,
        optim=Optim(optimizer="adam", lr=5e-3, weight_decay=0.0, schedule="constant", batch=16, steps=60),
        every=Cadence(log=20, checkpoint=60),
    )
    run = launcher.start(tmp_path / "run", "anticipation", made, in_process=True, validation=SCORED)
    table = read_results(run)
    assert table is not None
    scores = results.scores(table)
    assert set(scores) == {"trained", "majority"}
    assert set(scores["trained"]) == {name for name in Options().metrics() if "noun" not in name}
    for views in ("ego", "exo", "all"):
        assert scores["trained"][f"anticipation/overall/action/{views}"] > 0.95
        assert scores["majority"][f"anticipation/overall/action/{views}"] < 0.5
    notes = read_texts(run, "val")["anticipation"].notes
    assert notes[0].startswith("60 of 64 annotated views of segments are scored")
    assert notes[1].endswith("begin too early, or after their recording: ego 2, exo 2.")


WORLD = WorldConfig(
    actions=("strike_peg",), train_takes=2, val_takes=1, test_takes=1, exo_cameras=1, size_px=32, min_frames=24,
    max_frames=28, cut="whole",
)  # fmt: skip
BRIEF = Observed(horizon_s=0.1, least_s=0.1, spanning_s=0.6, spanning_snippets=(3, 2), recent_s=(0.4, 0.2))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assembly101")
    exported = layouts.export("assembly101", write(WORLD, folder / "world"), folder / "root")
    options = replace(
        exported, root=None, features=exported.root / "TSM_features", packed=folder / "packed", labels=assembly101.FINE
    )
    assembly101.catalog(options, prober=Prober(folder / "indices")).save(folder / "catalog")
    return folder / "catalog"


def experiment(catalog: Path, steps: int, encoder: Encoder | None = None, **changes: Any) -> TrainerExperiment[Any]:
    recipe = preset("anticipation", "debug")
    network = Network(latent=4, width=8)
    config = replace(recipe.method, verbs=2, nouns=4, actions=8, observed=BRIEF, network=network, **changes)
    return TrainerExperiment(
        data=Data(catalog=catalog),
        method=config,
        optim=replace(recipe.optim, steps=steps),
        every=Cadence(log=5, checkpoint=steps),
        encoder=encoder or Encoder(),
    )


def test_an_encoder_and_its_controls(catalog: Path, tmp_path: Path) -> None:
    small = replace(evgap_tiny.TINY, feature_width=2048, frames=6, fps=30.0)
    made = Experiment(data=Data(catalog=catalog), method=small, optim=Optim(steps=1, batch=1), every=Cadence(log=1))
    method = launcher.start(tmp_path / "evgap", "evgap", made, in_process=True)
    wanted = experiment(catalog, 2, Encoder(run=method), window=6, encoder_lr=None)
    run = launcher.start(tmp_path / "run", "anticipation", wanted, in_process=True, validation=SCORED, controls=True)
    table = read_results(run)
    assert table is not None
    scores = results.scores(table)
    assert set(scores) == {"trained", "random init", "input features", "majority"}
    assert set(scores["trained"]) == set(Options().metrics())
    begun, kept = (checkpoint.read_weights(checkpoint.resolve(folder)) for folder in (method, run))
    assert all(torch.equal(kept[f"encoder.method.{name}"], value) for name, value in begun.items())
    without = checkpoint.read_weights(checkpoint.resolve(run / "controls" / "input-features"))
    assert not [name for name in without if name.startswith("encoder")]


def test_another_number_of_classes_is_refused_by_its_option(catalog: Path, tmp_path: Path) -> None:
    made = experiment(catalog, 1)
    made = replace(made, method=replace(made.method, actions=9))
    with pytest.raises(UserError, match=r"kind 'action' have 8 classes .*pass --method.actions 8"):
        launcher.start(tmp_path / "run", "anticipation", made, in_process=True, validation=SCORED)
