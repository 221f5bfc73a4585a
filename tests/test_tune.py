"""The parts of a search: what is chosen, remembered, scheduled and refused; no cluster."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from feature_catalog import write_feature_catalog
from ray.exceptions import RayTaskError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from crossview.downstream.paired import Verdict
from crossview.platform.config import Compute, Data, Experiment, preset, read
from crossview.platform.tune import ranking, space, spec, validate
from crossview.platform.tune.capacity import plan
from crossview.platform.tune.confirm import Confirmed, winner
from crossview.platform.tune.pbt import exchanges, rounds
from crossview.platform.tune.report import publish
from crossview.platform.tune.samplers import Optuna, Random, chooser
from crossview.platform.tune.schedulers import Hopeless, Proposer, Watcher, scheduler
from crossview.platform.tune.settings import Settings
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import comparable
from crossview.platform.tune.trial_store import Journal, Report, Trial

METRIC = "phase_f1/ego2exo"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


def settled(catalog: Path, compute: Compute | None = None, **changes: Any) -> Search:
    recipe = preset("byov", "debug")
    experiment = Experiment(
        data=Data(catalog=catalog), method=recipe.method, optim=recipe.optim, compute=compute or Compute(device="cpu")
    )
    return validate.settle("byov", experiment, Settings(**{"trials": 6, **changes}))[0]


def report(evaluation: int, objective: float, at: float = 0.0) -> Report:
    return Report(
        evaluation=evaluation,
        step=10 * evaluation,
        objective=objective,
        per_seed=[objective],
        metrics={METRIC: objective, "kendall_tau": 0.5},
        baselines={"random init": {METRIC: 0.3}, "time only": {METRIC: 0.4}},
        losses={"loss": 1.0 / evaluation},
        seconds=5.0 * evaluation,
        at=at or 1e9 + evaluation,
    )


def remember(journal: Journal, number: int, objectives: list[float], status: str | None, options: dict) -> None:
    journal.begin(number, options)
    for k, objective in enumerate(objectives, 1):
        journal.report(number, report(k, objective, at=1e9 + 10 * k + number))
    if status:
        journal.end(number, status)  # type: ignore[arg-type]


def options(msm_ratio: float) -> dict[str, float]:
    found = dict(space.load("byov", "byov").sample((0, 0)))
    return {**found, "method.msm_ratio": msm_ratio}


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "search")
    remember(journal, 0, [0.4, 0.5], "finished", {})
    remember(journal, 1, [0.3], None, {"optim.lr": 0.01})
    journal.end(0, "failed", "too late: the first end stands")
    first, second = journal.trials()
    assert (first.status, first.objective, first.options) == ("finished", 0.5, {})
    assert (second.status, second.reports[0], second.options) == (None, journal.trial(1).reports[0], {"optim.lr": 0.01})
    assert journal.run(1, 3).name == "search-0001-seed3"


def test_proposals_go_on_where_the_journal_ends(catalog: Path, tmp_path: Path) -> None:
    """Interrupted trials come first; none is given twice; random points are those of a search in one go."""
    search, varied = settled(catalog), space.load("byov", "byov")
    whole = Proposer(search, Journal(tmp_path / "whole"), chooser(search, varied, []))
    assert [whole.suggest(str(k))["trial"]["number"] for k in range(7)] == list(range(7))
    assert whole.suggest("7") == Searcher.FINISHED
    points = [trial.options for trial in whole.journal.trials()]
    assert points[0] == {}

    journal = Journal(tmp_path / "killed")
    remember(journal, 0, [0.4] * 4, "finished", {})
    remember(journal, 1, [0.3], None, points[1])
    remember(journal, 2, [], None, points[2])
    again = Proposer(search, journal, chooser(search, varied, []))
    numbers = []
    while (one := again.suggest(str(len(numbers)))) != Searcher.FINISHED:
        numbers.append(one["trial"]["number"])
    assert [trial.options for trial in journal.trials()] == points
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_asha_remembers_the_scores_of_before(catalog: Path, tmp_path: Path) -> None:
    """A mediocre trial goes on after nothing, and is stopped where the journal holds better ones."""
    search, journal = settled(catalog), Journal(tmp_path / "before")
    remember(journal, 9, [], None, {})
    assert decision(scheduler(search, journal), 9, 0.5) == TrialScheduler.CONTINUE
    for k in range(4):
        remember(journal, k, [0.8 + k / 100], "stopped", {})
    assert decision(scheduler(search, journal), 9, 0.5) == TrialScheduler.STOP
    assert decision(scheduler(search, journal), 9, 0.9) == TrialScheduler.CONTINUE
    fewer = settled(catalog, mode="min")
    assert decision(scheduler(fewer, journal), 9, 0.5) == TrialScheduler.CONTINUE


def test_asha_compares_a_trial_that_goes_on_at_its_own_evaluations(catalog: Path, tmp_path: Path) -> None:
    """The third evaluation is none of those at which trials are halved: not the second once more."""
    search, journal = settled(catalog), Journal(tmp_path / "before")
    for k in range(4):
        remember(journal, k, [0.8, 0.8 + k / 100], "stopped", {})
    remember(journal, 4, [0.9, 0.9], None, {})
    remember(journal, 9, [], None, {})
    asha = scheduler(search, journal)
    assert decision(asha, 4, 0.1, evaluation=3) == TrialScheduler.CONTINUE
    assert decision(asha, 9, 0.1, evaluation=2) == TrialScheduler.STOP


def decision(asha: TrialScheduler, number: int, objective: float, evaluation: int = 1) -> str:
    trial: Any = SimpleNamespace(trial_id=f"trial-{number}", config={"trial": {"number": number}})
    asha.on_trial_add(None, trial)  # type: ignore[arg-type]
    values = {"objective": objective, "evaluation": evaluation}
    return asha.on_trial_result(None, trial, values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "status", "unwritable"),
    [
        (OSError(28, "disk full"), None, "disk full"),
        (ChildProcessError("its group died three times"), "failed", ""),
        (MemoryError("too large"), "failed", ""),
    ],
)
def test_storage_that_fails_ends_the_search_and_no_trial(
    catalog: Path, tmp_path: Path, cause: Exception, status: str | None, unwritable: str
) -> None:
    journal = Journal(tmp_path / "search")
    remember(journal, 1, [0.3], None, {})
    watcher = Watcher(settled(catalog), journal, lambda watcher: None)
    error = RayTaskError("step", "a trace", cause)
    watcher.on_trial_error(1, [], SimpleNamespace(config={"trial": {"number": 1}}, get_error=lambda: error))
    assert journal.trial(1).status == status
    assert unwritable in watcher.unwritable
    assert Hopeless(watcher).stop_all() == bool(unwritable)


def test_optuna_learns_from_the_trials_of_before(catalog: Path) -> None:
    """Told that small ratios are good, it proposes smaller ones than without a past."""
    search = settled(catalog, search="optuna")
    varied = space.load("byov", "byov")
    past = [
        Trial(number=k, options=options(0.2 + 0.02 * k), reports=[report(1, 1.0 - 0.05 * k)], status="finished")
        for k in range(1, 20)
    ]
    told = Optuna(search, varied, past)
    assert len(told.study.trials) == 19
    assert told.study.best_value == past[0].objective
    assert Optuna(settled(catalog, search="optuna", mode="min"), varied, past).study.best_value == past[-1].objective
    ratios = [told.choose(20 + k)["method.msm_ratio"] for k in range(8)]  # type: ignore[index]
    assert sum(ratios) / 8 < 0.4
    told.tell(Trial(number=20, options={}, reports=[report(1, float("nan"))], status="failed"))
    assert told.study.trials[19].state.name == "FAIL"


def test_optuna_takes_the_preset_where_its_values_are_choices(catalog: Path, tmp_path: Path) -> None:
    search, preset_trial = (
        settled(catalog, search="optuna"),
        Trial(number=0, options={}, reports=[report(1, 0.5)], status="finished"),
    )
    for choices, told in (('["adam", "adamw"]', 1), ('["sgd"]', 0)):
        file = tmp_path / f"choices{told}.py"
        file.write_text(
            f'from ray import tune\nSPACE = {{"optim.optimizer": tune.choice({choices})}}\n'
            f'METRIC, MODE, TASKS = "{METRIC}", "max", ("phases",)\n'
        )
        chosen = Optuna(search, space.load(str(file), "byov"), [])
        chosen.tell(preset_trial)
        assert len(chosen.study.trials) == told


def test_optuna_proposes_nothing_twice_after_an_interruption(catalog: Path) -> None:
    """Trials that run count as begun, and are told when they end."""
    search, varied = settled(catalog, search="optuna"), space.load("byov", "byov")
    first = Optuna(search, varied, [])
    points = [dict(first.choose(k) or {}) for k in (1, 2)]
    again = Optuna(search, varied, [Trial(number=k, options=point) for k, point in enumerate(points, 1)])
    assert again.choose(3) not in points
    again.tell(Trial(number=1, options=points[0], reports=[report(1, 0.7)], status="finished"))
    assert [trial.state.name for trial in again.study.trials] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert again.study.best_value == 0.7


def test_a_grid_runs_its_valid_points_once(catalog: Path, tmp_path: Path) -> None:
    file = tmp_path / "ratios.py"
    file.write_text(
        'from ray import tune\nSPACE = {"method.msm_ratio": tune.grid_search([0.3, 1.5, 0.6]), '
        '"optim.lr": tune.choice([1e-3, 1e-2])}\n'
        f'METRIC, MODE, TASKS = "{METRIC}", "max", ("phases",)\nSCHEDULER = "none"\n'
    )
    search = settled(catalog, space=str(file), trials=50, search="grid")
    assert (search.search, search.scheduler, search.count) == ("grid", "none", 5)
    proposer = Proposer(search, Journal(tmp_path / "g"), chooser(search, space.load(str(file), "byov"), []))
    for k in range(5):
        proposer.suggest(str(k))
    assert [trial.options for trial in proposer.journal.trials()][1:] == [
        {"method.msm_ratio": ratio, "optim.lr": lr} for ratio in (0.3, 0.6) for lr in (1e-3, 1e-2)
    ]
    assert proposer.suggest("5") == Searcher.FINISHED


def test_who_copies_follows_from_the_scores_alone(catalog: Path) -> None:
    """The worst quarter takes options near those of the best quarter; equal scores are left alone."""
    search, varied = settled(catalog, scheduler="pbt"), space.load("byov", "byov")
    chosen = Random(search, varied)
    members = [
        Trial(number=k, options=dict(chosen.choose(k) or {}), reports=[report(1, 0.1 * k), report(2, 0.5)])
        for k in range(1, 9)
    ]
    first, again = (exchanges(search, chosen, members, 1) for _ in range(2))
    assert first == again
    assert {exchange.copier.number for exchange in first} == {1, 2}
    assert {exchange.donor.number for exchange in first} <= {7, 8}
    for exchange in first:
        assert chosen.valid(exchange.options)
        assert exchange.options != exchange.donor.options
        kept = [path for path, value in exchange.options.items() if 0.79 < value / exchange.donor.options[path] < 1.21]
        assert kept
    assert exchanges(search, chosen, members, 2) == []
    longer = [replace(member, reports=[report(k, 0.1 * member.number) for k in range(1, 9)]) for member in members]
    assert {e.donor.number for k in range(1, 9) for e in exchanges(search, chosen, longer, k)} == {7, 8}
    fewer = exchanges(settled(catalog, scheduler="pbt", mode="min"), chosen, members, 1)
    assert {exchange.copier.number for exchange in fewer} == {7, 8}


def test_an_interrupted_round_of_a_population_is_repeated_as_it_was(catalog: Path, tmp_path: Path) -> None:
    """No exchange before all members have come to it; who has failed since changes nobody's partner."""
    search, varied = settled(catalog, scheduler="pbt", trials=4), space.load("byov", "byov")
    journal = Journal(tmp_path / "rounds")
    played = rounds(search, varied, journal)
    assert [one["number"] for one in next(played)] == [1, 2, 3, 4]
    for number in (1, 2, 3):
        journal.report(number, report(1, 0.1 * number))
    assert list(played) == []
    assert [one["number"] for one in next(rounds(search, varied, journal))] == [4]
    before = exchanges(search, Random(search, varied), journal.trials(), 1)
    journal.end(before[0].copier.number, "failed", "died")
    after = exchanges(search, Random(search, varied), journal.trials(), 1)
    assert [(e.copier.number, e.donor.number, e.options) for e in after] == [
        (e.copier.number, e.donor.number, e.options) for e in before
    ]


