"""A rule in words, for tables."""

from typing import Any

import msgspec

from serving.rules.rule import Rule


def summary_of(rule: Rule) -> dict[str, Any]:
    """What a rule does, to which items, and for whom."""
    amount = f" x{rule.factor:g}" if rule.factor is not None else f" {rule.position}" if rule.position else ""
    items = f"{len(rule.items)} items" if len(rule.items) > 3 else ", ".join(rule.items)
    where = msgspec.json.encode(rule.where).decode() if rule.where else ""
    users = [f"segment {rule.segment}" if rule.segment else "", f"{rule.share:.0%} of users" if rule.share < 1 else ""]
    about = " and ".join(filter(None, [items, where]))
    return {"id": rule.id, "does": rule.action + amount, "about": about, "for": ", ".join(filter(None, users)) or "all"}
