"""The consumer's copy of the rows of users whose partitions are its own."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence

from features.activity import Activity, FoldSettings, LoggedEvent, apply_batch, erased
from features.store import OnlineStore, UserKey, decode_activity


class ActivityCache:
    """A bounded copy, least recently used rows first to go. What is written through it is what the store holds.

    Rows are kept as the bytes that were written, which saves asking the store; ingest was not seen to be faster
    or slower than with decoded objects.
    """

    def __init__(self, store: OnlineStore, capacity: int) -> None:
        self._store = store
        self._capacity = capacity
        self._rows: OrderedDict[UserKey, bytes] = OrderedDict()
        self._late: Counter[str] = Counter()

    def fold(self, log: Sequence[LoggedEvent], rules: FoldSettings) -> dict[UserKey, Activity]:
        """Apply `log` to the users' rows and write them; the rows as they are now.

        Where anything fails the users' rows are forgotten: the store has the truth, and the next try begins with it.
        """
        keys = list(dict.fromkeys((entry.event.domain, entry.event.user_id) for entry in log))
        try:
            late: dict[str, int] = {}
            after = apply_batch(self._get(keys), log, rules, in_place=True, late=late)
            written = self._store.write_activities(after)
        except BaseException:
            self.drop(keys)
            raise
        self._keep(written)
        self._late.update(late)
        return after

    def erase(self, users: Mapping[UserKey, tuple[str, int]], arriving: Collection[UserKey]) -> dict[UserKey, Activity]:
        """Erase the rows of `users`, each deleted by what stands at a partition (`events/3`) and offset; the rows now.

        A user without a row who is `arriving` (has events that are about to be folded) gets one with the position, so
        that events from before the deletion stay out.
        """
        keys = list(users)
        try:
            rows = self._get(keys)
            present = [key for key in keys if key in rows or key in arriving]
            after = {key: erased(rows.get(key), *users[key]) for key in present}
            written = self._store.write_activities(after)
        except BaseException:
            self.drop(keys)
            raise
        self._keep(written)
        return after

    def take_late(self) -> Counter[str]:
        """How many late events were applied since the last call, by domain."""
        late, self._late = self._late, Counter()
        return late

    def drop(self, keys: Sequence[UserKey] | None = None) -> None:
        """Forget some, or all."""
        if keys is None:
            self._rows.clear()
        for key in keys or ():
            self._rows.pop(key, None)

    def _get(self, keys: Sequence[UserKey]) -> dict[UserKey, Activity]:
        cached = {key: decode_activity(self._rows[key]) for key in keys if key in self._rows}
        missing = [key for key in keys if key not in cached]
        return cached | self._store.read_activities(missing) if missing else cached

    def _keep(self, rows: dict[UserKey, bytes]) -> None:
        for key, row in rows.items():
            self._rows[key] = row
            self._rows.move_to_end(key)
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
