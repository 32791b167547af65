"""Distances between sets against Gaussians, other formulas, and simulations whose answer is known."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from diffrep.errors import UserError
from diffrep.probes.quality import Moments, compare, frechet, kernel_distance, moments, precision_recall


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moments_are_numpys_however_they_are_cut():
    """Batches of any size, a last one of a single row too, add up to one pass over all: the trap of a metric that is
    made anew for each batch, or that drops the last one. Far from zero, where sums of squares would cancel."""
    x = normal(0, 103, 5) + 1e6
    whole = moments([x])
    assert np.allclose(whole.covariance, np.cov(x.T), rtol=1e-6) and np.allclose(whole.mean, x.mean(0))
    for size in (1, 17, 51, 102):
        cut = moments(x.split(size))
        assert cut.count == 103
        assert torch.allclose(cut.mean, whole.mean) and torch.allclose(cut.scatter, whole.scatter, rtol=1e-6)
    a, b = Moments.of(x[:40]), Moments.of(x[40:])
    assert torch.allclose(b.merge(a).scatter, whole.scatter, rtol=1e-6)


def test_frechet_of_diagonal_gaussians_is_closed():
    """Independent axes: the sum of (mu_a - mu_b)^2 + (s_a - s_b)^2."""
    mu, s = normal(1, 2, 6), normal(2, 2, 6).abs()
    a, b = (Moments(101, m, 100 * torch.diag(v**2)) for m, v in zip(mu, s, strict=True))
    assert frechet(a, b) == pytest.approx(float(((mu[0] - mu[1]) ** 2 + (s[0] - s[1]) ** 2).sum()))


def test_frechet_is_the_published_formula_with_a_matrix_root():
    """On the same features: |mu|^2 + tr(S_a) + tr(S_b) - 2 tr sqrtm(S_a S_b), by SciPy, as others compute it."""
    x, y = normal(3, 300, 8) @ normal(4, 8, 8), normal(5, 200, 8) @ normal(6, 8, 8) + 0.3
    sa, sb = np.cov(x.T.numpy()), np.cov(y.T.numpy())
    by_hand = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * scipy.linalg.sqrtm(sa @ sb).real)
    assert frechet(Moments.of(x), Moments.of(y)) == pytest.approx(float(by_hand), rel=1e-8)


def test_frechet_of_a_linear_map_is_closed():
    """For y = A x with A symmetric and positive, A is the optimal transport: E |x - A x|^2 = tr((1 - A) S (1 - A))."""
    x = normal(7, 500, 4)
    a = torch.linalg.matrix_exp((lambda m: (m + m.T) / 4)(normal(8, 4, 4)))
    moved = Moments.of(x).mean - Moments.of(x @ a).mean
    rest = torch.eye(4, dtype=torch.float64) - a
    truth = float(moved @ moved + torch.trace(rest @ Moments.of(x).covariance @ rest))
    assert frechet(Moments.of(x), Moments.of(x @ a)) == pytest.approx(truth)


def test_frechet_without_full_rank():
    """With fewer examples than numbers the same set has distance zero, and a shift is its squared length."""
    x = normal(9, 10, 40)
    assert frechet(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-6)
    assert frechet(Moments.of(x), Moments.of(x + 2)) == pytest.approx(160)


def test_kid_is_unbiased_where_sets_are_alike():
    """400 draws of two sets of one distribution: their mean is zero within three of its errors. A kernel sum that keeps
    the diagonal would be far above."""
    values = torch.tensor([kernel_distance(normal(i, 40, 3), normal(1000 + i, 60, 3), blocks=2)[0] for i in range(400)])
    error = float(values.std() / math.sqrt(len(values)))
    assert abs(float(values.mean())) < 3 * error and error < 0.1


def test_kid_of_shifted_gaussians_is_closed():
    """One dimension, k = (xy + 1)^3, x ~ N(0, 1), y ~ N(m, 1): E k = sum_p C(3, p) E x^p E y^p, so that MMD^2
    = 3 m^2 + 3 (m^2)^2 + (m^3 + 3m)^2."""
    m = 0.5
    truth = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    kid, error = kernel_distance(normal(11, 6000, 1), normal(12, 6000, 1) + m)
    assert abs(kid - truth) < 3 * error and error < 0.1 * truth


def test_the_error_of_kid_is_its_spread():
    """Over independent repetitions the values scatter as the stated error says (both known to a tenth or two)."""
    said = [kernel_distance(normal(2 * i, 200, 2), normal(2 * i + 1, 200, 2) + 0.3) for i in range(60)]
    values, errors = torch.tensor(said).T
    assert float(values.std()) == pytest.approx(float(errors.square().mean().sqrt()), rel=0.35)


def test_kid_does_not_mind_sets_that_are_sorted():
    """Data sets come in class folders: a block of one class alone would be far from any block of all classes."""
    x = torch.cat([normal(13, 300, 2), normal(14, 300, 2) + 6])
    y = torch.cat([normal(15, 300, 2), normal(16, 300, 2) + 6])
    mixed = y[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    kid, error = kernel_distance(x, mixed)
    assert abs(kid) < 4 * error


def test_precision_and_recall_of_sets_that_cover_each_other_in_part():
    """Real: two far clusters. Fake: one of them, and as many examples far from both: half of the fakes are real-like,
    half of the real examples are reached; each within what the edge of a cluster loses."""
    real = torch.cat([normal(17, 300, 2), normal(18, 300, 2) + 100])
    fake = torch.cat([normal(19, 300, 2), normal(20, 300, 2) - 100])
    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(0.5, abs=0.03) and recall == pytest.approx(0.5, abs=0.03)
    narrow = 0.05 * normal(21, 300, 2)
    precision, recall = precision_recall(real, narrow)
    assert precision > 0.99 and recall < 0.05  # one spot inside a cluster: faithful and without variety
    assert precision_recall(narrow, real) == (recall, precision)


def test_precision_by_hand_and_in_any_chunks():
    """Three points on a line with k = 1: radii 1, 1, 5 around 0, 1, 6; a point at 2 lies in the second's (and in the
    third's), at 11.5 in none."""
    real = torch.tensor([[0.0], [1.0], [6.0]])
    fake = torch.tensor([[2.0], [11.5], [-0.5], [-1.5]])
    assert precision_recall(real, fake, k=1)[0] == 0.5
    a, b = normal(22, 103, 3), normal(23, 97, 3)
    assert precision_recall(a, b, chunk=10) == precision_recall(a, b, chunk=1000)


