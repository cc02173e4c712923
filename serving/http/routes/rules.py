"""Routes for the rules of the house: what holds, a new one, one less. Kept in the compacted topic `rules`."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from serving.http.problems import Problem
from serving.http.service import Service
from serving.messages import RuleChange, encode
from serving.rules.rule import MAX_RULES, Rule, RuleError, rule_of
from stream import topics

Injected = NamedDependency[Service]


class Told(msgspec.Struct, frozen=True):
    """A rule was taken in, or taken away; `token` is what `after` of a look-up waits for."""

    id: str
    token: str


@get("/v1/rules", tags=["rules"], summary="Every rule that stands")
async def list_rules(service: Injected) -> dict[str, Any]:
    """Those of the file and those of the API, each with where it comes from and in which domains it holds now."""
    standing = service.standing
    rules = [_described(service, one) for one in standing.rules]
    return {"rules": rules, "file": msgspec.to_builtins(standing.file)}


@get("/v1/rules/{rule_id:str}", tags=["rules"], summary="One rule")
async def show_rule(service: Injected, rule_id: FromPath[str]) -> dict[str, Any]:
    """The rule as it stands."""
    found = next((one for one in service.standing.rules if one.id == rule_id), None)
    if found is None:
        raise Problem(404, "unknown-rule", f"there is no rule {rule_id!r}; PUT /v1/rules/{rule_id} makes one")
    return _described(service, found)


@put("/v1/rules/{rule_id:str}", status_code=202, tags=["rules"], summary="Add or change a rule")
async def put_rule(request: Request[Any, Any, Any], service: Injected, rule_id: FromPath[str]) -> Response[Told]:
    """202 after the broker's acknowledgement; it holds in every API process within a second."""
    try:
        rule = rule_of(await request.body(), rule_id)
    except RuleError as error:
        raise Problem(400, "bad-rule", str(error)) from None
    if rule.domain is not None and rule.domain not in service.domains:
        raise Problem(400, "unknown-domain", f"domain={rule.domain!r} is not one of {', '.join(service.domains)}")
    if len(service.standing.rules) >= MAX_RULES and rule_id not in service.standing.from_topic:
        raise Problem(400, "too-many", f"there are {MAX_RULES} rules; delete one first")
    return await _tell(service, rule_id, msgspec.json.encode(rule))


@delete("/v1/rules/{rule_id:str}", status_code=202, tags=["rules"], summary="Take a rule away")
async def delete_rule(service: Injected, rule_id: FromPath[str]) -> Response[Told]:
    """A rule of the file is taken away in the file."""
    if rule_id not in service.standing.from_topic:
        in_file = any(one.id == rule_id for one in service.standing.rules)
        where = "stands in the rules' file; take it out there" if in_file else "does not exist"
        raise Problem(404, "unknown-rule", f"rule {rule_id!r} {where}")
    return await _tell(service, rule_id, None)


async def _tell(service: Service, rule_id: str, value: bytes | None) -> Response[Told]:
    (place,) = await service.producer.send_raw([encode(RuleChange(rule_id, value))])
    return Response(Told(rule_id, f"{topics.RULES}/{place.token()}"), status_code=202)


def _described(service: Service, rule: Rule) -> dict[str, Any]:
    source = "api" if rule.id in service.standing.from_topic else "file"
    holds = {
        name: rule.valid_at(state.domain.clock()) for name, state in service.domains.items() if rule in state.rules
    }
    return {**msgspec.to_builtins(rule), "source": source, "holds": [name for name, now in holds.items() if now]}