def test_where_a_learnt_value_starts_is_nothing_for_a_population(catalog: Path) -> None:
    with pytest.raises(ValueError, match=r"space evgap: method.scale_init is where a learnt value starts"):
        validate._check_scheduler(settled(catalog, scheduler="pbt"), space.load("evgap", "evgap"))


def test_room_is_planned_for_trials_and_their_workers(catalog: Path) -> None:
    two = [{"CPU": 2.0}]
    large, gpus = [{"CPU": 16.0}], [{"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert plan(settled(catalog), two, gpu=False).at_a_time == 2
    assert plan(settled(catalog, jobs=1), two, gpu=False).at_a_time == 1
    assert plan(settled(catalog, Compute(device="cpu", threads=2)), two, gpu=False).at_a_time == 1
    group = settled(catalog, Compute(device="cpu", workers=2))
    assert plan(group, two, gpu=False).at_a_time == 1
    assert plan(group, large, gpu=False).at_a_time == 7
    assert plan(settled(catalog), gpus, gpu=True).at_a_time == 5
    assert plan(group, gpus, gpu=True).at_a_time == 2
    three = settled(catalog, Compute(device="cpu", threads=3))
    assert plan(three, [{"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 2.0}], gpu=False).at_a_time == 4


def test_what_cannot_be_placed_is_refused_with_what_would_fit(catalog: Path) -> None:
    with pytest.raises(ValueError, match=r"--jobs is 5, but only 2 trials of 1 CPUs .* pass --jobs 2"):
        plan(settled(catalog, jobs=5), [{"CPU": 2.0}], gpu=False)
    with pytest.raises(ValueError, match=r"claims 4 CPUs .*cluster has 4 CPUs.*pass --compute.threads 2 or fewer"):
        plan(settled(catalog, Compute(device="cpu", threads=4)), [{"CPU": 2.0}] * 2, gpu=False)
    with pytest.raises(ValueError, match=r"claims 3.06 CPUs .*compute.workers 4 with data.decode_actors 1"):
        plan(settled(catalog, Compute(device="cpu", workers=4)), [{"CPU": 2.0}], gpu=False)
    with pytest.raises(ValueError, match=r"and 1 GPUs, but the cluster has 2 CPUs and 0 GPUs"):
        plan(settled(catalog), [{"CPU": 2.0}], gpu=True)


def test_the_winner_is_chosen_among_what_was_trained_in_full(catalog: Path) -> None:
    search = settled(catalog)
    trials = [
        Trial(number=0, options={}, reports=[report(k, 0.5) for k in range(1, 5)], status="finished"),
        Trial(number=1, options=options(0.3), reports=[report(1, 0.9)], status="stopped"),
        Trial(number=2, options=options(0.4), reports=[report(k, 0.6) for k in range(1, 5)], status="finished"),
        Trial(number=3, options=options(0.5), reports=[], status="failed", reason="step 0: not finite"),
    ]
    best = winner(search, trials)
    assert best is not None
    assert best.number == 2
    assert [trial.number for trial in ranking.ranked(search, trials)] == [2, 0, 1, 3]
    fewer = winner(settled(catalog, mode="min"), trials)
    assert fewer is not None
    assert fewer.number == 0
    assert [trial.number for trial in ranking.ranked(settled(catalog, mode="min"), trials)] == [0, 2, 1, 3]
    assert winner(search, trials[3:]) is None


def test_the_baseline_to_beat_is_the_best_in_the_searchs_mode(catalog: Path) -> None:
    trial = Trial(number=0, options={}, reports=[report(1, 0.5)])
    assert ranking.best_baseline(settled(catalog), trial) == ("time only", 0.4)
    assert ranking.best_baseline(settled(catalog, mode="min"), trial) == ("random init", 0.3)


def test_what_has_no_score_is_the_worst_in_either_mode() -> None:
    assert comparable(float("nan"), 1) < -1e6
    assert comparable(float("nan"), -1) > 1e6
    assert comparable(0.5, -1) == 0.5


@pytest.mark.parametrize(("mode", "best"), [("max", (0.7, 2)), ("min", (0.3, 1))])
def test_the_best_so_far_is_told_in_the_searchs_mode(
    catalog: Path, tmp_path: Path, mode: str, best: tuple[float, int]
) -> None:
    journal = Journal(tmp_path / "search")
    for number, objective in ((1, 0.3), (2, 0.7), (3, 0.5), (4, float("nan"))):
        remember(journal, number, [objective], "finished", {})
    assert Watcher(settled(catalog, mode=mode), journal, lambda watcher: None).best == best


def confirmed(preset_scores: list[float], winner_scores: list[float]) -> Confirmed:
    def rows(values: list[float]) -> list[dict[str, dict[str, float]]]:
        return [{"trained": {METRIC: value}, "random init": {METRIC: 0.2}} for value in values]

    return Confirmed("val", {"preset": rows(preset_scores), "winner": rows(winner_scores)})


def test_a_gain_is_paired_by_seed_and_has_the_modes_sign(catalog: Path) -> None:
    both = confirmed([0.5, 0.6, 0.7], [0.6, 0.7, 0.8])
    more, less = settled(catalog), settled(catalog, mode="min")
    assert both.over_preset(more, 1).hardest.mean == pytest.approx(0.1)
    assert both.over_preset(more, 1).hardest.deviation == 0
    assert both.over_preset(less, 1).hardest.mean == pytest.approx(-0.1)
    above, below = both.over_baselines(more, "preset", 1), both.over_baselines(less, "preset", 1)
    assert above is not None
    assert below is not None
    assert (above.hardest.rival, above.hardest.mean) == ("random init", pytest.approx(0.4))
    assert below.hardest.mean == pytest.approx(-0.4)


def test_a_winner_is_compared_with_the_hardest_of_its_baselines_and_with_none_if_there_is_none(catalog: Path) -> None:
    search = settled(catalog)
    values = [0.5, 0.61, 0.7, 0.62, 0.58]
    rows = [
        {"trained": {METRIC: v}, "clock": {METRIC: 0.1}, "frozen": {METRIC: v - 0.1 + k / 100}, "other": {"f1": 0.9}}
        for k, v in enumerate(values)
    ]
    found = Confirmed("val", {"preset": rows, "winner": rows}).over_baselines(search, "winner", 1)
    assert found is not None
    assert [d.rival for d in found.differences] == ["frozen", "clock"]
    assert found.verdict is Verdict.HOLDS
    alone = Confirmed("val", {"preset": [{"trained": {METRIC: 0.5}}] * 5})
    assert alone.over_baselines(search, "preset", 1) is None


@pytest.mark.parametrize(
    ("scores", "failures", "claims"),
    [(("preset",), [], 1), (("preset", "winner"), [], 2), (("preset", "winner"), ["winner: not finite"], 0)],
)
def test_what_is_compared_counts_as_claims(scores: tuple[str, ...], failures: list[str], claims: int) -> None:
    assert Confirmed("val", {name: [] for name in scores}, failures).claims == claims


@pytest.mark.parametrize(
    ("gained", "said"),
    [
        ([0.62, 0.71, 0.81], "the winner beats the preset: phase_f1/ego2exo 0.7133 ± 0.0950 against 0.6000 ± 0.1000"),
        ([0.3, 0.7, 0.8], "the winner is NOT shown to beat the preset"),
        ([0.31, 0.4, 0.5], "the winner is WORSE than the preset: phase_f1/ego2exo"),
        ([0.6, 0.7, 0.8], "gain +0.1000 (no interval: equal differences take 5 seeds, 3 seeds)"),
    ],
)
def test_a_search_is_told_in_files_and_a_page(
    catalog: Path, tmp_path: Path, gained: list[float], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    search, folder = settled(catalog, confirm=3), tmp_path / "told"
    spec.write(folder, search)
    assert spec.read(folder) == search
    journal = Journal(folder)
    remember(journal, 0, [0.4, 0.45, 0.5, 0.5], "finished", {})
    remember(journal, 1, [0.3], "stopped", options(0.7))
    remember(journal, 2, [0.5, 0.55, 0.6, 0.64], "finished", options(0.3))
    journal.begin(3, options(0.5))
    journal.end(3, "failed", "step 3: loss or gradient is not finite")
    (folder / "confirm").mkdir()
    for variant, values in confirmed([0.5, 0.6, 0.7], gained).scores.items():
        for k, rows in enumerate(values):
            (folder / "confirm" / f"{variant}-seed{1000 + k}-val.json").write_text(json.dumps(rows))
    page = publish(folder).read_text()
    printed = " ".join(capsys.readouterr().out.split())
    for text in (page, printed):
        assert said in text
        assert "its hardest baseline, random init (0.2000 ± 0.0000): gain +" in text
        assert "2 claims decided together: a difference counts if its two-sided 95 % t interval" in text
        assert "Trial 2 has the best phase_f1/ego2exo on val, 0.6400: msm_ratio 0.3" in text
    assert page.count("data:image/png") == 4
    assert "Trial 3 failed: step 3: loss or gradient is not finite" in page
    assert "http" not in page.replace("http-equiv", "").split("<body>")[1]
    table = pq.read_table(folder / "trials.parquet").to_pylist()
    assert [row["trial"] for row in table] == [2, 0, 1, 3]
    assert table[0]["best baseline"] == "time only"
    assert table[0]["loss/loss"] == 0.25
    assert math.isnan(table[3][METRIC])
    method, best = read(folder / "best.json")
    assert method == "byov"
    assert best.method.msm_ratio == 0.3
    assert best.data == search.experiment.data


def test_runs_that_fail_on_fresh_seeds_are_told_and_hide_nothing(
    catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "told"
    spec.write(folder, settled(catalog, confirm=3))
    journal = Journal(folder)
    remember(journal, 0, [0.5] * 4, "finished", {})
    remember(journal, 1, [0.6] * 4, "finished", options(0.3))
    (folder / "confirm").mkdir()
    for variant in ("preset", "winner"):
        for seed in (1000, 1001, 1002):
            rows = (
                {"failed": "step 3: not finite"} if (variant, seed) == ("winner", 1001) else {"trained": {METRIC: 0.5}}
            )
            (folder / "confirm" / f"{variant}-seed{seed}-val.json").write_text(json.dumps(rows))
    page = publish(folder).read_text()
    assert "NOT compared, since 1 runs failed, the first one: winner: step 3: not finite" in page
    assert (folder / "best.json").is_file()


def test_a_used_name_is_refused(catalog: Path, tmp_path: Path) -> None:
    spec.write(tmp_path / "mine", settled(catalog))
    with pytest.raises(ValueError, match=r"--name mine: .*exists already.*crossview tune --resume"):
        spec.write(tmp_path / "mine", settled(catalog))
    with pytest.raises(ValueError, match=r"not a search \(search.json is missing\)"):
        spec.read(tmp_path)
