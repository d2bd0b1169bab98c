"""releases: which of them are forgotten, with which images, and which is the one to go back to."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources import load

from .engine import Engine

ROOT = Path(__file__).parents[2]
releases: Any = load(ROOT / "roles/stack_deploy/library/releases.py")
FILE = "docker-compose.yml"


@dataclass
class Lab:
    """A project's directory on a machine, which may have others."""

    folder: Path
    engine: Engine = field(default_factory=Engine)
    deployed: int = 0
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    minutes: int = 1

    def __post_init__(self) -> None:
        """Have the module ask this engine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.engine.folders["lab"] = str(self.folder)
        releases.subprocess = self.engine
        releases.datetime = self
        (self.folder / FILE).write_text("0\n")

    def now(self, _: Any) -> datetime:
        """Return a time for the module, which stands in for the class `datetime`."""
        self.moment += timedelta(minutes=self.minutes)
        return self.moment

    def run(self, state: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run the module."""
        given = {
            **{"directory": str(self.folder), "state": state, "release": "", "files": [FILE]},
            **{"services": {}, "changes": {}, "failed": False, "keep": 5},
            **{"about": {"by": "someone", "commit": "0123", "env": "prod"}},
        }
        answer: dict[str, Any] = releases.run(given | more, check=check)
        return answer

    def deploy(self, image: str = "", **more: Any) -> dict[str, Any]:
        """Deploy other files than before, with an image that is built for them."""
        self.deployed += 1
        image = image or f"api:{self.deployed}"
        self.engine.images.setdefault(image, f"sha256:{image}")
        (self.folder / FILE).write_text(f"{self.deployed}\n")
        return self.run("recorded", services={"api": {"image": image}}, **more)

    def go_back(self, release: str, **more: Any) -> dict[str, Any]:
        """Go back to a release, as make rollback does."""
        self.run("restored", release=release)
        return self.run("recorded", release=release, **more)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A machine with one project."""
    return Lab(tmp_path / "lab")


def ids(answer: dict[str, Any]) -> list[str]:
    """Return what is kept, the newest first."""
    return [each["id"] for each in answer["releases"]]


# How many are kept.


@pytest.mark.parametrize(("keep", "left"), [(0, 2), (1, 2), (2, 2), (3, 3), (9, 6)])
def test_newest_are_kept_and_two_of_them_always(lab: Lab, keep: int, left: int) -> None:
    made = [lab.deploy(keep=9)["current"] for _ in range(5)]
    made.append((answer := lab.deploy(keep=keep))["current"])
    assert ids(answer) == made[::-1][:left]
    assert (answer["current"], answer["previous"]) == (made[5], made[4])
    # Nothing is left of those that are not.
    assert sorted(os.listdir(lab.folder / "releases")) == sorted([*ids(answer), "current"])


def test_current_and_previous_stay_though_they_are_the_oldest(lab: Lab) -> None:
    made = [lab.deploy()["current"] for _ in range(5)]
    answer = lab.go_back(made[1], keep=2)
    assert ids(answer) == [made[1], made[0]]
    assert (answer["current"], answer["previous"]) == (made[1], made[0])


def test_place_that_is_left_is_the_newests(lab: Lab) -> None:
    made = [lab.deploy()["current"] for _ in range(5)]
    answer = lab.go_back(made[1], keep=3)
    assert ids(answer) == [made[4], made[1], made[0]]


def test_failed_ones_count_and_do_not_displace_what_ran(lab: Lab) -> None:
    made = [lab.deploy()["current"] for _ in range(3)]
    for _ in range(4):
        answer = lab.deploy(failed=True, keep=3)
    assert ids(answer)[1:] == [made[2], made[1]]
    assert answer["current"] == made[2]
    assert answer["releases"][0]["status"] == "failed"
    assert answer["releases"][0]["deployed"] == []


def test_files_that_are_the_current_ones_forget_nothing(lab: Lab) -> None:
    for _ in range(4):
        lab.deploy()
    answer = lab.run("recorded", keep=1)
    assert not answer["changed"]
    assert len(ids(answer)) == 4


@pytest.mark.parametrize("state", ["listed", "recorded"])
def test_looking_forgets_nothing(lab: Lab, state: str) -> None:
    for _ in range(4):
        lab.deploy()
    (lab.folder / FILE).write_text("other\n")
    answer = lab.run(state, keep=1, check=True)
    assert not answer["changed"]
    assert len(ids(answer)) == 4


def test_two_within_a_second_are_two(lab: Lab) -> None:
    first = lab.deploy()
    lab.minutes = 0
    second = lab.deploy()
    assert ids(second) == ["20260101-000101", "20260101-000100"]
    assert second["previous"] == first["current"]


# Their images.


def test_images_that_only_the_forgotten_named_are_removed(lab: Lab) -> None:
    for image in ("api:1", "api:2", "shared:1", "api:4"):
        answer = lab.deploy(image, keep=2)
    assert answer["removed_images"] == ["api:2"]
    assert sorted(lab.engine.images) == ["api:4", "shared:1"]


def test_image_that_a_kept_release_names_stays(lab: Lab) -> None:
    for image in ("same:1", "api:2", "same:1", "api:4"):
        answer = lab.deploy(image, keep=2)
    assert answer["removed_images"] == ["api:2"]
    assert "same:1" in lab.engine.images


def test_image_that_a_failed_release_names_stays_for_people(lab: Lab) -> None:
    lab.deploy()
    lab.deploy("broken:1", failed=True)
    lab.deploy(keep=3)
    assert "broken:1" in lab.engine.images


def test_image_that_another_projects_release_names_stays(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", lab.engine)
    other.deploy("shared:1")
    lab.engine.folders["other"] = str(other.folder)
    lab.engine.add("api", project="other")
    for image in ("shared:1", "api:2", "api:3"):
        answer = lab.deploy(image, keep=2)
    assert answer["removed_images"] == []
    assert "shared:1" in lab.engine.images


def test_image_that_a_container_uses_stays(lab: Lab) -> None:
    lab.engine.images["api:1"] = "sha256:api:1"
    lab.engine.add("api", image="sha256:api:1")
    for _ in range(3):
        answer = lab.deploy(keep=2)
    assert answer["removed_images"] == []
    assert "api:1" in lab.engine.images


def test_images_that_no_release_ever_named_stay(lab: Lab) -> None:
    lab.engine.images["somebody/elses:1"] = "sha256:else"
    for _ in range(4):
        lab.deploy(keep=2)
    assert "somebody/elses:1" in lab.engine.images


def test_image_that_is_gone_already_is_not_said_to_be_removed(lab: Lab) -> None:
    lab.deploy()
    del lab.engine.images["api:1"]
    lab.deploy()
    assert lab.deploy(keep=2)["removed_images"] == []


def test_engine_that_does_not_answer_keeps_all_images(lab: Lab) -> None:
    lab.engine.failures = {"image rm": "Cannot connect to the Docker daemon", "ps": "Cannot"}
    for _ in range(3):
        answer = lab.deploy(keep=2)
    assert answer["removed_images"] == []
    assert len(ids(answer)) == 2


# The one to go back to.


@pytest.mark.parametrize(("records", "current", "previous"), [
    ([], "", ""),
    ([("1", "", "deployed")], "1", ""),
    ([("2", "1", "deployed"), ("1", "", "deployed")], "2", "1"),
    # What ran before it, and not what is next in age.
    ([("3", "1", "deployed"), ("2", "1", "deployed"), ("1", "", "deployed")], "3", "1"),
    # That one is forgotten, or never ran: the next older one that did.
    ([("4", "3", "deployed"), ("2", "1", "deployed")], "4", "2"),
    ([("4", "3", "deployed"), ("3", "2", "failed"), ("2", "", "deployed")], "4", "2"),
    # Of a release that is gone, too.
    ([("3", "2", "deployed"), ("2", "1", "deployed")], "4", "3"),
    ([("3", "2", "failed")], "4", ""),
    # Never a newer one by its age alone.
    ([("3", "", "deployed"), ("2", "", "deployed")], "2", ""),
])  # fmt: skip
def test_previous_of(records: list[tuple[str, str, str]], current: str, previous: str) -> None:
    known = [{"id": name, "previous": before, "status": how} for name, before, how in records]
    assert releases.previous_of(known, current) == previous


def test_release_that_was_gone_back_to_runs_again(lab: Lab) -> None:
    first, second = lab.deploy()["current"], lab.deploy()["current"]
    answer = lab.go_back(first)
    assert (answer["current"], answer["previous"]) == (first, "")
    assert (lab.folder / FILE).read_text() == "1\n"
    assert len(answer["releases"][1]["deployed"]) == 2
    # And from there on.
    third = lab.deploy()
    assert third["previous"] == first
    assert ids(third) == [third["current"], second, first]


def test_release_whose_images_are_gone_is_not_written_back(lab: Lab) -> None:
    first = lab.deploy()["current"]
    lab.deploy()
    del lab.engine.images["api:1"]
    with pytest.raises(releases.ReleaseError, match=r"needs api:1, .* type make up ENV=prod\.$"):
        lab.go_back(first)
    assert (lab.folder / FILE).read_text() == "2\n"


@pytest.mark.parametrize("wanted", ["", "yesterday", "failed"])
def test_release_that_never_ran_is_refused_with_those_that_did(lab: Lab, wanted: str) -> None:
    first = lab.deploy()["current"]
    failed = ids(lab.deploy(failed=True))[0]
    with pytest.raises(releases.ReleaseError, match=rf"give one of those that ran, {first}\.$"):
        lab.run("restored", release=failed if wanted == "failed" else wanted)


# Of a run that was killed.


def test_run_that_was_killed_anywhere_leaves_whole_releases(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write, link, removal and rename in turn is the last thing that the run did."""
    lab.deploy(keep=2)
    lab.deploy(keep=2)
    killed = 0
    for number in range(1, 40):
        before = lab.run("listed")
        with monkeypatch.context() as patch:
            survived = kill_after(number, patch)
            try:
                lab.deploy(keep=2)
            except KilledError:
                killed += 1
            else:
                assert survived()
                break
        found = lab.run("listed")
        assert found["current"] in ids(found)
        assert found["current"] in (before["current"], max(ids(found)))
        for each in found["releases"]:
            kept = lab.folder / "releases" / each["id"]
            assert (kept / FILE).read_text().strip().isdecimal()
            assert set(each["images"].values()) <= set(lab.engine.images)
        # The next one goes on from there, and leaves nothing of it.
        answer = lab.deploy(keep=2)
        assert answer["previous"] == found["current"]
        assert sorted(os.listdir(lab.folder / "releases")) == sorted([*ids(answer), "current"])
    assert killed >= 10