def test_the_number_of_samples_stands_beside_the_numbers():
    """Two sets of N from one N(0, I) in d dimensions are not at distance 0: the means differ by 2d/N, and near I the
    rest is |S_a - S_b|^2 / 4, where E|S - I|^2 = d (d + 1) / N (Wishart). So N must be told, and half of it doubles
    the bias."""
    bias = []
    for n in (400, 800):
        values = [compare(normal(i, n, 6), normal(5000 + i, n, 6)) for i in range(12)]
        assert {v["samples"] for v in values} == {n} == {v["against"] for v in values}
        bias.append(np.mean([v["frechet"] for v in values]))
        assert bias[-1] == pytest.approx((2 * 6 + 6 * 7 / 2) / n, rel=0.15)
    assert bias[0] / bias[1] == pytest.approx(2, rel=0.25)


def test_a_mistake_is_one_sentence():
    """Too few examples, features of two sizes, and features that are not finite."""
    x = normal(24, 30, 2)
    for call, said in [
        (lambda: kernel_distance(x[:10], x), "at least 20 examples in both sets.*got 10 and .*data.test"),
        (lambda: precision_recall(x[:3], x), "more than 3"),
        (lambda: frechet(Moments.of(x), Moments.of(normal(0, 30, 3))), "one size"),
        (lambda: Moments.of(x[:1]).covariance, "two examples"),
        (lambda: Moments.of(x * math.nan), "NaN"),
        (lambda: moments([]), "no features"),
    ]:
        with pytest.raises(UserError, match=said):
            call()


def test_the_seed_of_the_kernel_distance_arrives():
    """It shuffles the examples into blocks: another seed, another mean of blocks; the same seed, the same."""
    a, b = (torch.randn(120, 3, generator=torch.Generator().manual_seed(i)) for i in range(2))
    one, again, other = (kernel_distance(a, b, seed=seed) for seed in (0, 0, 1))
    assert one == again and one != other
