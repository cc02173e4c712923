"""Business rules: pin, boost, bury or exclude items by id, category or attributes. Pure.

A rule comes from a TOML file or as JSON over the API; both have the same fields (docs/rules.md).
"""

import re
import tomllib
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from stream.errors import ColdstreamError
from stream.events import Domain, Id, Label, Scalar

MAX_RULES: Final = 1_000
MAX_POSITION: Final = 200
NO_END: Final = 2**62

MAX_TESTS: Final = 16
MAX_VALUES: Final = 1_000
"""Conditions of a rule, and values of a condition."""

Value = Scalar | list[Scalar]
Values = Annotated[list[Scalar], msgspec.Meta(max_length=MAX_VALUES)]
Action = Literal["pin", "boost", "bury", "exclude"]


class RuleError(ColdstreamError):
    """An invalid rule. `rule` is its number in a file, `field` the invalid field."""

    def __init__(self, detail: str, rule: int | None = None, field: str | None = None) -> None:
        super().__init__(detail)
        self.rule = rule
        self.field = field


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"is_": "is"}):
    """A test of an attribute; everything that is given must hold. A list passes if one of its values does.

    `is` equals, `in` is one of, `above` and `below` compare numbers (strictly), `absent` requires an item without it.
    """

    is_: Scalar | msgspec.UnsetType = msgspec.UNSET
    one_of: Values | None = msgspec.field(default=None, name="in")
    above: float | None = None
    below: float | None = None
    absent: bool | None = None

    def holds(self, value: Value) -> bool:
        """Whether an attribute's value passes; None is the value of an item without it."""
        values = value if isinstance(value, list) else [] if value is None else [value]
        if self.absent is not None and self.absent != (not values):
            return False
        if self.is_ is not msgspec.UNSET and not any(_same(each, self.is_) for each in values):
            return False
        if self.one_of is not None and not any(_same(each, other) for each in values for other in self.one_of):
            return False
        return (self.above is None and self.below is None) or any(self._between(each) for each in values)

    @property
    def named(self) -> list[Scalar] | None:
        """The only values that can pass; None if the condition does not name them."""
        if self.is_ is not msgspec.UNSET:
            return [self.is_]
        return self.one_of

    def _between(self, value: Scalar) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. It is about the items that are named in `items` and pass every test in `where`.

    `where` maps `category`, `title` or an attribute's name to a value, a list of values, or a `Condition`. `factor` is
    what scores are multiplied with, `position` that of the first pinned item, from 1. `valid_from` and `valid_until`
    (exclusive) are epoch ms or RFC 3339. `share` is the share of users, drawn by their ids, that the rule applies to.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    action: Action
    items: Annotated[list[Id], msgspec.Meta(max_length=10_000)] = []
    where: Annotated[dict[str, Scalar | Values | Condition], msgspec.Meta(max_length=MAX_TESTS)] = {}
    factor: float | None = None
    position: int | None = None
    valid_from: int | str | None = None
    valid_until: int | str | None = None
    domain: Domain | None = None
    segment: Label | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    note: Annotated[str, msgspec.Meta(max_length=1024)] = ""

    @property
    def conditional(self) -> bool:
        """Whether it applies to some users only."""
        return self.segment is not None or self.share < 1

    def tests(self) -> dict[str, Condition]:
        """The tests of `where`, by name."""
        return {name: _test(value) for name, value in self.where.items()}

    def valid_at(self, now_ms: int) -> bool:
        """Whether it applies at a time."""
        start, end = self.span()
        return start <= now_ms < end

    def span(self) -> tuple[int, int]:
        """From when until when (exclusive) it applies, epoch ms."""
        return _at(self.valid_from, 0), _at(self.valid_until, NO_END)

    def meant_for(self, segment: str | None, subject: str) -> bool:
        """Whether it applies to a user of a segment; `subject` is the user's id, or the id of a visitor's request."""
        if self.segment is not None and self.segment != segment:
            return False
        return self.share >= 1 or share_of(self.id, subject) < self.share


def share_of(rule_id: str, subject: str) -> float:
    """A user's number for a rule, uniform in [0, 1): always the same, and independent between rules."""
    return int.from_bytes(blake2b(f"{rule_id}\0{subject}".encode(), digest_size=8).digest(), "big") / 2**64


def checked_rule(rule: Rule) -> Rule:
    """The rule, if it is valid.

    Raises:
        RuleError: names the invalid field and the cure.
    """
    if not rule.items and not rule.where:
        raise RuleError(f"rule {rule.id} is about every item; name some in `items`, or say which in `where`")
    if rule.action in {"boost", "bury"}:
        low, high = (1.0, 1000.0) if rule.action == "boost" else (0.0, 1.0)
        if rule.factor is None or not low < rule.factor <= high or (rule.action == "bury" and rule.factor == high):
            between = "above 1, at most 1000" if rule.action == "boost" else "between 0 and 1 (exclude takes items out)"
            raise RuleError(f"rule {rule.id}: {rule.action} needs a factor {between}", field="factor")
    elif rule.factor is not None:
        raise RuleError(f"rule {rule.id}: {rule.action} takes no factor; leave it out", field="factor")
    if rule.action == "pin" and (rule.position is None or not 1 <= rule.position <= MAX_POSITION):
        raise RuleError(f"rule {rule.id}: pin needs a position from 1 to {MAX_POSITION}", field="position")
    if rule.action != "pin" and rule.position is not None:
        raise RuleError(f"rule {rule.id}: only pin takes a position; leave it out", field="position")
    for name in ("valid_from", "valid_until"):
        _check_time(rule, name)
    if _at(rule.valid_from, 0) >= _at(rule.valid_until, NO_END):
        raise RuleError(f"rule {rule.id} is never valid: valid_until is not after valid_from", field="valid_until")
    for name, test in rule.tests().items():
        if test == Condition():
            raise RuleError(
                f"rule {rule.id}: where.{name} tests nothing; give is, in, above, below or absent", field=name
            )
    return rule


