"""What a study can tell: its power, planned before it begins and reached when it is over."""

from dataclasses import dataclass

from motive.study.clustered import LEVEL

# What is assumed before there are judgements: the share of ties, and how much of the variance of an
# answer belongs to the annotator and to the video.
ASSUMED_TIES = 0.15
ASSUMED_ANNOTATOR_SHARE = 0.03
ASSUMED_VIDEO_SHARE = 0.10
# In standard errors: from here on the chance of the wrong side is below 1e-10, and from there on that of
# finding nothing too. SciPy's noncentral t gives NaN so far out.
_NO_OTHER_SIDE, _CERTAIN = 5.0, 30.0


@dataclass(frozen=True)
class Planned:
    """A pair of arms before the study: numbers, and the power to tell `preference` from 1/2."""

    annotators: int
    videos: int
    judgements: int
    preference: float
    power: float


def power_of_t_test(preference: float, standard_error: float, degrees: float) -> float:
    """Chance that the two-sided 5% t-test against 1/2 finds a true share of `preference`; else NaN."""
    from scipy import stats

    if not (standard_error > 0 and degrees > 0):
        return float("nan")
    critical = float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    shift = (preference - 0.5) / standard_error
    if shift > _CERTAIN:
        return 1.0
    above = stats.nct.sf(critical, degrees, shift)
    below = stats.nct.cdf(-critical, degrees, shift) if shift < _NO_OTHER_SIDE else 0.0
    return float(above + below)


def detectable(standard_error: float, degrees: float, *, power: float = 0.8) -> float:
    """The smallest share above 1/2 that is found with this power; NaN if there is none below 1."""
    from scipy.optimize import brentq

    def lacking(preference: float) -> float:
        return power_of_t_test(preference, standard_error, degrees) - power

    if not (standard_error > 0 and degrees > 0) or lacking(1.0) < 0:
        return float("nan")
    return float(brentq(lacking, 0.5, 1.0, xtol=1e-6))


def planned_power(annotators: int, videos: int, judgements: int, preference: float) -> Planned:
    """Power under the assumptions above; annotators and videos are crossed as evenly as can be."""
    degrees = min(annotators, videos) - 1
    error = assumed_standard_error(annotators, videos, judgements, preference)
    power = power_of_t_test(preference, error, degrees)
    return Planned(annotators, videos, judgements, preference, power)


def assumed_standard_error(
    annotators: int, videos: int, judgements: int, preference: float
) -> float:
    """Of the share with ties as halves, from the assumed parts of the variance."""
    wins = preference - ASSUMED_TIES / 2
    variance = wins + ASSUMED_TIES / 4 - preference**2
    alone = 1 - ASSUMED_ANNOTATOR_SHARE - ASSUMED_VIDEO_SHARE
    parts = ASSUMED_ANNOTATOR_SHARE / annotators + ASSUMED_VIDEO_SHARE / videos + alone / judgements
    return float((variance * parts) ** 0.5)
