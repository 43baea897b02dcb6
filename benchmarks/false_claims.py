"""Two equally good models: how often one is called better, by our test and by other ways.

Simulates worlds in which cells are found with a chance that differs from site to site, for both
models, and in which each model has good and bad luck with each site. On average over all sites,
both are equally good. Ours is the sign-flip test over sites. The peers are Student's t, whose
intervals we show beside it, and a percentile bootstrap of sites, or of fields.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks import Message
from cellular.scoring.uncertainty import LEVEL, interval, p_value

WORLDS = 4000  # the standard error of 5 % is 0.3 %
UNITS = (6, 8, 12, 18)
RESAMPLES = 1000  # of the bootstrap
CELLS = 200  # of a field, on average
TIMES = 5  # most fields of a site
LUCK = 0.06  # standard deviation of a model's chance to find a cell, between sites


@dataclass(frozen=True)
class Claims:
    """Percentages of the worlds in which two equal models are told apart."""

    signs: float  # sign-flip test
    student: float  # Student's t
    sites: float  # percentile bootstrap of sites
    fields: float  # percentile bootstrap of fields


def run(small: bool = False) -> Message:
    """Return the percentages for each number of sites, as a Markdown table."""
    lines = [
        "false claims in % of the worlds",
        "| sites | luck of the two models | sign-flip test | Student's t | bootstrap of sites "
        "| bootstrap of fields |",
        "|---|---|---|---|---|---|",
    ]
    for alike in (True, False):
        for units in UNITS:
            found = simulate(units, worlds=10 if small else WORLDS, alike=alike)
            claims = (found.signs, found.student, found.sites, found.fields)
            shown = " | ".join(f"{percent:.1f}" for percent in claims)
            lines.append(f"| {units} | {'alike' if alike else 'not alike'} | {shown} |")
    return Message("\n".join(lines))


def simulate(units: int, worlds: int, *, alike: bool = True, seed: int = 0) -> Claims:
    """Return how often equal models are told apart, with so many sites.

    Parameters
    ----------
    alike : both models fail badly at few sites; otherwise, one does, and the other nowhere
    """
    random = np.random.default_rng(seed)
    claims = np.zeros(4)
    for _ in range(worlds):
        site, differences = _world(random, units, alike)
        low, high = interval(differences, site) or (0, 0)
        claims += (
            p_value(differences, site, seed) <= 1 - LEVEL,
            low > 0 or high < 0,
            _told_apart(random, differences, site),
            _told_apart(random, differences, np.arange(len(site))),
        )
    return Claims(*(100 * claims / worlds).tolist())


def _world(random: np.random.Generator, units: int, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the site of each field, and the difference of two models' AP@0.5 in it."""
    site = np.repeat(np.arange(units), random.integers(1, TIMES + 1, units))
    ease = 0.15 + 0.7 * random.beta(8, 4, units)
    precision = []
    for unlucky in (alike, True):
        luck = LUCK * (1 - random.exponential(size=units)) if unlucky else np.zeros(units)
        cells = random.poisson(CELLS, site.size)
        found = random.binomial(cells, np.clip(ease + luck, 0, 1)[site])
        precision.append(found / (cells + random.poisson(0.15 * cells)))
    return site, precision[1] - precision[0]


def _told_apart(random: np.random.Generator, values: np.ndarray, unit: np.ndarray) -> bool:
    """Return whether the percentile interval of the mean leaves out 0."""
    count = int(unit.max()) + 1
    times = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    means = times @ np.bincount(unit, values) / (times @ np.bincount(unit))
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return bool(low > 0 or high < 0)
