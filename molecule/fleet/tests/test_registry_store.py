"""The store of the build host: what is pushed into it, what it keeps, and what it lets go."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.controller import ROOT
from tests.modules.conftest import Module, Result, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

registry_offer = Module(ROOT / "roles/stack_images/library/registry_offer.py")
REPOSITORY = "stackyard-store/api"
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _without_images() -> Iterator[None]:
    yield
    script = f"docker image ls -q {REPOSITORY} | sort -u | xargs -r docker image rm -f"
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)


def image(folder: Path, tag: str, content: str = "") -> str:
    """Make an image of one file; return its reference."""
    (folder / "file").write_text(f"{tag} {content}")
    subprocess.run(
        f"tar -C {folder} -c file | docker import - {REPOSITORY}:{tag}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return f"{REPOSITORY}:{tag}"


def offer(store: Path, *references: str) -> Result:
    """Run the module."""
    return registry_offer(directory=str(store), images=list(references), prefix="stackyard-shipped")


def age(store: Path, **seconds: float) -> None:
    """Have tags been offered so long ago."""
    path = store / "offers.json"
    offers = json.loads(path.read_text())
    for tag, since in seconds.items():
        offers[f"{REPOSITORY}:{tag}"]["at"] = time.time() - since
    path.write_text(json.dumps(offers))


def layers(store: Path) -> int:
    """How many layers, configurations and manifests the store holds."""
    return len(list((store / "docker/registry/v2/blobs").glob("sha256/*/*/data")))


def test_an_image_is_pushed_once_and_leaves_no_name(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = image(tmp_path, "one")
    assert offer(store, first).answer["pushed"] == [first]
    again = offer(store, first)
    assert (again.changed, again.answer["pushed"]) == (False, [])
    assert again.answer["digests"][first].startswith("sha256:")
    assert "127.0.0.1" not in docker("image", "ls", "--digests")
    assert "127.0.0.1" not in docker("image", "inspect", first)


def test_another_build_under_the_same_name_is_pushed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    before = offer(store, image(tmp_path, "one")).answer["digests"]
    again = offer(store, image(tmp_path, "one", "built anew"))
    assert again.answer["pushed"] == list(before)
    assert again.answer["digests"] != before


def test_the_newest_two_stay_and_what_was_offered_within_a_day(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for tag in ("one", "two", "three", "four"):
        offer(store, image(tmp_path, tag))
    age(store, one=3 * DAY, two=2 * DAY, three=DAY / 2, four=DAY / 3)
    before = layers(store)
    after = offer(store, image(tmp_path, "five"))
    assert sorted(after.answer["removed"]) == [f"{REPOSITORY}:one", f"{REPOSITORY}:two"]
    # Two images of a layer, a configuration and a manifest each went, and one came.
    assert layers(store) == before - 3
    # What went can come again.
    one = offer(store, f"{REPOSITORY}:one")
    assert one.answer["pushed"] == [f"{REPOSITORY}:one"]
    assert layers(store) == before


def test_of_one_that_was_not_offered_for_long_the_newest_two_stay(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for tag in ("one", "two"):
        offer(store, image(tmp_path, tag))
    age(store, one=9 * DAY, two=8 * DAY)
    assert offer(store, image(tmp_path, "three")).answer["removed"] == [f"{REPOSITORY}:one"]


def test_what_a_killed_push_left_goes(tmp_path: Path) -> None:
    store = tmp_path / "store"
    offer(store, image(tmp_path, "one"))
    left = store / "docker/registry/v2/repositories/stackyard-shipped" / REPOSITORY
    (left / "_uploads/0").mkdir(parents=True)
    (left / "_uploads/0/data").write_text("half a layer")
    # Pushed, and not noted.
    (left / "_manifests/tags/one").rename(left / "_manifests/tags/unknown")
    second = image(tmp_path, "two")
    docker("image", "tag", second, f"127.0.0.1:9/stackyard-shipped/{second}")
    answer = offer(store, second).answer
    assert answer["removed"] == [f"{REPOSITORY}:unknown"]
    assert not (left / "_uploads/0").exists()
    assert "127.0.0.1" not in docker("image", "ls", "--digests")


def test_a_registry_that_does_not_start_says_why(tmp_path: Path) -> None:
    store = tmp_path / "store"
    offer(store, image(tmp_path, "one"))
    (store / "docker").rename(store / "elsewhere")
    (store / "docker").write_text("no directory")
    assert offer(store, image(tmp_path, "two")).failed


def test_everybody_may_read_and_its_user_alone_may_write(tmp_path: Path) -> None:
    store = tmp_path / "store"
    offer(store, image(tmp_path, "one"))
    modes = {path.stat().st_mode & 0o7777 for path in store.rglob("*") if path.is_dir()}
    assert modes == {0o755}
    assert {path.stat().st_mode & 0o7777 for path in store.rglob("data")} == {0o644}


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = offer(tmp_path / "store", f"{REPOSITORY}:none").message
    assert f"{REPOSITORY}:none" in said
