"""Single steps of a training run, for tests: each call reads the data and the serving release again."""

from collections.abc import Sequence

from models.evaluation.experiment import Progress
from models.training.champion_challenger import Challenger
from models.training.promotion import decide_promotion
from models.training.run import TrainingResult, TrainingRun, read_data, read_serving
from models.training.train import Trainer, train_item_knn, train_tuned


def train_challenger(trainer: Trainer, run: TrainingRun, progress: Progress | None = None) -> Challenger:
    """A release by one trainer; the gate has not seen it yet."""
    return trainer(run, read_data(run), read_serving(run.root, run.domain), progress)


def item_knn(run: TrainingRun, progress: Progress | None = None) -> Challenger:
    """A release of item-kNN."""
    return train_challenger(train_item_knn, run, progress)


def tuned(run: TrainingRun, progress: Progress | None = None) -> Challenger:
    """A release of what tuning found to be best."""
    return train_challenger(train_tuned, run, progress)


def decide(run: TrainingRun, challengers: Sequence[Challenger]) -> TrainingResult:
    """Let the gate decide, as a run does."""
    return decide_promotion(run, challengers, read_serving(run.root, run.domain)).result
