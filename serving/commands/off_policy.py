"""The result of `coldstream evaluate off-policy`, for people and as JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from models.evaluation.off_policy import OffPolicyReport, PolicyResult


def off_policy_json(report: "OffPolicyReport") -> dict[str, Any]:
    """What `--json` prints; an estimate that the log cannot give is null."""
    return dict(msgspec.json.decode(msgspec.json.encode(report)))


def off_policy_lines(report: "OffPolicyReport") -> Iterator[str]:
    """The size of the log, then a line for each exploration share."""
    yield (
        f"{report.domain}: {report.explored:,} of {report.impressions:,} impressions explored, with {report.places:,} "
        f"exploring places and {report.clicks:,} clicks on them"
    )
    if report.malformed or report.unknown_share:
        yield (
            f"left out: {report.malformed:,} impressions with unreadable propensities, "
            f"{report.unknown_share:,} whose exploration share is unknown"
        )
    yield f"{'exploration':<14} {'click-through, IPS':>28} {'SNIPS':>28} {'effective places':>17}"
    yield from (_line(policy) for policy in report.policies)


def _line(policy: "PolicyResult") -> str:
    name = "as logged" if policy.share is None else f"{policy.share:g}"
    ips, snips = _estimate(policy.ips, policy.ips_interval), _estimate(policy.snips, policy.snips_interval)
    return f"{name:<14} {ips:>28} {snips:>28} {policy.effective:>17,.0f}"


def _estimate(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
