"""A restore that was cut short anywhere is finished or taken back, and no data are lost by it."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.sources import load_siblings

PROGRAM = Path(__file__).parents[2] / "roles/stack_backup/files/backup"
engine, journals, restorer, scratch, stacks, switch, program = load_siblings(
    PROGRAM, "engine", "journal", "restorer", "scratch", "stack", "switch", "__main__"
)
REQUEST = {"label": "", "time": "", "undo": False}
OTHER = {"label": "a", "time": "", "undo": False}
UNDO = {"label": "", "time": "", "undo": True}


class KilledError(BaseException):
    """The end of the program."""


class Lab(stacks.Stack):  # type: ignore[misc, name-defined]
    """A stack whose two volumes are directories, and that can be killed at any of its steps."""

    def __init__(self, directory: Path) -> None:
        """Make it: what serves, and what was restored beside it."""
        (directory / ".env").write_text("COMPOSE_PROJECT_NAME=lab\n")
        super().__init__(directory)
        for volume, text in ((self.data_volume, "old"), (self.previous_volume, "new")):
            (directory / volume / "_data").mkdir(parents=True)
            (self.data(volume) / "rows").write_text(text)
        self.up = True
        self.steps = 0
        self.killed_at = 0
        # Services that do not become healthy with the new data.
        self.ill: set[str] = set()

    def step(self) -> None:
        """Go on, or end here."""
        self.steps += 1
        if self.steps == self.killed_at:
            raise KilledError

    def data(self, volume: str) -> Path:
        """Return a volume's directory."""
        found: Path = self.directory / volume / "_data"
        if not found.exists():
            raise engine.Refusal(f"there is no volume {volume}")
        return found

    def serving(self) -> str:
        """Return what serves."""
        return (self.data(self.data_volume) / "rows").read_text()

    def aside(self) -> str:
        """Return what is kept aside."""
        return (self.data(self.previous_volume) / "rows").read_text()

    def start(self) -> None:
        """Start database and cache."""
        self.step()
        self.up = True

    def stop(self) -> None:
        """Stop them."""
        self.step()
        self.up = False

    def wait_healthy(self, *services: str) -> bool:
        """Tell whether they are healthy."""
        self.step()
        return self.up and not (self.serving() == "new" and self.ill & set(services))

    def schema(self) -> str:
        """Return the schema's version."""
        return "1"

    def flush(self) -> None:
        """Have all archived."""
        self.step()


