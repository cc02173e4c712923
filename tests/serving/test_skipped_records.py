"""Records that cannot be applied are all counted; few of them are logged."""

import logging

import pytest

from serving import metrics
from serving.errors import MessageError
from serving.skipped_records import LOG_EVERY_S, SkippedRecords


def test_every_record_counts_and_one_a_minute_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    skipped = SkippedRecords(logging.getLogger("coldstream.test"), lambda: now)
    before = metrics.records_skipped.labels("rules")._value.get()
    with caplog.at_level(logging.WARNING, "coldstream.test"):
        for offset in range(1_000):
            skipped.skip("rules", 0, offset, MessageError("no rule"))
        skipped.skip("releases", 0, 7, OverflowError("too large"))
        now = LOG_EVERY_S
        skipped.skip("rules", 0, 1_000, MessageError("no rule"))
    assert metrics.records_skipped.labels("rules")._value.get() - before == 1_001
    assert [record.getMessage() for record in caplog.records] == [
        "skipped offset 0 of rules/0: no rule",
        "skipped offset 7 of releases/0: too large",
        "skipped offset 1000 of rules/0: no rule; 999 more of this topic since the last such line",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True, False]