class KilledError(BaseException):
    """The end of a process."""


def kill_after(number: int, patch: pytest.MonkeyPatch) -> Any:
    """Have the process end at the so many-th change of a file; return whether it did not."""
    calls = Counter[str]()

    def counted(real: Any) -> Any:
        def change(*given: Any, **more: Any) -> Any:
            calls["all"] += 1
            if calls["all"] == number:
                raise KilledError
            return real(*given, **more)

        return change

    for name in ("replace", "unlink", "symlink_to", "mkdir", "open"):
        patch.setattr(Path, name, counted(getattr(Path, name)))
    for name in ("fsync", "rmdir"):
        patch.setattr(os, name, counted(getattr(os, name)))

    def removed(folder: Path) -> None:
        # In an order in which what makes it a release would be the last.
        for path in sorted(folder.iterdir()):
            path.unlink()
        folder.rmdir()

    patch.setattr(releases.shutil, "rmtree", removed)
    return lambda: calls["all"] < number


# Whatever was done.


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["deploy", "same", "fail", "back", "undo"]),
            st.integers(0, 9),
            st.sampled_from(["", "shared:1", "shared:2"]),
        ),
        max_size=12,
    ),
    keep=st.integers(0, 5),
)
def test_current_and_previous_are_never_forgotten(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]], keep: int
) -> None:
    lab = Lab(tmp_path_factory.mktemp("machine") / "lab")
    lab.engine.images["foreign:1"] = "sha256:foreign"
    answer = lab.run("listed")
    for step, number, image in steps:
        good = [each["id"] for each in answer["releases"] if each["status"] == "deployed"]
        before = answer
        if step in ("deploy", "fail"):
            answer = lab.deploy(image, keep=keep, failed=step == "fail")
        elif step == "same":
            answer = lab.run("recorded", keep=keep)
        elif good:
            wanted = before["previous"] if step == "undo" else good[number % len(good)]
            answer = lab.go_back(wanted or good[0], keep=keep)
        else:
            continue
        kept = ids(answer)
        assert len(kept) <= max(keep, 2, len(before["releases"]))
        assert kept == sorted(kept, reverse=True)
        assert {answer["current"], answer["previous"]} <= {*kept, ""}
        if step == "fail":
            assert answer["current"] == before["current"]
            assert answer["previous"] == before["previous"]
        if step == "deploy":
            assert answer["previous"] == before["current"]
        named = {image for each in answer["releases"] for image in each["images"].values()}
        assert named <= set(lab.engine.images)
        assert "foreign:1" in lab.engine.images
        assert not set(answer["removed_images"]) & named
        if answer["current"] and step != "fail":
            current = lab.folder / "releases/current" / FILE
            assert current.read_text() == (lab.folder / FILE).read_text()
