"""Claims decided by paired differences: intervals by hand and against scipy, and how often luck passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossview.downstream.paired import SEEDS, Decision, Difference, Verdict, decide
from crossview.downstream.table import cell

NAN = math.nan
HOLDS, NOT_SHOWN, REVERSED, UNDECIDED = Verdict
ZEROS = [0.0] * 5


def against_zero(*differences: float, claims: int = 1) -> Difference:
    return decide(differences, {"zero": [0.0] * len(differences)}, claims).hardest


def test_an_interval_by_hand() -> None:
    """Differences 1, 2, 3, 4, 5: mean 3, variance 10 / 4, standard error sqrt(2.5 / 5), and t(0.975, 4) = 2.776445."""
    found = against_zero(1, 2, 3, 4, 5)
    half = 2.776445 * math.sqrt(0.5)
    assert (found.mean, found.deviation) == pytest.approx((3, math.sqrt(2.5)))
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)
    assert found.effect == pytest.approx(3 / math.sqrt(2.5))
    assert found.verdict is HOLDS
    assert found.text() == "+3.000 (95 % interval +1.037 to +4.963, d_z 1.9, 5 seeds)"


@pytest.mark.parametrize("claims", [1, 4, 32])
def test_an_interval_is_scipys_and_wider_the_more_claims_there_are(claims: int) -> None:
    own, rival = np.random.default_rng(0).normal([[0.8], [0.6]], 0.05, (2, 6))
    found = decide(own, {"rival": rival}, claims).hardest
    expected = stats.ttest_rel(own, rival).confidence_interval(1 - 0.05 / claims)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_more_claim_may_be_what_a_difference_does_not_survive() -> None:
    p = float(stats.ttest_1samp([1.0, 2.0, 3.0, 4.0, 5.0], 0).pvalue)  # 0.0132
    assert 3 < 0.05 / p < 4
    assert against_zero(1, 2, 3, 4, 5, claims=3).verdict is HOLDS
    assert against_zero(1, 2, 3, 4, 5, claims=4).verdict is NOT_SHOWN


def test_the_verdict_has_a_direction() -> None:
    assert against_zero(-1, -2, -3, -4, -5).verdict is REVERSED
    assert against_zero(-1, 2, -3, 4, -1).verdict is NOT_SHOWN
    assert [v.compares for v in Verdict] == [
        "beats", "is NOT shown to beat", "is WORSE than", "cannot be compared with",
    ]  # fmt: skip


def test_a_claim_holds_if_it_does_against_the_hardest_row() -> None:
    """The hardest is not the row with the best mean, but the one whose interval begins lowest."""
    own = [1.0, 1.0, 1.0, 1.0, 1.0]
    rivals = {"best mean": [0.8, 0.81, 0.79, 0.8, 0.8], "noisy": [0.2, 1.1, 0.6, 0.9, 0.7], "easy": [0.1, 0, 0.1, 0, 0]}
    found = decide(own, rivals, 1)
    assert found.verdict is NOT_SHOWN
    assert [d.rival for d in found.differences] == ["noisy", "best mean", "easy"]
    assert [d.verdict for d in found.differences] == [NOT_SHOWN, HOLDS, HOLDS]
    del rivals["noisy"]
    assert decide(own, rivals, 1).verdict is HOLDS
    assert decide(own, rivals, 1).hardest.rival == "best mean"


def test_rows_are_corrected_for_only_where_one_of_them_would_turn_the_claim_round() -> None:
    worse, tied = [1.0, 2.0, 3.0, 4.0, 5.0], [0.1, -0.1, 0.1, -0.1, 0.0]
    assert decide(ZEROS, {"worse": worse}, 1).verdict is REVERSED
    assert decide(ZEROS, {"worse": worse} | {f"tied {k}": tied for k in range(3)}, 1).verdict is NOT_SHOWN
    assert decide(worse, {f"zero {k}": ZEROS for k in range(4)}, 1).verdict is HOLDS


def test_pairing_removes_what_seeds_share() -> None:
    """Where seeds shift both rows alike, paired differences show what unpaired ones do not."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0.5, 0.2, 5)
    own, rival = shared + 0.03 + rng.normal(0, 0.005, 5), shared + rng.normal(0, 0.005, 5)
    assert stats.ttest_ind(own, rival).pvalue > 0.5
    assert decide(own, {"rival": rival}, 1).verdict is HOLDS
    assert decide(own, {"rival": np.roll(rival, 1)}, 1).verdict is NOT_SHOWN


@pytest.mark.parametrize("missing", [[0.5, NAN, 0.7, 0.8, 0.9], [0.5, math.inf, 0.7, 0.8, 0.9]])
def test_seeds_that_one_row_lacks_are_left_out_and_counted(missing: list[float]) -> None:
    own = [0.61, 0.9, 0.79, 0.92, 1.0]
    found = decide(own, {"rival": missing}, 1).hardest
    whole = decide([0.61, 0.79, 0.92, 1.0], {"rival": [0.5, 0.7, 0.8, 0.9]}, 1).hardest
    assert (found.pairs, found.seeds) == (4, 5)
    assert (found.mean, found.low, found.high) == (whole.mean, whole.low, whole.high)
    assert found.text().endswith("4 of 5 seeds)")


