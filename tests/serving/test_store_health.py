"""When errors of the online store make a process not ready, and when it heals."""

from features.errors import StoreDamagedError, StoreError
from serving.store_health import WINDOW_S, StoreHealth

BUSY = StoreError("the online store does not answer: locked")
DAMAGED = StoreDamagedError("the online store is damaged (malformed); run the rebuild")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def health_and_clock() -> tuple[StoreHealth, Clock]:
    clock = Clock()
    return StoreHealth(clock), clock


def test_a_few_errors_among_many_calls_are_no_problem() -> None:
    health, _ = health_and_clock()
    health.count_calls(1_000)
    for _ in range(50):
        health.count_error(BUSY, "read")
    assert health.problem == ""
    for _ in range(10):
        health.count_error(BUSY, "read")
    assert health.problem == "60 of 1060 calls of the last 30 s failed: the online store does not answer: locked"


def test_two_errors_alone_are_no_problem() -> None:
    health, _ = health_and_clock()
    health.count_error(BUSY, "write")
    health.count_error(BUSY, "write")
    assert health.problem == ""
    health.count_error(BUSY, "write")
    assert health.problem.startswith("3 of 3 calls")


def test_one_damaged_row_is_a_problem_until_calls_succeed_for_a_window() -> None:
    health, clock = health_and_clock()
    health.count_calls(10_000)
    health.count_error(DAMAGED, "read")
    assert health.problem == str(DAMAGED)
    clock.now += WINDOW_S - 1
    health.count_calls(10_000)
    assert health.problem == str(DAMAGED)
    clock.now += 2
    assert health.problem == ""


def test_errors_are_forgotten_after_a_window() -> None:
    health, clock = health_and_clock()
    for _ in range(10):
        health.count_error(BUSY, "read")
    clock.now += WINDOW_S / 2
    assert health.problem
    clock.now += WINDOW_S / 2
    assert health.problem == ""
    clock.now += 10 * WINDOW_S
    health.count_error(BUSY, "read")
    assert health.problem == ""
