"""Roles say what they take, and keep to what is theirs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROLES, ROOT, read_yaml, role_files

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a role hands to the next on purpose; DESIGN calls it a fact with a name.
WIRING = ROOT / "playbooks" / "group_vars" / "all"


def defaults(role: str) -> dict[str, Any]:
    """Return the role's defaults."""
    return read_yaml(ROOT / "roles" / role / "defaults" / "main.yml")


def options(role: str) -> dict[str, Any]:
    """Return what the role's specification says of each argument."""
    specs = read_yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")
    return specs["argument_specs"]["main"]["options"]


def is_template(value: object) -> bool:
    """Tell whether the value is only known in a run."""
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specification_name_the_same_variables(role: str) -> None:
    assert set(defaults(role)) == set(options(role))


@pytest.mark.parametrize("role", ROLES)
def test_literal_defaults_are_the_specified_ones(role: str) -> None:
    literal = {name: value for name, value in defaults(role).items() if not is_template(value)}
    specified = {
        name: about["default"] for name, about in options(role).items() if "default" in about
    }
    assert specified == literal
    assert {name: type(value) for name, value in specified.items()} == {
        name: type(value) for name, value in literal.items()
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_argument_has_a_type_and_a_description(role: str) -> None:
    for name, about in options(role).items():
        assert about["type"] in ("str", "int", "float", "bool", "dict", "list", "path"), name
        assert about["description"].rstrip().endswith("."), name
        assert about["type"] != "list" or "elements" in about, name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_carries_its_roles_name(role: str) -> None:
    internal = read_yaml(ROOT / "roles" / role / "vars" / "main.yml")
    assert [name for name in defaults(role) if not re.match(f"{role}_[a-z]", name)] == []
    assert [name for name in internal if not name.startswith(f"{role}__")] == []


@pytest.mark.parametrize("role", ROLES)
def test_registered_and_set_variables_carry_their_roles_name(role: str) -> None:
    for path in role_files(role):
        if path.suffix != ".yml":
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^\s+(?:register|index_var|loop_var): (\w+)", text, re.M):
            assert name.startswith(f"{role}_"), f"{path}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_role_reads_no_siblings_variable(role: str) -> None:
    others = "|".join(other for other in ROLES if other != role)
    for path in role_files(role):
        text = path.read_text(encoding="utf-8")
        assert re.findall(rf"\b(?:{others})_\w+", text) == [], path


@pytest.mark.parametrize("role", ROLES)
def test_wiring_sets_only_what_its_role_takes(role: str) -> None:
    wired = read_yaml(WIRING / f"{role}.yml")
    own = {name for name in wired if not name.startswith("stack__")}
    assert own <= set(defaults(role))


def test_wiring_has_a_file_for_each_role_and_one_for_what_they_share() -> None:
    assert {path.stem for path in WIRING.glob("*.yml")} == {*ROLES, "stack"}


def imported(tasks: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield each role that tasks import as a whole, with its tags."""
    for task in tasks:
        role = task.get("ansible.builtin.import_role", {"tasks_from": ""})
        if "tasks_from" not in role:
            yield role["name"], task.get("tags", [])
        yield from imported(task.get("block", []))


def test_tags_of_the_plays_are_the_roles_names() -> None:
    tags = {}
    for name in ("provision", "deploy", "deploy_swarm", "pull"):
        for play in read_yaml(ROOT / "playbooks" / f"{name}.yml"):
            for role in play.get("roles", []):
                tags[role["role"]] = role["tags"]
            tags |= dict(imported(play.get("tasks", [])))
    assert tags == {role: [role] for role in ROLES}


def test_no_task_has_tags_of_its_own() -> None:
    for role in ROLES:
        for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
            assert not re.search(r"^\s+tags:", path.read_text(encoding="utf-8"), re.M), path
