"""file_tree makes directories and files as asked, and touches nothing that is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Module, listing

if TYPE_CHECKING:
    from pathlib import Path

file_tree = Module(ROOT / "library" / "file_tree.py")


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """Return arguments for a directory, a file in it, and a file that people may edit."""
    return {
        "directories": [{"path": str(tmp_path / "d"), "mode": "0750", "owner": "root"}],
        "files": [
            {
                "path": str(tmp_path / "d/a"),
                "content": "ä\r\nb\n",
                "mode": "0640",
                "owner": "991",
                "group": "992",
            },
            {
                "path": str(tmp_path / "d/deep/kept"),
                "content": "new\n",
                "mode": "0644",
                "keep": True,
            },
        ],
    }


def test_first_run_makes_all_of_it(tree: dict[str, Any], tmp_path: Path) -> None:
    result = file_tree(**tree)
    assert result.changed
    assert result.answer["paths"] == [str(tmp_path / name) for name in ("d", "d/a", "d/deep/kept")]
    made = listing(tmp_path)
    assert made["d"][0] == 0o750
    assert (*made["d/a"][:3], made["d/a"][4]) == (0o640, 991, 992, "ä\r\nb\n".encode())
    assert made["d/deep/kept"][4] == b"new\n"


def test_second_run_changes_nothing(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    before = listing(tmp_path)
    result = file_tree(**tree)
    assert (result.changed, result.answer["paths"], result.answer["diff"]) == (False, [], [])
    assert listing(tmp_path) == before


def test_check_mode_says_what_would_be_made_and_makes_nothing(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    result = file_tree(check=True, **tree)
    assert result.changed
    assert len(result.answer["paths"]) == 3
    assert listing(tmp_path) == {}


def test_check_mode_leaves_what_is_wrong(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    (tmp_path / "d/a").write_text("edited")
    (tmp_path / "d").chmod(0o777)
    before = listing(tmp_path)
    result = file_tree(check=True, **tree)
    assert result.answer["paths"] == [str(tmp_path / "d"), str(tmp_path / "d/a")]
    assert listing(tmp_path) == before


def test_other_content_is_replaced_and_shown(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    (tmp_path / "d/a").write_text("old\n")
    (diff,) = file_tree(**tree).answer["diff"]
    assert (diff["before"], diff["after"]) == ("old\n", "ä\r\nb\n")
    assert diff["after_header"] == str(tmp_path / "d/a")
    assert (tmp_path / "d/a").read_bytes() == "ä\r\nb\n".encode()


def test_line_ends_alone_are_a_difference(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    (tmp_path / "d/a").write_bytes("ä\nb\n".encode())
    assert file_tree(**tree).answer["paths"] == [str(tmp_path / "d/a")]
    assert not file_tree(**tree).changed


def test_replaced_file_is_a_new_one_so_that_no_reader_sees_half(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    file_tree(**tree)
    path = tmp_path / "d/a"
    path.write_text("old\n")
    with path.open(encoding="utf-8") as reader:
        file_tree(**tree)
        assert reader.read() == "old\n"
    assert {entry.name for entry in path.parent.iterdir()} == {"a", "deep"}


def test_what_people_edited_is_kept(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    (tmp_path / "d/deep/kept").write_text("theirs\n")
    assert not file_tree(**tree).changed
    assert (tmp_path / "d/deep/kept").read_text() == "theirs\n"


def test_owner_and_mode_are_mended(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    path = tmp_path / "d/a"
    path.chmod(0o666)
    file_tree_result = file_tree(**tree)
    assert file_tree_result.answer["paths"] == [str(path)]
    assert listing(tmp_path)["d/a"][:3] == (0o640, 991, 992)


def test_kept_file_gets_its_mode_back_and_keeps_its_text(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    file_tree(**tree)
    path = tmp_path / "d/deep/kept"
    path.write_text("theirs\n")
    path.chmod(0o600)
    assert file_tree(**tree).answer["paths"] == [str(path)]
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("theirs\n", 0o644)


def test_file_in_the_place_of_a_directory_is_left_and_named(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "d").write_text("mine")
    assert file_tree(**tree).message.startswith(f"{tmp_path / 'd'} is not a directory: move it")
    assert (tmp_path / "d").read_text() == "mine"


def test_directory_in_the_place_of_a_file_is_left_and_named(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "d/a").mkdir(parents=True)
    message = file_tree(**tree).message
    assert str(tmp_path / "d/a") in message
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["a"]


def test_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("")
    entry = {"path": str(tmp_path / "p/a"), "content": "", "mode": "0644"}
    assert str(tmp_path / "p") in file_tree(files=[entry]).message


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    file_tree(**tree)
    path = tmp_path / "d/a"
    path.write_text("old\n")
    tree["files"][0]["owner"] = "nobody-of-that-name"
    assert "nobody-of-that-name" in file_tree(**tree).message
    assert path.read_text() == "old\n"
    assert {entry.name for entry in path.parent.iterdir()} == {"a", "deep"}


def test_file_that_is_no_text_is_replaced(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    path = tmp_path / "d/a"
    path.write_bytes(b"\xff\x00")
    assert file_tree(**tree).answer["paths"] == [str(path)]
    assert path.read_bytes() == "ä\r\nb\n".encode()


def test_secret_is_written_and_shown_nowhere(tree: dict[str, Any], tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "d/key"), "secret": "correct-horse", "mode": "0400"}
    tree["files"] = [entry]
    result = file_tree(**tree)
    assert (tmp_path / "d/key").read_text() == "correct-horse"
    assert "correct-horse" not in result.output
    again = file_tree(**tree)
    assert not again.changed
    assert "correct-horse" not in again.output


def test_a_file_that_must_not_be_is_removed(tree: dict[str, Any], tmp_path: Path) -> None:
    file_tree(**tree)
    gone = [str(tmp_path / "d/a"), str(tmp_path / "never")]
    would = file_tree(**tree | {"files": [], "absent": gone}, check=True)
    assert would.answer["paths"] == [gone[0]]
    assert (tmp_path / "d/a").exists()
    result = file_tree(**tree | {"files": [], "absent": gone})
    assert result.answer["paths"] == [gone[0]]
    assert not (tmp_path / "d/a").exists()
    assert not file_tree(**tree | {"files": [], "absent": gone}).changed
