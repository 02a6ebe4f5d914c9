"""How often 95 % intervals hold the truth, in simulated studies on the toy world.

The world's rule gives each candidate its chance, and users' targets are drawn by it. Two systems
score candidates by the log-chance, weighted by what their training came to (which differs between
seeds), with errors of their own for each user and each user and seed. Nothing is trained.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from delrec_hf.data.toy_world import toy_world
from delrec_hf.evaluation.metrics import per_user_metrics
from delrec_hf.evaluation.statistics import estimate

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

CANDIDATES = 10
POOL = 4000
SAMPLES = 300
SEEDS, USERS = (3, 5, 10), (100, 600, 2000)
METRICS = ("hr@1", "ndcg@10")
NOISE = {"toy": 0.08, "hidden": 0.22}
"""How much trainings differ: by about .014 HR@1 as on the toy world, .04 as on the hidden one."""


@dataclass(frozen=True)
class Pool:
    """The population that studies draw their users from.

    Attributes:
        log_chances: `(users, candidates)` what the rule says.
        targets: `(users,)` place of what each user chose.
        errors: Of each system, `(users, candidates)`: what it has wrong under every seed.
    """

    log_chances: FloatArray
    targets: npt.NDArray[np.int64]
    errors: tuple[FloatArray, FloatArray]


def draw_pool(generator: np.random.Generator) -> Pool:
    world = toy_world(num_users=0)
    last_two = generator.integers(len(world.items), size=(POOL, 2))
    candidates = generator.random((POOL, len(world.items))).argsort(axis=1)[:, :CANDIDATES]
    following = world.chances(last_two, np.tile(np.arange(len(world.items)), (POOL, 1)))
    # As in the world: one item by the rule, the others uniform, and then the target among them.
    for row, chances in enumerate(following):
        drawn = generator.choice(len(chances), p=chances)
        if drawn not in candidates[row]:
            candidates[row, 0] = drawn
    chances = np.take_along_axis(following, candidates, axis=1)
    chances /= chances.sum(axis=1, keepdims=True)
    targets = (chances.cumsum(axis=1) < generator.random((POOL, 1))).sum(axis=1)
    shared, first, second = generator.normal(size=(3, POOL, CANDIDATES))
    errors = (0.7 * shared + 0.2 * first, 0.7 * shared + 0.3 * second)
    return Pool(np.log(chances + 1e-4), np.minimum(targets, CANDIDATES - 1), errors)


def measured(
    pool: Pool, users: npt.NDArray[np.int64], trainings: FloatArray, generator: np.random.Generator
) -> dict[str, FloatArray]:
    """Return each metric of both systems, `(2, seeds, users)`.

    Args:
        pool: The population.
        users: `(users,)` who is measured.
        trainings: `(2, seeds)` what each training of each system came to, standard normal.
        generator: Decides what is wrong under one seed alone.
    """
    targets = np.tile(pool.targets[users], trainings.shape[1])
    found: dict[str, list[FloatArray]] = {metric: [] for metric in METRICS}
    for errors, came_to in zip(pool.errors, trainings, strict=True):
        scores = 0.5 * np.exp(came_to)[:, None, None] * pool.log_chances[users] + errors[users]
        scores += 0.25 * generator.normal(size=scores.shape)
        of_rows = per_user_metrics(scores.reshape(-1, CANDIDATES), targets)
        for metric in METRICS:
            found[metric].append(of_rows[metric].reshape(len(came_to), len(users)))
    return {metric: np.stack(values) for metric, values in found.items()}


@dataclass(frozen=True)
class Draws:
    """How often each seed and each user is drawn, `(SAMPLES, seeds)` and `(SAMPLES, users)`."""

    seeds: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]


def draw_anew(seeds: int, users: int, generator: np.random.Generator) -> Draws:
    return Draws(*(generator.multinomial(n, np.full(n, 1 / n), SAMPLES) for n in (seeds, users)))


def bootstrap_users(values: FloatArray, draws: Draws) -> Interval:
    """Percentiles of the mean over seeds, users drawn anew."""
    return _percentiles(draws.users @ values.mean(axis=0) / values.shape[1])


def bootstrap_both(values: FloatArray, draws: Draws) -> Interval:
    """Percentiles of the mean, seeds and users drawn anew (Owen, 2007)."""
    return _percentiles(((draws.seeds @ values) * draws.users).sum(axis=1) / values.size)


METHODS: dict[str, Callable[[FloatArray, Draws], Interval]] = {
    "bootstrap, users": bootstrap_users,
    "bootstrap, seeds and users": bootstrap_both,
    "ours": lambda values, _: estimate(values).interval(),  # what results.json holds
}


def _percentiles(means: FloatArray) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def truth(pool: Pool, noise: float, generator: np.random.Generator) -> dict[str, FloatArray]:
    """Return both systems' means over all users and trainings, and the trainings' spread."""
    came_to = noise * norm.ppf((np.arange(100) + 0.5) / 100)
    values = measured(pool, np.arange(POOL), np.stack([came_to, came_to]), generator)
    return {metric: one.mean(axis=2) for metric, one in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200, help="simulated studies a setting")
    parser.add_argument("--seed", type=int, default=0, help="decides all draws")
    given = parser.parse_args()
    generator = np.random.default_rng(given.seed)
    pool = draw_pool(generator)
    print("| trainings | seeds | users | of | " + " | ".join(METHODS) + " |")
    print("| --- | ---: | ---: | --- |" + " ---: |" * len(METHODS))
    for name, noise in NOISE.items():
        means = truth(pool, noise, generator)
        spread = means["hr@1"][0].std()
        for seeds in SEEDS:
            for users in USERS:
                held = study_many(pool, noise, (seeds, users, given.studies), means, generator)
                for what, shares in held.items():
                    cells = " | ".join(f"{100 * share:.1f}" for share in shares)
                    print(f"| {name} ({spread:.3f}) | {seeds} | {users} | {what} | {cells} |")


def study_many(
    pool: Pool,
    noise: float,
    size: tuple[int, int, int],
    means: dict[str, FloatArray],
    generator: np.random.Generator,
) -> dict[str, FloatArray]:
    """Return how often each method's interval held the truth, of systems and of differences."""
    seeds, users, studies = size
    held = {
        f"{metric} {what}": np.zeros(len(METHODS))
        for metric in METRICS
        for what in ("mean", "difference")
    }
    for _ in range(studies):
        chosen = generator.integers(POOL, size=users)
        draws = draw_anew(seeds, users, generator)
        values = measured(pool, chosen, noise * generator.normal(size=(2, seeds)), generator)
        for metric in METRICS:
            a, b = values[metric]
            of_a, of_b = means[metric].mean(axis=1)
            for what, one, true in (("mean", a, of_a), ("difference", a - b, of_a - of_b)):
                for number, method in enumerate(METHODS.values()):
                    low, high = method(one, draws)
                    held[f"{metric} {what}"][number] += low <= true <= high
    return {what: counts / studies for what, counts in held.items()}


if __name__ == "__main__":
    main()
