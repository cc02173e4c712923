"""Feast imported in half the time: without the argument checks that typeguard compiles into its classes.

typeguard has no setting for this: its import hook adds checks and cannot remove them, and its decorator is a no-op only
under `python -O`, which would also remove the assertions of every other package. So the decorator is replaced while
Feast is imported, here and nowhere else. Import of `features.store`, processor time on a busy core: 3.5 s instead of
6.8 s; every start and every return after a kill waits for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unchecked() -> Iterator[None]:
    """Import in this block without typeguard's checks; where typeguard is not installed nothing changes.

    mypy checks the calls that `features.store` makes.
    """
    try:
        import typeguard
    except ImportError:
        yield
        return
    decorator = typeguard.typechecked
    typeguard.typechecked = _undecorated
    try:
        yield
    finally:
        typeguard.typechecked = decorator


def _undecorated(target: Any = None, **_: Any) -> Any:
    """Replaces the decorator, with and without options."""
    return _undecorated if target is None else target
