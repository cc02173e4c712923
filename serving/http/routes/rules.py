"""Merchandising rules: listed, changed and deleted. Those of the API are stored in the compacted topic `rules`."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, put
from litestar.params import FromPath

from serving.http.bodies import text_of
from serving.http.problems import Problem
from serving.http.read_your_writes import format_token
from serving.http.routes.parameters import InjectedService
from serving.http.service import Service
from serving.messages import RuleChange, encode
from serving.rules.rule import MAX_RULES, Rule, RuleError, rule_of
from stream import topics


class AcceptedRule(msgspec.Struct, frozen=True):
    """A rule was stored or deleted; look-ups can wait for `token` with `after`."""

    id: str
    token: str


@get("/v1/rules", tags=["rules"], summary="All rules")
async def list_rules(service: InjectedService) -> dict[str, Any]:
    """The rules of the file and of the API, each with its source and the domains in which it is active now."""
    registry = service.rules
    return {
        "rules": [_described(service, rule) for rule in registry.rules],
        "file": msgspec.to_builtins(registry.file),
    }


@get("/v1/rules/{rule_id:str}", tags=["rules"], summary="One rule")
async def get_rule(service: InjectedService, rule_id: FromPath[str]) -> dict[str, Any]:
    """A rule, its source, and the domains in which it is active now."""
    rule = next((rule for rule in service.rules.rules if rule.id == rule_id), None)
    if rule is None:
        raise Problem(404, "unknown-rule", f"there is no rule {rule_id!r}; PUT /v1/rules/{rule_id} creates it")
    return _described(service, rule)


@put("/v1/rules/{rule_id:str}", status_code=202, tags=["rules"], summary="Add or change a rule")
async def put_rule(
    request: Request[Any, Any, Any], service: InjectedService, rule_id: FromPath[str]
) -> Response[AcceptedRule]:
    """202 after the broker's acknowledgement; the rule is active in every API process within a second."""
    try:
        rule = rule_of(text_of(await request.body()), rule_id)
    except RuleError as error:
        raise Problem(400, "bad-rule", str(error)) from None
    if rule.domain is not None and rule.domain not in service.domains:
        raise Problem(400, "unknown-domain", f"domain={rule.domain!r} is not one of {', '.join(service.domains)}")
    if len(service.rules.rules) >= MAX_RULES and rule_id not in service.rules.from_topic:
        raise Problem(400, "too-many", f"there are {MAX_RULES} rules; delete one first")
    return await _send(service, RuleChange(rule_id, msgspec.json.encode(rule)))


@delete("/v1/rules/{rule_id:str}", status_code=202, tags=["rules"], summary="Delete a rule")
async def delete_rule(service: InjectedService, rule_id: FromPath[str]) -> Response[AcceptedRule]:
    """Deletes a rule of the API; a rule of the file has to be deleted in the file."""
    if rule_id not in service.rules.from_topic:
        in_file = any(rule.id == rule_id for rule in service.rules.rules)
        detail = "comes from the file of rules; delete it there" if in_file else "does not exist"
        raise Problem(404, "unknown-rule", f"rule {rule_id!r} {detail}")
    return await _send(service, RuleChange(rule_id, None))


async def _send(service: Service, change: RuleChange) -> Response[AcceptedRule]:
    service.check_log()
    (position,) = await service.producer.send_raw([encode(change)])
    service.on_sent(topics.RULES, [position])
    return Response(AcceptedRule(change.rule_id, format_token(topics.RULES, position)), status_code=202)


def _described(service: Service, rule: Rule) -> dict[str, Any]:
    source = "api" if rule.id in service.rules.from_topic else "file"
    active = [
        name for name, state in service.domains.items() if rule in state.rules and rule.valid_at(state.domain.clock())
    ]
    return {**msgspec.to_builtins(rule), "source": source, "holds": active}
