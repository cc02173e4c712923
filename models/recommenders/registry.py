"""The recommenders that can be asked for by name, and where Optuna seeks their parameters."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from models.errors import TrainingError
from models.recommenders.base import Recommender
from models.recommenders.freshness import Fresh
from models.recommenders.ials import IALS
from models.recommenders.item_item import EASE, ItemKNN, SequentialRules
from models.recommenders.neural.params import FULL_SOFTMAX_ITEMS, FULL_SOFTMAX_ON_GPU
from models.recommenders.popularity import DAY_MS, Personal, Popularity

if TYPE_CHECKING:
    from optuna import Trial

Params = dict[str, Any]
SHORTEST_DAYS: Final = 5 / (24 * 60)
"""News of the last minutes is what is popular: no half-life is sought below this."""
NEURAL: Final = ("dnn", "cnn", "rnn", "transformer")
MEMBERS: Final = ("personal", "item-knn", "sequential-rules", "ease", "transformer")
"""What a blend is made of, unless other members are asked for."""
SPACE: Final = 2
"""Of the encoders; one more where it changes, since a study cannot go on in another space."""
INSIDE: Final = ("sequential-rules", "item-knn")
"""What freshness may stand around in an evaluation."""
FRESH: Final[Params] = {"half_life_ms": 8.0 * DAY_MS, "live_half_life_ms": DAY_MS / 72, "live": 0.8}
"""Eight days, twenty minutes: the shipped preset's for news."""


class Situation(msgspec.Struct, frozen=True):
    """What a space depends on: whether items of the history may be answers, the span of the events in days, sizes, and
    whether profiles of users are at hand."""

    repeats: bool = False
    baskets: bool = True
    days: float = 365.0
    length: int = 50
    items: int = 0
    profiles: bool = False


class Candidate(msgspec.Struct, frozen=True):
    """`make(params, situation, seed)` builds an unfitted recommender; `space(trial, situation)` draws its params.

    `trains`: whether a release can be made of it. What is fresh is so at one moment: look-ups see to that themselves.
    """

    make: Callable[[Params, Situation, int], Recommender]
    space: Callable[["Trial", Situation], Params]
    default: Params = {}
    trains: bool = True


def names_of(chosen: str, *, trained: bool = False) -> list[str]:
    """The names that a choice stands for: `all`, one name, or several with commas; with `trained` those of releases.

    Raises:
        TrainingError: a name that there is not.
    """
    able = [name for name, one in CANDIDATES.items() if one.trains or not trained]
    if chosen == "all":
        return able
    names = [one.strip() for one in chosen.split(",") if one.strip()]
    for name in names:
        if name not in able:
            raise TrainingError(f"no recommender is called {name!r}; there are all, blend, {', '.join(able)}")
    return names


def make(name: str, params: Params, situation: Situation, seed: int = 0) -> Recommender:
    """An unfitted recommender with `params` over its defaults."""
    one = CANDIDATES[name]
    return one.make({**one.default, **params}, situation, seed)


def _half_life(trial: "Trial", situation: Situation) -> float | None:
    """A half-life between a ten-thousandth of the events' span (five minutes at least) and all of it, or none."""
    if not trial.suggest_categorical("fades", [True, False]):
        return None
    shortest = max(SHORTEST_DAYS, situation.days / 10_000)
    days = trial.suggest_float("half_life_days", shortest, max(2 * shortest, situation.days), log=True)
    result: float | None = days * DAY_MS
    return result


def _popularity(trial: "Trial", situation: Situation) -> Params:
    return {"half_life_ms": _half_life(trial, situation)}


def _personal(trial: "Trial", situation: Situation) -> Params:
    return {"decay": trial.suggest_float("decay", 0.5, 1.0), "half_life_ms": _half_life(trial, situation)}


def _history(trial: "Trial", situation: Situation, least: float = 0.3) -> Params:
    own = trial.suggest_float("own", 0.01, 3.0, log=True) if situation.repeats else 0.0
    return {"decay": trial.suggest_float("decay", least, 1.0), "own": own}


def _item_knn(trial: "Trial", situation: Situation) -> Params:
    return {
        "neighbours": trial.suggest_int("neighbours", 20, 300, log=True),
        "shrink": trial.suggest_float("shrink", 0.01, 50.0, log=True),
        "alpha": trial.suggest_float("alpha", 0.3, 1.0),
        "user_power": trial.suggest_float("user_power", 0.0, 1.0),
        "half_life_ms": _half_life(trial, situation),
        **_history(trial, situation),
    }


def _rules(trial: "Trial", situation: Situation) -> Params:
    return {
        "neighbours": trial.suggest_int("neighbours", 50, 300, log=True),
        "steps": trial.suggest_int("steps", 1, 15),
        "shrink": trial.suggest_float("shrink", 0.1, 50.0, log=True),
        "discount": trial.suggest_float("discount", 0.0, 0.6),
        "half_life_ms": _half_life(trial, situation),
        **_history(trial, situation, 0.1),
    }


