"""Bootstrap intervals: bias-corrected and accelerated, over clusters such as people, widened for few clusters.

Intervals are BCa (Efron 1987), widened for few people by Student's t and sqrt(n / (n - 1)) (Hesterberg, "What Teachers
Should Know About the Bootstrap", 2015). The degrees of freedom come from Kish's effective number of the people with
clips of a class: half of 20 people may have nearly all disengaged clips. Percentile, basic and BCa intervals, with and
without widening, and Student's t with errors from bootstrap and jackknife were compared; this one came closest to 95 %.
With random effects of people (tests/test_bootstrap.py), from 10 to 60 people, intervals of macro-F1 contained the truth
in 93 to 97 % of samples; with 5 people in 92 % where the rarer class is 27 %, and in 71 % where it is 6 %:
`few_clusters` warns of that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from scipy.stats import norm, t

from .score_records import Interval

# Not scipy.stats.bootstrap: one undefined resample, or no spread, makes its BCa bounds NaN, and it has one confidence
# level for all scores of a resample, while the widening differs by score.
CONFIDENCE = 0.95
FEW_CLUSTERS = 5  # effective ones; below that, intervals contained the truth in only 71 to 93 % of samples
METHOD = "BCa, widened by Student's t over the effective number of clusters"
_CHUNK = 200  # resamples whose weights of every clip are in memory at once
_MAX_LEFT_OUT = 1000  # clusters; with more the acceleration is close to 0, and leaving each out once takes long

# (num_draws, num_clusters) how often each cluster counts -> scores by name, (num_draws,) each, NaN where undefined
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


def bca_intervals(
    statistic: Statistic, effective: Mapping[str, float], num_clusters: int, num_resamples: int, seed: int
) -> dict[str, Interval]:
    """Intervals by score.

    Args:
        statistic: resamples where it is NaN are left out and counted; bounds are None where fewer than half are left.
        effective: by score, the `effective_number` of the clusters that it depends on.
    """
    value = statistic(np.ones((1, num_clusters)))
    drawn = _over_chunks(statistic, _resampled_counts(num_clusters, num_resamples, seed))
    without_one = _over_chunks(statistic, _counts_without_one(num_clusters))
    result = {}
    for name in value:
        defined = drawn[name][np.isfinite(drawn[name])]
        bounds: tuple[float | None, float | None] = (None, None)
        if num_clusters > 1 and len(defined) >= num_resamples / 2:
            without = without_one.get(name, np.empty(0))
            bounds = _bca_bounds(float(value[name][0]), defined, without, num_clusters, effective[name])
        result[name] = Interval(
            value=plain_number(value[name][0]),
            lower=bounds[0],
            upper=bounds[1],
            num_undefined=num_resamples - len(defined),
            effective_clusters=effective[name],
            few_clusters=effective[name] < FEW_CLUSTERS,
        )
    return result


def _resampled_counts(num_clusters: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """(up to _CHUNK, num_clusters) per chunk: as many draws with replacement as there are clusters."""
    rng = np.random.default_rng(seed)
    shares = np.full(num_clusters, 1 / num_clusters)
    for start in range(0, num_resamples, _CHUNK):
        yield rng.multinomial(num_clusters, shares, size=min(_CHUNK, num_resamples - start)).astype(float)


def _counts_without_one(num_clusters: int) -> Iterator[np.ndarray]:
    """The jackknife's counts, each cluster left out once; nothing where that has no effect."""
    if 1 < num_clusters <= _MAX_LEFT_OUT:
        for start in range(0, num_clusters, _CHUNK):
            yield 1 - np.eye(min(_CHUNK, num_clusters - start), num_clusters, k=start)


def _over_chunks(statistic: Statistic, chunks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    results = [statistic(counts) for counts in chunks]
    return {name: np.concatenate([result[name] for result in results]) for name in (results[0] if results else ())}


def _bca_bounds(
    value: float, drawn: np.ndarray, without_one: np.ndarray, num_clusters: int, effective: float
) -> tuple[float, float]:
    """The two quantiles of `drawn`, corrected for its bias and for the dependence of its spread on the truth."""
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    widened = t.ppf(tails, max(effective - 1, 1)) * np.sqrt(num_clusters / (num_clusters - 1))
    below = np.mean(drawn < value) + np.mean(drawn == value) / 2
    bias = norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    without_one = without_one[np.isfinite(without_one)]
    pulls = without_one.mean() - without_one if without_one.size else np.zeros(1)
    spread = np.sum(pulls**2) ** 1.5
    acceleration = np.sum(pulls**3) / (6 * spread) if spread > 0 else 0.0
    # Below this limit the correction would swap the bounds.
    shrink = np.maximum(1 - acceleration * (bias + widened), 0.1)
    lower, upper = np.quantile(drawn, norm.cdf(bias + (bias + widened) / shrink))
    return float(lower), float(upper)


def effective_number(weights: np.ndarray) -> float:
    """The number of equal clusters with the same information as these (Kish 1965)."""
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1))


def plain_number(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return float(value) if np.isfinite(value) else None
