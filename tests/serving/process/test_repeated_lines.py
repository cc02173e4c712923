"""Repeated log lines."""

from pathlib import Path

from serving.process.repeated_lines import MOST_LINES, RepeatedLines
from serving.process.supervisor import disk_is_full


def test_a_line_is_passed_on_three_times_a_minute_and_counted_after_that() -> None:
    lines = RepeatedLines()
    logged = [line for n in range(16_000) for line in lines.pass_on(f"12:00:{n}: no node {n}", n / 1_000)]
    assert logged == [f"12:00:{n}: no node {n}" for n in range(3)]
    assert lines.pass_on("other", 20) == ["other"]
    assert lines.pass_on("12:01:7: no node 7", 61) == ["(this line was left out 15,997 times)", "12:01:7: no node 7"]


def test_memory_is_bounded() -> None:
    lines = RepeatedLines()
    for n in range(3 * MOST_LINES):
        assert lines.pass_on("x" * n, 0) == ["x" * n]
    assert len(lines._counts) <= MOST_LINES


def test_a_full_disk_is_found_in_the_brokers_log(tmp_path: Path) -> None:
    assert not disk_is_full(tmp_path)
    (tmp_path / "kafka.log").write_text("ERROR Shutdown broker: java.io.IOException: No space left on device (kafka)\n")
    assert disk_is_full(tmp_path)
    (tmp_path / "kafka.log").write_text("INFO started\n" * 10_000)
    assert not disk_is_full(tmp_path)
