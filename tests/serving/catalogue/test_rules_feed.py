"""The rule registry: a real file and the messages of the topic `rules`, compiled for two domains."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from features.catalogue import CatalogueEntry
from models.releases import release_store
from serving.catalogue.domain_state import DomainState
from serving.catalogue.rules_feed import RuleRegistry, RulesFile
from serving.rules.rule import Rule, RuleError
from testing.lookups import NOW, domain_state, serve, write_release

FILE = '[[rule]]\nid = "hide-a"\naction = "exclude"\nitems = ["a"]\n'
TWO = FILE + '[[rule]]\nid = "hide-b"\naction = "exclude"\nitems = ["b"]\ndomain = "news"\n'


class Registry:
    """A registry of two domains; `applied` and `changed` are its callbacks, in order."""

    def __init__(self, file: Path | None = None) -> None:
        self.now = NOW
        self.domains: dict[str, DomainState] = {
            name: domain_state(name=name, clock=lambda: self.now) for name in ("shop", "news")
        }
        self.applied: list[tuple[str, int]] = []
        self.changed: list[str] = []
        self.executor = ThreadPoolExecutor(1)
        self.registry = RuleRegistry(
            file,
            self.domains,
            self.executor,
            lambda partition, offset: self.applied.append((partition, offset)),
            self.changed.append,
        )

    def send(self, rule: Rule | bytes | None, rule_id: str, offset: int) -> None:
        value = msgspec.json.encode(rule) if isinstance(rule, Rule) else rule
        self.registry.on_message(rule_id.encode(), value)
        self.registry.on_progress("rules/0", offset)

    def ids(self, name: str) -> list[str]:
        return [rule.id for rule in self.domains[name].rules]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.01)

    def run(self, steps: Callable[[], Awaitable[None]], *, keep_time: bool = False) -> None:
        """Run `steps` while the registry runs; at most 30 s."""

        async def go() -> None:
            begin = asyncio.Event()
            begin.set()
            tasks = [asyncio.create_task(self.registry.run(begin))]
            tasks += [asyncio.create_task(self.registry.keep_time())] if keep_time else []
            await self.registry.ready.wait()
            await steps()
            for task in tasks:
                task.cancel()

        asyncio.run(asyncio.wait_for(go(), 30))


def test_rules_of_a_file_apply_in_their_domains(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(TWO)
    registry = Registry(file)

    async def steps() -> None:
        assert registry.ids("shop") == ["hide-a"]
        assert registry.ids("news") == ["hide-a", "hide-b"]
        assert registry.registry.file == RulesFile(str(file), 2)
        file.write_text(FILE.replace("hide-a", "other"))
        await registry.until(lambda: [registry.ids(name) for name in ("shop", "news")] == [["other"], ["other"]])

    registry.run(steps)


def test_without_file_and_topic_there_are_no_rules() -> None:
    registry = Registry()

    async def steps() -> None:
        assert (registry.registry.rules, registry.registry.file) == ([], None)
        assert registry.domains["shop"].view.rules is None

    registry.run(steps)


@pytest.mark.parametrize("broken", ["[[rule]\n", '[[rule]]\nid = "x"\naction = "lift"\n', None])
def test_a_broken_file_keeps_the_old_rules_and_says_why(tmp_path: Path, broken: str | None) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(FILE)
    registry = Registry(file)

    async def steps() -> None:
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        await registry.until(lambda: registry.registry.file is not None and registry.registry.file.error is not None)
        assert registry.ids("shop") == ["hide-a"]
        assert registry.registry.file is not None
        assert str(file) in str(registry.registry.file.error)
        file.write_text(TWO)
        await registry.until(lambda: registry.ids("news") == ["hide-a", "hide-b"])
        assert registry.registry.file == RulesFile(str(file), 2)

    registry.run(steps)


def test_rules_of_the_topic_replace_those_of_the_file_until_they_are_deleted(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(FILE)
    registry = Registry(file)

    async def steps() -> None:
        registry.send(Rule(id="hide-a", action="exclude", items=["c"]), "hide-a", 0)
        registry.send(Rule(id="first", action="exclude", items=["b"]), "first", 1)
        await registry.until(lambda: ("rules/0", 1) in registry.applied)
        assert registry.ids("shop") == ["first", "hide-a"]  # by id
        assert registry.domains["shop"].rules[1].items == ["c"]
        registry.send(None, "hide-a", 2)
        registry.send(None, "first", 3)
        await registry.until(lambda: ("rules/0", 3) in registry.applied)
        assert registry.domains["shop"].rules[0].items == ["a"]
        assert registry.ids("shop") == ["hide-a"]

    registry.run(steps)


def test_an_invalid_message_is_skipped_and_the_rule_before_it_still_applies() -> None:
    registry = Registry()

    async def steps() -> None:
        registry.send(Rule(id="r", action="exclude", items=["a"]), "r", 0)
        for value, rule_id in ((b'{"action": "lift"}', "r"), (b"\xff", "s")):
            with pytest.raises(RuleError):
                registry.send(value, rule_id, 1)
        registry.registry.on_progress("rules/0", 2)
        await registry.until(lambda: ("rules/0", 2) in registry.applied)
        assert registry.ids("shop") == ["r"]

    registry.run(steps)


def test_an_offset_is_applied_only_after_its_rules_are_compiled() -> None:
    registry = Registry()
    rules_when_applied: list[list[str]] = []
    registry.registry._on_applied = lambda _partition, _offset: rules_when_applied.append(registry.ids("news"))

    async def steps() -> None:
        for offset in range(5):
            registry.send(Rule(id=f"r{offset}", action="exclude", items=["a"]), f"r{offset}", offset)
            await registry.until(lambda: len(rules_when_applied) > offset)  # noqa: B023 - awaited in this round

    registry.run(steps)
    assert rules_when_applied[0] == ["r0"]
    assert rules_when_applied[-1] == [f"r{n}" for n in range(5)]


def test_nothing_applies_before_the_catalogue_is_there(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(FILE)
    registry = Registry(file)

    async def go() -> None:
        begin = asyncio.Event()
        task = asyncio.create_task(registry.registry.run(begin))
        await asyncio.sleep(0.1)
        assert (registry.ids("shop"), registry.registry.ready.is_set()) == ([], False)
        begin.set()
        await registry.registry.ready.wait()
        assert registry.ids("shop") == ["hide-a"]
        task.cancel()

    asyncio.run(asyncio.wait_for(go(), 30))


def test_time_begins_and_ends_rules_and_reports_the_domain() -> None:
    registry = Registry()
    shop = registry.domains["shop"]

    async def steps() -> None:
        rule = Rule(id="r", action="exclude", items=["a"], domain="shop", valid_from=NOW + 10, valid_until=NOW + 20)
        registry.send(rule, "r", 0)
        await registry.until(lambda: "shop" in registry.changed)
        assert shop.view.shows("a")
        registry.changed.clear()
        registry.now = NOW + 10
        await registry.until(lambda: "shop" in registry.changed)
        assert not shop.view.shows("a")
        registry.now = NOW + 20
        await registry.until(lambda: shop.view.shows("a"))

    registry.run(steps, keep_time=True)
    assert "news" not in registry.changed[1:]


def test_items_that_change_while_rules_are_compiled_are_seen(tmp_path: Path) -> None:
    state = domain_state(clock=lambda: NOW)
    write_release(tmp_path, ["a", "b"], {})
    serve(state, release_store.load(tmp_path / "shop" / str(release_store.current_id(tmp_path, "shop"))))
    state.put_items([CatalogueEntry(item_id=item_id, at=NOW, category="tea") for item_id in ("a", "b")])
    before = state.view
    with state.compiling() as compilation:
        compilation.compile([Rule(id="x", action="exclude", where={"category": "tea"})])
        state.put_items([CatalogueEntry(item_id="b", at=NOW, category="cups")])
        assert state.rules == ()
    assert [state.view.shows(item_id) for item_id in ("a", "b")] == [False, True]
    assert before.shows("a")  # a look-up on its way keeps the view that it took


def test_rules_that_fail_to_compile_change_nothing() -> None:
    state = domain_state(clock=lambda: NOW)
    with pytest.raises(RuntimeError, match="stopped"), state.compiling():
        raise RuntimeError("stopped")
    assert (state.rules, state.view.rules) == ((), None)