def test_seeds_that_are_missing_at_the_end_are_too() -> None:
    found = decide([0.6, 0.7, 0.8], {"rival": [0.5, 0.58, 0.69, 0.1, 0.1]}, 1).hardest
    assert (found.pairs, found.seeds) == (3, 5)
    assert found.mean == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("rival", "pairs", "text"),
    [
        ([], 0, "no seed has a score of both (of 5)"),
        ([NAN] * 5, 0, "no seed has a score of both (of 5)"),
        ([NAN, 0.1, NAN, NAN, NAN], 1, "+0.700 (no interval, 1 of 5 seeds)"),
    ],
)
def test_fewer_than_two_pairs_never_decide(rival: list[float], pairs: int, text: str) -> None:
    found = decide([0.9, 0.8, 0.9, 0.8, 0.9], {"easy": ZEROS, "rival": rival}, 1)
    assert found.verdict is UNDECIDED
    assert (found.hardest.rival, found.hardest.pairs, found.hardest.text()) == ("rival", pairs, text)
    assert math.isnan(found.hardest.low)


def test_a_row_that_is_not_shown_to_be_beaten_decides_whatever_another_lacks() -> None:
    found = decide([0.9, 0.8, 0.9, 0.8, 0.9], {"lost": [NAN] * 5, "equal": [0.8, 0.9, 0.8, 0.9, 0.9]}, 1)
    assert (found.verdict, found.hardest.rival) == (NOT_SHOWN, "equal")


def test_equal_differences_have_no_width_and_take_as_many_seeds_as_a_study() -> None:
    above = decide([0.3, 0.4, 0.5, 0.6, 0.7], {"rival": [0.2, 0.3, 0.4, 0.5, 0.6]}, 1).hardest
    assert (above.deviation, above.low, above.high) == (0, above.mean, above.mean)
    assert (above.effect, above.verdict) == (math.inf, HOLDS)
    below = against_zero(*[-0.1] * 5)
    assert (below.effect, below.verdict) == (-math.inf, REVERSED)
    same = decide([0.1 + 0.2] * 5, {"rival": [0.3] * 5}, 1).hardest  # they differ by rounding
    assert (same.mean, same.effect, same.verdict) == (0, 0, NOT_SHOWN)
    few = against_zero(0.1, 0.1, 0.1, 0.1)
    assert few.verdict is UNDECIDED
    assert few.text() == f"+0.100 (no interval: equal differences take {SEEDS} seeds, 4 seeds)"


def verdicts_of_luck(trials: int, claims: int, rivals: int, lead: float = 0.0) -> list[list[Decision]]:
    """Of studies in which nothing is better than anything, but for the first rival, which leads by `lead`.

    Rows share what a seed adds, and metrics are independent.
    """
    noise = np.random.default_rng(2).normal(size=(trials, claims, 1 + rivals, SEEDS))
    noise += 3 * np.random.default_rng(3).normal(size=(trials, claims, 1, SEEDS))
    noise[:, :, 1] += lead
    return [[decide(own, {str(k): v for k, v in enumerate(rows)}, claims) for own, *rows in s] for s in noise]


@pytest.mark.parametrize("claims", [1, 4])
def test_luck_passes_at_its_level_in_any_of_the_claims(claims: int) -> None:
    """With one rival the level is reached: 2.5 % in either direction; a standard error of 1000 studies is 0.5 %."""
    studies = [{one.verdict for one in study} for study in verdicts_of_luck(1000, claims, 1)]
    for verdict in (HOLDS, REVERSED):
        assert 0.01 < np.mean([verdict in study for study in studies]) < 0.04


def test_luck_passes_no_more_often_over_several_rows() -> None:
    studies = [{one.verdict for one in study} for study in verdicts_of_luck(600, 1, 3)]
    assert np.mean([HOLDS in study for study in studies]) < 0.01
    assert np.mean([REVERSED in study for study in studies]) < 0.035
    led = verdicts_of_luck(1000, 1, 2, lead=-20.0)  # the first is beaten by far: the other decides
    assert 0.015 < np.mean([any(one.verdict is HOLDS for one in study) for study in led]) < 0.04


def test_nothing_to_beat_is_our_mistake() -> None:
    with pytest.raises(ValueError, match=r"decide: 0 rivals and 1 claims"):
        decide([0.5], {}, 1)


def test_a_score_without_some_seeds_says_of_how_many_it_is() -> None:
    assert cell([0.7, NAN, 0.9]) == "0.800 ± 0.141 (2 of 3)"
    assert cell([NAN, 0.9]) == "0.900 (1 of 2)"
    assert cell([NAN, NAN]) == cell(NAN) == "undefined"
