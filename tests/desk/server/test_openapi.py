"""The description is a sound one, says every route that there is and no other, and the answers fit it."""

import jsonschema_rs
import pytest

from mightnt.desk.server.app import _routes
from mightnt.desk.server.conversations import Conversations, Terms
from mightnt.desk.server.openapi import description
from mightnt.desk.server.safety import Guard
from mightnt.desk.server.turns import Turns
from mightnt.desk.store import open_store
from tests.desk.server.fakes import ROTA, FakeSpeaker, serving

UNDESCRIBED = {"/", "/desk", "/desk/{name}", "/desk/events", "/openapi.json"}
"""Pages, files and streams."""


def test_it_says_every_route_and_no_other(tmp_path):
    with open_store(tmp_path) as store:
        turns = Turns(tmp_path)
        routes = _routes(Conversations(FakeSpeaker(), store, turns, ROTA, Terms()), Guard())
        turns.close()
    there = {
        (route.path.replace(":path", ""), method.lower()) for route in routes for method in route.methods - {"HEAD"}
    }
    described = {(path, method) for path, methods in description()["paths"].items() for method in methods}
    assert described == {(path, method) for path, method in there if path not in UNDESCRIBED}


def test_every_reference_leads_somewhere():
    whole = description()

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            value = list(value.values())
        if isinstance(value, list):
            for inner in value:
                yield from references(inner)

    known = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
    assert set(references(whole)) == known


@pytest.mark.parametrize("content", ["hello", "ask"])
def test_answers_fit_it(tmp_path, content):
    whole = description()
    with serving(tmp_path) as served:
        completion = served.chat(content).json()
        error = served.chat(content, n=3).json()
    for name, value in (("Completion", completion), ("Error", error)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}
        jsonschema_rs.validate(schema, value)
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, {})