class Restorer(restorer.Restorer):  # type: ignore[misc, name-defined]
    """A restore whose steps on disk may be its last."""

    def __init__(self, lab: Lab) -> None:
        """Begin the program again: the journal is read from disk."""
        self.stack = lab
        self.journal = journals.Journal(lab.directory / "restore.json")

    def exchange(self) -> None:
        """Exchange the data of the two volumes."""
        assert not self.stack.up, "a server has them"
        self.stack.step()
        super().exchange()
        self.stack.step()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A stack beside which a restore was prepared."""
    found = Lab(tmp_path)
    prepare(found, REQUEST)
    return found


def prepare(lab: Lab, request: dict[str, Any]) -> None:
    """Note that what is aside is what the request is for."""
    again = Restorer(lab)
    again.journal.write("prepared", request=request, arriving=again.number(lab.previous_volume))


def refusal(action: Any, *arguments: Any) -> str:
    """Return the line of what cannot be done."""
    with pytest.raises(engine.Refusal) as caught:
        action(*arguments)
    return str(caught.value)


# The switch.


def test_switch_exchanges_what_serves_and_what_was_prepared(lab: Lab) -> None:
    again = Restorer(lab)
    again.switch(REQUEST)
    assert (lab.serving(), lab.aside(), lab.up) == ("new", "old", True)
    assert again.journal.phase == "done"
    # And once: the same request again is done.
    Restorer(lab).switch(REQUEST)
    assert lab.serving() == "new"


def test_switch_takes_what_was_prepared_for_it_alone(lab: Lab, tmp_path: Path) -> None:
    assert "no restore of this kind is prepared" in refusal(Restorer(lab).switch, OTHER)
    lab.data(lab.previous_volume).rename(tmp_path / "elsewhere")
    (lab.directory / lab.previous_volume / "_data").mkdir()
    assert "is not there any more" in refusal(Restorer(lab).switch, REQUEST)
    assert lab.serving() == "old"
    assert lab.up


@pytest.mark.parametrize("ill", ["database", "api", "cache"])
def test_data_with_which_somebody_does_not_become_healthy_are_taken_back(
    lab: Lab, ill: str
) -> None:
    lab.ill = {ill}
    assert "did not become healthy with the restored data: the data from before serve again" in (
        refusal(Restorer(lab).switch, REQUEST)
    )
    assert (lab.serving(), lab.aside(), lab.up) == ("old", "new", True)
    assert Restorer(lab).journal.phase == "none"


@pytest.mark.parametrize("ill", ["", "database"])
def test_switch_that_was_killed_anywhere_comes_to_its_end(tmp_path: Path, ill: str) -> None:
    killed = 0
    for number in range(1, 30):
        place = tmp_path / str(number)
        place.mkdir()
        lab = Lab(place)
        lab.ill = {ill} - {""}
        prepare(lab, REQUEST)
        lab.killed_at = number
        try:
            Restorer(lab).switch(REQUEST)
        except engine.Refusal:
            break
        except KilledError:
            killed += 1
        else:
            break
        lab.killed_at = 0
        again = Restorer(lab)
        cut = again.journal.phase
        assert cut in ("switching", "done", "none")
        try:
            was_this = again.settle(REQUEST)
        except engine.Refusal:
            was_this = False
            assert ill
        assert {lab.serving(), lab.aside()} == {"old", "new"}, "data were lost"
        assert lab.up, "the stack stays down"
        assert Restorer(lab).journal.phase != "switching"
        assert was_this is (cut == "switching" and lab.serving() == "new")
        if ill and again.journal.phase == "none":
            assert lab.serving() == "old"
    assert killed >= 5


@pytest.mark.parametrize("phase", ["none", "preparing", "prepared", "done"])
def test_restore_that_was_not_switching_has_nothing_to_finish(lab: Lab, phase: str) -> None:
    again = Restorer(lab)
    again.journal.write(phase, request=REQUEST, arriving=1, previous=1)
    assert not again.settle(REQUEST)
    assert again.journal.phase == phase
    assert lab.steps == 0


def test_finished_switch_of_another_request_is_not_this_one(lab: Lab) -> None:
    lab.killed_at = 4
    with pytest.raises(KilledError):
        Restorer(lab).switch(REQUEST)
    assert lab.serving() == "new"
    lab.killed_at = 0
    again = Restorer(lab)
    assert not again.settle(OTHER)
    assert again.journal.entry["request"] == REQUEST
    assert again.journal.phase == "done"


# The way back.


def test_data_from_before_a_restore_can_return(lab: Lab) -> None:
    Restorer(lab).switch(REQUEST)
    Restorer(lab).require_previous()
    prepare(lab, UNDO)
    Restorer(lab).require_previous()
    Restorer(lab).switch(UNDO)
    assert lab.serving() == "old"


@pytest.mark.parametrize("phase", ["none", "preparing", "switching", "prepared"])
def test_there_is_no_way_back_before_a_restore(lab: Lab, phase: str) -> None:
    again = Restorer(lab)
    there = again.number(lab.previous_volume)
    again.journal.write(phase, request=REQUEST, arriving=there, previous=there)
    assert "no data from before a restore" in refusal(again.require_previous)


def test_there_is_no_way_back_to_a_volume_that_is_another_one(lab: Lab) -> None:
    again = Restorer(lab)
    again.journal.write("done", request=REQUEST, previous=again.number(lab.data_volume))
    assert "no data from before a restore" in refusal(again.require_previous)


# The journal.


def test_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = journals.Journal(tmp_path / "journal")
    assert (journal.phase, journal.entry) == ("none", {"phase": "none"})
    journal.write("prepared", arriving=5)
    journal.write("done", previous=6)
    assert journals.Journal(tmp_path / "journal").entry == {"phase": "done", "previous": 6}
    assert os.listdir(tmp_path) == ["journal"]


# Exchanging two directories.


def pair(folder: Path) -> tuple[Path, Path]:
    """Make two directories, each with a file."""
    made = folder / "a", folder / "b"
    for path in made:
        path.mkdir()
        (path / path.name).touch()
    return made


def test_directories_are_exchanged(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    switch.exchange(first, second)
    assert (os.listdir(first), os.listdir(second)) == (["b"], ["a"])


@pytest.mark.parametrize("number", [0, 1])
def test_directory_that_a_server_has_is_not_exchanged(tmp_path: Path, number: int) -> None:
    folders = pair(tmp_path)
    handle = os.open(folders[number], os.O_RDONLY)
    switch.fcntl.flock(handle, switch.fcntl.LOCK_EX)
    assert f"{folders[number]} is in use by a server" in refusal(switch.exchange, *folders)
    assert os.listdir(folders[0]) == ["a"]
    os.close(handle)
    switch.exchange(*folders)
    assert os.listdir(folders[0]) == ["b"]


def test_directory_that_is_not_there_cannot_be_exchanged(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    shutil.rmtree(second)
    assert "cannot be exchanged: No such file" in refusal(switch.rename, first, second)
    assert os.listdir(first) == ["a"]


def test_file_system_is_tried_without_a_trace(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    before = sorted(os.listdir(tmp_path))
    switch.try_exchange(first)
    assert sorted(os.listdir(tmp_path)) == before


# Times and targets.


@pytest.mark.parametrize(("text", "read"), [
    ("2026-01-01 12:00:00+00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ("2026-01-01 12:00:00.25+05:30", datetime(2026, 1, 1, 6, 30, 0, 250000, tzinfo=UTC)),
])  # fmt: skip
def test_time_is_read_with_its_zone(text: str, read: datetime) -> None:
    found = program.moment(text)
    assert (found, found.tzinfo) == (read, UTC)


@pytest.mark.parametrize("text", ["yesterday", "2026-01-01", "2026-01-01 12:00:00", "12:00+00"])
def test_time_without_a_zone_is_refused(text: str) -> None:
    assert f"TIME is '{text}': give a time with its zone" in refusal(program.moment, text)


def test_time_that_is_still_to_come_is_refused() -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    assert "is still to come" in refusal(program.moment, ahead.isoformat())
    # By its zone, and not by what the clock on the wall says.
    west = (ahead - timedelta(minutes=2)).astimezone(timezone(timedelta(hours=14)))
    assert program.moment(west.isoformat()) == west


def test_no_time_is_none() -> None:
    assert program.moment("") is None


@pytest.mark.parametrize(("label", "until", "target"), [
    ("", None, []),
    ("a", None, ["--type=immediate", "--target-action=promote"]),
    ("", datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
     ["--type=time", "--target=2026-01-02 03:04:05.000678+00", "--target-action=promote"]),
    # A backup by its name is where to begin; the time is where to end.
    ("a", datetime(2026, 1, 2, tzinfo=UTC),
     ["--type=time", "--target=2026-01-02 00:00:00.000000+00", "--target-action=promote"]),
])  # fmt: skip
def test_target_of_a_restore(label: str, until: datetime | None, target: list[str]) -> None:
    assert scratch.target_of(label, until) == target