def rule_of(raw: bytes | str, rule_id: str | None = None) -> Rule:
    """A rule from JSON; `rule_id`, if given, is its id. Raises RuleError."""
    try:
        fields = msgspec.json.decode(raw)
        if rule_id is not None and isinstance(fields, dict):
            fields.setdefault("id", rule_id)
        rule = checked_rule(msgspec.convert(fields, Rule))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RuleError(f"not a rule: {error}; docs/rules.md shows every field") from None
    if rule_id is not None and rule.id != rule_id:
        raise RuleError(f"the rule's id is {rule.id}, the address says {rule_id}; leave `id` out", field="id")
    return rule


def read_file(path: Path) -> list[Rule]:
    """The rules of a TOML file, each a table `[[rule]]`.

    Raises:
        RuleError: names the file, the line and the cure.
    """
    try:
        text = path.read_text("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise RuleError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: not TOML: {error}") from None
    unknown = sorted(set(content) - {"rule"})
    if unknown:
        raise RuleError(f"{path} line {_line(text, None, unknown[0])}: {unknown[0]} is not known; rules are [[rule]]")
    try:
        return _rules(content.get("rule", []))
    except RuleError as error:
        raise RuleError(
            f"{path} line {_line(text, error.rule, error.field)}: {error}", error.rule, error.field
        ) from None


def _rules(tables: Any) -> list[Rule]:
    if not isinstance(tables, list):
        raise RuleError("rule is one table; write each rule as [[rule]]", field="rule")
    rules: list[Rule] = []
    for number, table in enumerate(tables):
        try:
            rule = checked_rule(msgspec.convert(_plain(table), Rule))
        except msgspec.ValidationError as error:
            raise RuleError(f"{error}; docs/rules.md shows every field", number, _field_in(str(error))) from None
        except RuleError as error:
            raise RuleError(str(error), number, error.field) from None
        if any(rule.id == other.id for other in rules):
            raise RuleError(f"rule {rule.id} is there twice; ids are unique", number, "id")
        rules.append(rule)
    if len(rules) > MAX_RULES:
        raise RuleError(f"{len(rules)} rules; at most {MAX_RULES} fit", MAX_RULES)
    return rules


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file, TOML or, where its name ends in `.json`, one rule or a list of them as JSON."""
    if path.suffix != ".json":
        return read_file(path)
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RuleError(f"{path}: {error}") from None
    return _rules(content if isinstance(content, list) else [content])


def rules_of_domain(rules: Sequence[Rule], domain: str) -> list[Rule]:
    """The rules that apply in a domain."""
    return [rule for rule in rules if rule.domain in {None, domain}]


def _test(value: Scalar | list[Scalar] | Condition) -> Condition:
    if isinstance(value, Condition):
        return value
    return Condition(one_of=value) if isinstance(value, list) else Condition(is_=value)


def _same(value: Scalar, other: Scalar) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)  # 1 is not true


def _at(time: int | str | None, default: int) -> int:
    if time is None or isinstance(time, int):
        return default if time is None else time
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _check_time(rule: Rule, name: str) -> None:
    text = getattr(rule, name)
    if text is None or (isinstance(text, int) and 0 <= text < NO_END):
        return
    try:
        known = isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        cure = "give RFC 3339 with an offset, such as 2026-12-01T00:00:00Z, or epoch milliseconds"
        raise RuleError(f"rule {rule.id}: {name}={text!r} is not a time; {cure}", field=name)


def _plain(value: Any) -> Any:
    """A TOML value with dates as RFC 3339."""
    if isinstance(value, dict):
        return {name: _plain(field) for name, field in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else value


def _field_in(text: str) -> str | None:
    """The field that a message of msgspec names."""
    match = re.search(r"`\$\.(\w+)|field `(\w+)`", text)
    return (match[1] or match[2]) if match else None


def _line(text: str, rule: int | None, field: str | None) -> int:
    """The line of a field of the `rule`-th rule; the rule's first line if the field is not found."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.replace(" ", "").startswith("[[rule]]")]
    first = starts[rule] if rule is not None and rule < len(starts) else 0
    last = next((start for start in starts if start > first), len(lines)) if rule is not None else len(lines)
    for number in range(first, last):
        if field is not None and lines[number].strip().lstrip("[").startswith(field):
            return number + 1
    return first + 1
