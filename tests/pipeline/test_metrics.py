"""metrics.json is what its schema says: of real runs, with every kind of figure there is."""

import copy
import json

import jsonschema
import pytest

from tests.jobs import REPOSITORY, Job, sentences, write

SCHEMA = json.loads((REPOSITORY / "pipeline" / "metrics.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Figures of a first run, of one that starts from its model, and of one without n-grams."""
    job = Job(tmp_path_factory.mktemp("metrics") / "job", train=200)
    found = []
    job.run_local()
    found.append(job.metrics())
    write(job.train, [*job.lines, *sentences(20, seed=9)])
    job.run_local()
    found.append(job.metrics())
    job.set("baseline", order=0)
    job.set("vocabulary", size="all")
    job.run_local()
    found.append(job.metrics())
    return found


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_metrics_of_runs_are_what_the_schema_says(runs):
    first, warm, without = runs
    for metrics in runs:
        VALIDATOR.validate(metrics)
    # The figures that there may be were there, so that the schema was asked about them.
    assert first["train"]["started_from"] is None and first["mixture"]
    assert warm["train"]["started_from"] and warm["confidence"]["last_run"]
    assert without["mixture"] is None and without["breakdowns"]["most_different"] is None


def places(value, path=()):
    """Of all dictionaries within a value, each name that they hold and the way there."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield (*path, name)
            yield from places(each, (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def test_no_figure_may_be_missing_misnamed_or_of_another_kind(runs):
    # Models stand there by name, and the name of the other run's is there or not.
    optional = {"kneser_ney_5", "network", "last_run"}
    metrics = runs[1]
    for path in places(metrics):
        for change in ("missing", "misnamed", "another kind"):
            changed = copy.deepcopy(metrics)
            inner = changed
            for step in path[:-1]:
                inner = inner[step]
            value = inner.pop(path[-1])
            if change == "misnamed":
                inner[f"{path[-1]}s"] = value
            elif change == "another kind":
                inner[path[-1]] = {"no": "figure"}
            elif optional & set(path) or path[-2:] == ("last_run", "model"):
                continue
            if "most_different" in path[-2:] and change == "misnamed":
                continue  # by the names of models
            assert not VALIDATOR.is_valid(changed), (path, change)


def test_every_figure_is_described():
    def check(schema, path):
        if "$ref" in schema:
            return
        for name, each in schema.get("properties", {}).items():
            described = each if "$ref" not in each else SCHEMA["$defs"][each["$ref"][8:]]
            assert described.get("description"), (*path, name)
            check(each, (*path, name))
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                check(schema[name], (*path, name))
        for each in schema.get("anyOf", []):
            check(each, path)

    check(SCHEMA, ())
    for name, each in SCHEMA["$defs"].items():
        check(each, (name,))
