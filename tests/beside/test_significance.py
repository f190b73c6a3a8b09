"""The tests of compare beside SciPy's, and where they can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from launcher.beside import significance

stats = pytest.importorskip("scipy.stats", reason="it comes with the extra sklearn")


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (2, 15), (15, 2), (10, 10), (120, 170), (4000, 4300), (0, 3000)])
def test_mcnemar_is_the_binomial(one: int, other: int) -> None:
    wanted = stats.binomtest(one, one + other).pvalue if one + other else 1.0
    assert significance.mcnemar(one, other) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("count", [1, 5, 25, 26, 400])
def test_wilcoxon_is_scipys(count: int) -> None:
    values = np.random.default_rng(count).normal(0.2, 1, count)
    method = "exact" if count <= 25 else "approx"
    assert significance.wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method=method).pvalue, rel=1e-9)


def test_wilcoxon_with_ties_and_zeros_is_scipys() -> None:
    values = np.random.default_rng(1).integers(-3, 5, 200).astype(float)
    assert significance.wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="approx", correction=False).pvalue, rel=1e-9)
    assert significance.wilcoxon(np.zeros(9)) == 1.0


def test_a_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 samples each of 150 experiments with mean 0: 95 % of 150 is 142.5, and 134 to 149 with probability 0.997."""
    values = np.random.default_rng(7).normal(0, 1, (200, 150))
    held = sum(low <= 0 <= high for low, high in significance.bootstrap(values))
    assert 134 <= held <= 149
    assert significance.bootstrap(values[:, :1])[0] == pytest.approx(significance.bootstrap(values)[0]), "the same draws for all"


def test_fewer_draws_of_more_samples() -> None:
    assert [significance.draws_for(count) for count in (1, 100_000, 500_000, 20_000_000)] == [2000, 2000, 400, 200]


def test_holm_corrects_by_rank_and_never_turns_the_order() -> None:
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []
