"""Molecule counts as success that a scenario found no check; here none may be without."""

from __future__ import annotations

import pytest

from ..scenarios import SETS, all_sets, divided, side_by_side
from .conftest import ROOT, read_yaml

SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
MACHINES = read_yaml(ROOT / "molecule/resources/vars/machines.yml")["machines__suites"]


def test_every_scenario_is_run() -> None:
    run = {scenario for scenarios in all_sets().values() for scenario in scenarios}
    assert run | {"default"} == set(SCENARIOS)


def test_every_set_is_of_known_machines() -> None:
    assert set(" ".join(SETS).split()) == set(MACHINES)


@pytest.mark.parametrize(
    ("cores", "memory_gib", "number"), [(1, 24, 1), (2, 24, 2), (2, 3, 1), (8, 16, 4), (16, 64, 16)]
)
def test_sets_side_by_side_follow_cores_and_memory(
    cores: int, memory_gib: float, number: int
) -> None:
    assert side_by_side(cores, memory_gib) == number


@pytest.mark.parametrize("number", [1, 4, 5, 6, 16])
def test_divided_sets_run_the_same_scenarios(number: int) -> None:
    sets = divided(SETS, number)
    for debian, scenarios in SETS.items():
        parts = [found for names, found in sets.items() if names.split("-")[0] == debian]
        assert sorted(sum(parts, [])) == sorted(scenarios)
        assert sets[debian][0] == scenarios[0]
    assert min(number, 6) <= len(sets)


@pytest.mark.parametrize("name", [each for each in SCENARIOS if each != "default"])
def test_scenario_names_checks_that_exist(name: str) -> None:
    about = read_yaml(ROOT / "molecule" / name / "molecule.yml") or {}
    verifier = about.get("verifier", {})
    folder = verifier.get("directory", f"molecule/{name}/tests")
    patterns = [f"{folder}/test_*.py", *verifier.get("additional_files_or_dirs", [])]
    found = [
        set(ROOT.glob(pattern.removeprefix("${MOLECULE_PROJECT_DIRECTORY}/")))
        for pattern in patterns
    ]
    assert set().union(*found), f"{name} has no check in {patterns}"
    assert all(found[1:]), f"{name}: one of {patterns[1:]} matches nothing"


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_steps_have_their_files(name: str) -> None:
    """A step that names a directory without checks is passed over by Molecule."""
    about = read_yaml(ROOT / "molecule" / name / "molecule.yml") or {}
    for step in about.get("scenario", {}).get("test_sequence", []):
        action, _, argument = step.partition(" ")
        if argument:
            place = ROOT / "molecule" / name / argument
            assert list(place.glob("test_*.py")) if action == "verify" else place.is_file(), step
