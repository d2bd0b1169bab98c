"""The mutations apply or say why not, and nothing but a check that fails counts as a kill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ..acceptance.promises import LINES
from .checks import ROOT, CannotTell, judge
from .mutation import DoesNotApply, Edit, Mutation, load, replaced
from .report import BEGIN, README

MUTATIONS = load()
PROJECT = """\
# Ansible managed
# Base.
x-least: &least
  cap_drop: [ALL]
services:
  api:
    <<: *least
    networks: [frontend, backend]
    environment: {POOL: "4"}
    volumes:
      - {type: bind, source: ./config/api}
  cache:
    <<: *least
    command: [--save, "", --maxmemory, 64mb]
"""


def changed(at: str, verb: str, value: object) -> dict[str, dict[str, object]]:
    """Return the services after the change."""
    return yaml.safe_load(Edit("docker-compose.yml", at, verb, value).applied(PROJECT))["services"]


def test_names_are_told_apart() -> None:
    names = Counter(each.name for each in MUTATIONS)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_promise_is_broken_in_some_way() -> None:
    assert {promise for each in MUTATIONS for promise in each.breaks} == set(LINES)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_somebody_has_to_notice(mutation: Mutation) -> None:
    assert mutation.noticed_by or mutation.sources or mutation.rendered
    for file in mutation.noticed_by:
        assert (ROOT / f"tests/acceptance/test_{file}.py").is_file()
    for change in mutation.sources:
        replaced((ROOT / change.repository).read_text(encoding="utf-8"), change.old, change.new)


def test_table_is_of_these_mutations() -> None:
    table = README.read_text(encoding="utf-8").partition(BEGIN)[2]
    rows = [line.split(" | ") for line in table.splitlines()]
    assert [row[1] for row in rows if len(row) == 4][2:] == [each.name for each in MUTATIONS]


def test_list_takes_one_more() -> None:
    assert changed("services/api/networks", "add", "edge")["api"]["networks"] == [
        *("frontend", "backend", "edge")
    ]


def test_mapping_takes_one_more() -> None:
    assert changed("services/api", "add", {"init": True})["api"]["init"] is True


def test_item_of_a_list_is_found_by_a_pattern() -> None:
    command = changed("services/cache/command/*mb", "set", "0mb")["cache"]["command"]
    assert command == ["--save", "", "--maxmemory", "0mb"]
    volumes = changed("services/api/volumes/*config?api*/source", "set", "./x")["api"]["volumes"]
    assert volumes == [{"type": "bind", "source": "./x"}]


def test_text_at_a_place_is_replaced() -> None:
    command = changed("services/cache/command/*mb", "replace", ["64", "65"])["cache"]["command"]
    assert command[-1] == "65mb"


def test_what_an_anchor_shares_changes_in_one_place() -> None:
    services = changed("services/api/cap_drop/ALL", "set", "NONE")
    assert (services["api"]["cap_drop"], services["cache"]["cap_drop"]) == (["NONE"], ["ALL"])


def test_opening_comments_stay() -> None:
    text = Edit("docker-compose.yml", "services/api/environment", "drop", True).applied(PROJECT)
    assert text.startswith("# Ansible managed\n# Base.\n")


@pytest.mark.parametrize(("at", "verb", "value"), [
    ("services/api/networks", "add", "backend"),
    ("services/api", "add", {"networks": []}),
    ("services/api/environment/POOL", "add", "5"),
    ("services/api/environment/POOL", "set", "4"),
    ("services/api/environment/POOL", "replace", ["5", "6"]),
    ("services/api/environment/SIZE", "set", "5"),
    ("services/api/networks/edge", "drop", True),
    ("services/api/networks/*end", "drop", True),
    ("services/store/command", "drop", True),
])  # fmt: skip
def test_what_does_not_apply_is_an_error(at: str, verb: str, value: object) -> None:
    with pytest.raises(DoesNotApply):
        changed(at, verb, value)


@pytest.mark.parametrize("text", ["none of it", "old and old"])
def test_text_that_is_not_there_once_is_an_error(text: str) -> None:
    with pytest.raises(DoesNotApply):
        replaced(text, "old", "new")


FAILS = "def test_fails():\n    assert 1 == 2, 'seen'\n"
PASSES = "def test_passes():\n    pass\n"
CANNOT_START = (
    "import pytest\n\n\n@pytest.fixture\ndef stack():\n    pytest.fail('away')\n\n\n"
    "def test_cannot_start(stack):\n    pass\n\n\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "outcome", "check"), [
    (PASSES, "survived", ""),
    (PASSES + FAILS, "killed", "test_it::test_fails"),
    (CANNOT_START, "broken", "test_it::test_cannot_start"),
    (CANNOT_START + FAILS, "killed", "test_it::test_fails"),
])  # fmt: skip
def test_a_check_that_fails_is_a_kill(
    tmp_path: Path, source: str, outcome: str, check: str
) -> None:
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    verdict = judge(["test_it.py"], tmp_path)
    assert (verdict.outcome, verdict.check) == (outcome, check)
    assert verdict.noticed == (outcome == "killed")
    assert ("seen" in verdict.message) == (outcome == "killed")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["", "def test_("])
def test_checks_that_do_not_run_tell_nothing(tmp_path: Path, source: str) -> None:
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    with pytest.raises(CannotTell):
        judge(["test_it.py"], tmp_path)
