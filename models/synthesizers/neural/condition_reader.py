"""Conditions and known events as a network reads them. Needs no Keras."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema
from models.data.vocabulary import Vocabulary
from models.synthesizers.conditions import Conditions
from models.synthesizers.decoding import DrawingState
from models.synthesizers.details import gap_classes
from models.synthesizers.histories import NONE, Histories
from models.synthesizers.neural.windows import ELSEWHERE, SequenceData
from models.synthesizers.text_index import TextIndex

MATCHES: Final = 20
"""A text stands for the mean of so many items that match it best."""


class ConditionReader:
    """Knows the codes of profiles and categories, and the vectors of texts, that a network was trained on.

    `categories` int32 [items + 2] and `texts` float32 [items + 2, d] or None, by number of item, as in `SequenceData`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        categories: Int32,
        category_names: Sequence[str],
        schema: ProfileSchema,
        texts: Float32 | None = None,
        index: TextIndex | None = None,
    ) -> None:
        self.vocabulary, self.schema, self.texts, self.index = vocabulary, schema, texts, index
        self.categories, self.category_names = categories, tuple(category_names)
        self._codes = {name: code for code, name in enumerate(self.category_names, 1)}

    @classmethod
    def fit(cls, interactions: Interactions) -> "ConditionReader":
        """From the catalogue and the profiles of `interactions`."""
        texts = np.pad(interactions.texts, ((1, 1), (0, 0))) if interactions.texts is not None else None
        titled = texts is not None and interactions.titles is not None
        return cls(
            interactions.vocabulary,
            np.pad(interactions.categories, 1).astype(np.int32),
            interactions.category_names,
            interactions.profiles.schema if interactions.profiles is not None else ProfileSchema(),
            texts,
            TextIndex.fit(interactions.titles) if titled and interactions.titles is not None else None,
        )

    def data(self, interactions: Interactions) -> SequenceData:
        """What is learned from."""
        profiles = interactions.profiles
        codes = profiles.table[profiles.rows] if profiles is not None else np.zeros((len(interactions), 0), np.int32)
        return self._data(Histories.from_interactions(interactions), codes.astype(np.int32))

    def data_of(self, histories: Histories) -> SequenceData:
        """Histories of whatever origin, with their profiles."""
        codes = self.schema.encode(histories.profiles or [None] * len(histories))
        return self._data(histories, codes[histories.users])

    def empty(self, width: int) -> dict[str, AnyArray]:
        """The network's inputs for one history of nothing of which nothing is known."""
        return self._data(NONE, np.zeros((0, len(self.schema)), np.int32)).inputs(width)

    def _data(self, histories: Histories, profiles: Int32) -> SequenceData:
        return SequenceData(histories, len(self.vocabulary), self.categories, profiles, self.texts)

    def read(self, drawing: DrawingState, window: int) -> dict[str, AnyArray]:
        """The network's inputs for known events and conditions: the newest `window` places, START where all are."""
        conditions, rows = drawing.conditions, len(drawing.conditions)
        inputs: dict[str, AnyArray] = {name: np.zeros((rows, window), np.int32) for name in ("items", "kinds", "gaps")}
        for row, condition in enumerate(conditions):
            self._write_events(inputs, row, condition.later if drawing.backward else condition.first, drawing.backward)
        inputs["direction"] = np.full(rows, drawing.backward, np.int32)
        codes = [self._codes.get(condition.category or "", 0) for condition in conditions]
        inputs["category"] = np.array(codes, np.int32)
        inputs["elsewhere"] = np.zeros((rows, ELSEWHERE), np.int32)
        for row, condition in enumerate(conditions):
            known = [self.vocabulary.index[item] + 1 for item in condition.elsewhere.items if self._knows(item)]
            inputs["elsewhere"][row, : min(len(known), ELSEWHERE)] = known[-ELSEWHERE:]
        if len(self.schema):
            inputs["profile"] = self.schema.encode(drawing.profiles)
        if self.texts is not None:
            inputs["text"] = np.stack([self._text(condition) for condition in conditions])
        return inputs

    def _knows(self, item: str) -> bool:
        return item in self.vocabulary.index

    def _write_events(self, inputs: Mapping[str, AnyArray], row: int, known: History, backward: bool) -> None:
        events = [place for place, item in enumerate(known.items) if self._knows(item)]
        events = events[::-1] if backward else events
        window = inputs["items"].shape[1]
        start = [] if len(events) >= window else [len(self.vocabulary) + 1]
        events = events[-window:]
        items = start + [self.vocabulary.index[known.items[place]] + 1 for place in events]
        begin = window - len(items)
        inputs["items"][row, begin:] = items
        inputs["kinds"][row, window - len(events) :] = [known.kinds[place] + 1 for place in events]
        times = np.array([known.times[place] for place in events], np.int64)
        if len(events) > 1:
            inputs["gaps"][row, window - len(events) + 1 :] = gap_classes(np.abs(np.diff(times))) + 1

    def _text(self, condition: Conditions) -> Float32:
        assert self.texts is not None
        if condition.text is None or self.index is None:
            return np.zeros(self.texts.shape[1], np.float32)
        scores = self.index.similarity([condition.text])[0]
        best = np.argsort(-scores, kind="stable")[:MATCHES]
        mean = scores[best] @ self.texts[1:-1][best]
        length = float(np.linalg.norm(mean))
        vector: Float32 = (mean / length if length > 0 else mean).astype(np.float32)
        return vector

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        facts = {"schema": self.schema.to_json(), "categories": self.category_names}
        arrays: dict[str, AnyArray] = {
            "categories": self.categories,
            "facts": np.frombuffer(msgspec.json.encode(facts), np.uint8),
        }
        if self.texts is not None:
            arrays["texts"] = self.texts
        if self.index is not None:
            arrays |= {f"titles-{name}": array for name, array in self.index.arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, vocabulary: Vocabulary, arrays: Mapping[str, Any]) -> "ConditionReader":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        facts = msgspec.json.decode(arrays["facts"].tobytes())
        schema = ProfileSchema.from_json(facts["schema"])
        index = None
        if "titles-idf" in arrays:
            index = TextIndex.from_arrays({name.removeprefix("titles-"): array for name, array in arrays.items()})
        return cls(vocabulary, arrays["categories"], facts["categories"], schema, arrays.get("texts"), index)


def gap_code(at: Int64, before: Int64) -> Int32:
    """int32 [rows]: 1 + the class of the time between two moments (epoch ms), 0 where one of them is 0, unknown."""
    return np.where((at > 0) & (before > 0), gap_classes(np.abs(at - before)) + 1, 0).astype(np.int32)