def _ease(trial: "Trial", situation: Situation) -> Params:
    return {
        "reg": trial.suggest_float("reg", 2.0, 3_000.0, log=True),
        "user_power": trial.suggest_float("user_power", 0.0, 1.0),
        **_history(trial, situation, 0.5),
    }


def _ials(trial: "Trial", situation: Situation) -> Params:  # noqa: ARG001 - every space is asked alike
    return {
        "factors": trial.suggest_int("factors", 32, 192, log=True),
        "reg": trial.suggest_float("reg", 1e-3, 3.0, log=True),
        "alpha": trial.suggest_float("alpha", 1.0, 50.0, log=True),
        "iterations": trial.suggest_int("iterations", 6, 20),
        "decay": trial.suggest_float("decay", 0.7, 1.0),
    }


def affords_all(situation: Situation) -> bool:
    """Whether encoders are also tried with every item of a large catalogue as a negative: on a GPU."""
    from models.recommenders.neural.network import accelerated  # Keras takes seconds to import

    return FULL_SOFTMAX_ITEMS < situation.items <= FULL_SOFTMAX_ON_GPU and accelerated()


def _neural(trial: "Trial", situation: Situation) -> Params:
    many, losses = situation.items > FULL_SOFTMAX_ITEMS, ["sampled", "gbce"]
    if affords_all(situation):
        losses.append("softmax")
    return {
        "embedding_size": trial.suggest_categorical("embedding_size", [64, 96, 128]),
        "blocks": trial.suggest_int("blocks", 1, 3),
        "dropout": trial.suggest_float("dropout", 0.1, 0.5),
        "learning_rate": trial.suggest_float("learning_rate", 2e-3, 2e-2, log=True),
        "reg": trial.suggest_float("reg", 1e-5, 1e-1, log=True),
        "negatives": trial.suggest_categorical("negatives", [256, 512, 1024, 2048]) if many else 512,
        "mask": trial.suggest_float("mask", 0.0, 0.3),
        "adversarial": trial.suggest_categorical("adversarial", [0.0, 0.5, 1.0]),
        "loss": trial.suggest_categorical("loss", losses) if many else "auto",
    }


def _dnn(trial: "Trial", situation: Situation) -> Params:
    found = {**_neural(trial, situation), "context": trial.suggest_categorical("context", [False, True])}
    if situation.profiles:
        found["profile"] = trial.suggest_categorical("profile", [False, True])
    return found


def _fresh(trial: "Trial", situation: Situation) -> Params:
    least, most = SHORTEST_DAYS, max(2 * SHORTEST_DAYS, situation.days)
    return {
        "inside": trial.suggest_categorical("inside", list(INSIDE)),
        "half_life_ms": _half_life(trial, situation),
        "live_half_life_ms": trial.suggest_float("live_half_life_days", least, most, log=True) * DAY_MS,
        "live": trial.suggest_float("live", 0.0, 1.0),
    }


def _make_fresh(params: Params, situation: Situation, seed: int) -> Recommender:
    """What is inside has its own defaults."""
    name = str(params.get("inside", INSIDE[0]))
    if name not in INSIDE:
        raise TrainingError(f"fresh: inside={name!r} cannot be; give {' or '.join(INSIDE)}")
    settings = {key: value for key, value in params.items() if key != "inside"}
    return Fresh(make(name, {}, situation, seed), **settings)


def _make_neural(name: str) -> Callable[[Params, Situation, int], Recommender]:
    def build(params: Params, situation: Situation, seed: int) -> Recommender:
        from models.recommenders.neural import recommender  # Keras takes seconds to import

        settings = {"length": situation.length, "repeats": situation.repeats, "baskets": situation.baskets, **params}
        return recommender.Neural(recommender.Params(**{**settings, "encoder": name, "seed": seed}))

    return build


def _make_ials(params: Params, situation: Situation, seed: int) -> Recommender:  # noqa: ARG001
    return IALS(**{**params, "seed": seed})


def _plain(kind: Callable[..., Recommender]) -> Callable[[Params, Situation, int], Recommender]:
    return lambda params, _situation, _seed: kind(**params)


CANDIDATES: Final[dict[str, Candidate]] = {
    "popularity": Candidate(_plain(Popularity), _popularity),
    "personal": Candidate(_plain(Personal), _personal),
    "item-knn": Candidate(_plain(ItemKNN), _item_knn),
    "sequential-rules": Candidate(_plain(SequentialRules), _rules),
    "ease": Candidate(_plain(EASE), _ease),
    "ials": Candidate(_make_ials, _ials),
    "fresh": Candidate(_make_fresh, _fresh, FRESH, trains=False),
    **{name: Candidate(_make_neural(name), _dnn if name == "dnn" else _neural) for name in NEURAL},
}
