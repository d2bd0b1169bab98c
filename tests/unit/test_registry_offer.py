"""registry_offer: which images are pushed, which stay in the store, and what a failure leaves."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources import load

from .engine import Engine, FailureError, Module, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
registry_offer: Any = load(ROOT / "roles/stack_images/library/registry_offer.py")
PREFIX = "stackyard"
ADDRESS = "127.0.0.1:4711"
DAY = 24 * 3600
API, WEB = "lab/api:1", "lab/web:1"


class Store(Registry):
    """A registry's directory, in the layout that docker-registry writes."""

    def __init__(self, top: Path) -> None:
        """Take its directory."""
        self.top = top
        self.layout = top / "docker/registry/v2"
        self.refused: set[str] = set()

    def receive(self, name: str, image: str) -> None:
        """Keep an image: a tag with its manifest's digest, and two layers, one of them its own."""
        assert name.startswith(f"{ADDRESS}/{PREFIX}/"), name
        repository, _, tag = name.removeprefix(f"{ADDRESS}/").rpartition(":")
        place = self.layout / "repositories" / repository
        (place / "_uploads/half").mkdir(parents=True, exist_ok=True)
        if tag in self.refused or repository.rpartition("/")[2] in self.refused:
            raise FailureError("#1 waiting\ndenied: no space left on device")
        (place / "_uploads/half").rmdir()
        link = place / "_manifests/tags" / tag / "current/link"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(f"sha256:manifest-of-{image}\n")
        for layer in ("base", image.removeprefix("sha256:")):
            (place / "_layers/sha256" / layer).mkdir(parents=True, exist_ok=True)
            blob = self.layout / "blobs/sha256" / layer[:2] / layer
            blob.mkdir(parents=True, exist_ok=True)
            (blob / "data").touch()

    def tags(self) -> list[str]:
        """Return the references that it has."""
        tags = (self.layout / "repositories" / PREFIX).glob("**/_manifests/tags/*")
        start = self.layout / "repositories" / PREFIX
        return sorted(f"{each.parents[2].relative_to(start)}:{each.name}" for each in tags)

    def layers(self, repository: str) -> list[str]:
        """Return the layers that a repository names."""
        place = self.layout / "repositories" / PREFIX / repository
        return sorted(path.name for path in (place / "_layers/sha256").glob("*"))

    def collect(self) -> None:
        """Remove blobs of images that no tag names, as garbage-collect does."""
        links = self.layout.glob("repositories/**/tags/*/current/link")
        named = {"base", *(link.read_text().strip().rpartition(":")[2] for link in links)}
        for blob in list(self.layout.glob("blobs/sha256/*/*/data")):
            if blob.parent.name not in named:
                blob.unlink()


@dataclass
class Lab(Module):
    """A build host: its engine, its store, and docker-registry."""

    served: int = 0
    error: str = ""

    @property
    def store(self) -> Store:
        """The store."""
        assert isinstance(self.engine.registry, Store)
        return self.engine.registry

    def run_command(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run docker or docker-registry."""
        if command[0] == "docker":
            return self.engine.run_command(command)
        assert command[:3] == ["docker-registry", "garbage-collect", "--delete-untagged"]
        assert Path(command[3]).exists()
        if self.error:
            return 1, "", self.error
        self.store.collect()
        return 0, "", ""

    def offer(self, *references: str) -> dict[str, Any]:
        """Offer images; they are built where they are not."""
        for each in references:
            self.engine.images.setdefault(each, built(each))
        self.engine.clock.sleep(1)
        self.params = {"images": list(references), "prefix": PREFIX}
        registry_offer.time = self.engine.clock

        @contextmanager
        def registry(_: Any) -> Iterator[str]:
            self.served += 1
            (self.store.top / "push.yml").touch()
            yield ADDRESS

        registry_offer.registry = registry
        answer: dict[str, Any] = registry_offer.offer(self, self.store.top)
        return answer

    def refusal(self, *references: str) -> str:
        """Return why images could not be offered."""
        with pytest.raises(registry_offer.OfferError) as caught:
            self.offer(*references)
        return str(caught.value)


def built(reference: str) -> str:
    """Return the id of an image's first build."""
    return f"sha256:{reference.replace('/', '-').replace(':', '-')}"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A build host with an empty store."""
    return made(tmp_path)


def made(folder: Path) -> Lab:
    """Return a build host with an empty store."""
    engine = Engine()
    engine.registry = Store(folder / "store")
    return Lab(engine, {})


# What is pushed.


def test_images_that_the_store_lacks_are_pushed_and_their_digests_told(lab: Lab) -> None:
    answer = lab.offer(API, WEB)
    assert answer == {
        "digests": {each: f"sha256:manifest-of-{built(each)}" for each in (API, WEB)},
        "pushed": [API, WEB],
        "removed": [],
    }
    assert lab.store.tags() == [API, WEB]


def test_images_that_it_has_are_not_pushed_again(lab: Lab) -> None:
    first = lab.offer(API, WEB)
    again = lab.offer(API, WEB)
    assert again["pushed"] == []
    assert again["digests"] == first["digests"]
    assert lab.served == 1, "a registry ran for nothing"


def test_one_that_is_new_is_pushed_alone(lab: Lab) -> None:
    lab.offer(API)
    assert lab.offer(API, WEB)["pushed"] == [WEB]


def test_another_build_of_the_same_name_is_pushed(lab: Lab) -> None:
    lab.offer(API, WEB)
    lab.engine.images[API] = "sha256:rebuilt"
    answer = lab.offer(API, WEB)
    assert answer["pushed"] == [API]
    assert answer["digests"][API] == "sha256:manifest-of-sha256:rebuilt"


@pytest.mark.parametrize("link", ["", "sha256:other\n"])
def test_tag_that_the_store_lost_is_pushed_again(lab: Lab, link: str) -> None:
    first = lab.offer(API, WEB)
    path = next(lab.store.layout.glob("**/lab/api/_manifests/tags/1/current/link"))
    if link:
        path.write_text(link)
    else:
        path.unlink()
    answer = lab.offer(API, WEB)
    assert answer["pushed"] == [API]
    assert answer["digests"] == first["digests"]


@pytest.mark.parametrize("record", [None, "", "{", '{"a'])
def test_store_that_does_not_know_what_it_has_is_sent_all(lab: Lab, record: str | None) -> None:
    lab.offer(API, WEB)
    path = lab.store.top / "offers.json"
    if record is None:
        path.unlink()
    else:
        path.write_text(record)
    assert lab.offer(API, WEB)["pushed"] == [API, WEB]
    assert lab.store.tags() == [API, WEB]


# What stays in the store.


def test_newest_two_of_each_image_stay(lab: Lab) -> None:
    lab.offer(WEB)
    for number in range(1, 5):
        lab.engine.clock.sleep(DAY + 1)
        answer = lab.offer(f"lab/api:{number}")
    assert answer["removed"] == ["lab/api:2"]
    assert lab.store.tags() == ["lab/api:3", "lab/api:4", WEB]
    # With their layers, and those that others have too.
    assert lab.store.layers("lab/api") == ["base", "lab-api-3", "lab-api-4"]


@pytest.mark.parametrize(("seconds", "stays"), [(DAY, True), (DAY + 1, False)])
def test_what_was_offered_within_a_day_stays(lab: Lab, seconds: int, stays: bool) -> None:
    lab.offer("lab/api:1")
    lab.offer("lab/api:2")
    # A second passes with each.
    lab.engine.clock.sleep(seconds - 2)
    lab.offer("lab/api:3")
    assert ("lab/api:1" in lab.store.tags()) is stays
    assert set(lab.store.tags()) - {"lab/api:1"} == {"lab/api:2", "lab/api:3"}


def test_offer_without_a_push_keeps_an_image_young(lab: Lab) -> None:
    for number in (1, 2, 3):
        lab.offer(f"lab/api:{number}")
    lab.engine.clock.sleep(2 * DAY)
    assert lab.offer("lab/api:1")["removed"] == []
    lab.offer("lab/api:4")
    assert lab.store.tags() == ["lab/api:1", "lab/api:4"]


def test_nothing_is_removed_where_nothing_was_pushed(lab: Lab) -> None:
    for number in (1, 2, 3):
        lab.offer(f"lab/api:{number}")
    lab.engine.clock.sleep(2 * DAY)
    assert lab.offer("lab/api:3")["removed"] == []
    assert len(lab.store.tags()) == 3


def test_tag_that_a_killed_run_did_not_note_is_removed(lab: Lab) -> None:
    lab.offer(API)
    lab.store.receive(f"{ADDRESS}/{PREFIX}/lab/api:unknown", "sha256:unknown")
    assert lab.offer(WEB)["removed"] == ["lab/api:unknown"]
    assert lab.store.tags() == [API, WEB]


def test_layers_that_are_gone_are_not_named_any_more(lab: Lab) -> None:
    """Else the engine would not send them the next time that they are needed."""
    for number in (1, 2, 3):
        lab.engine.clock.sleep(2 * DAY)
        lab.offer(f"lab/api:{number}")
    assert lab.store.layers("lab/api") == ["base", "lab-api-2", "lab-api-3"]


def test_what_a_killed_push_sent_half_is_removed_before_the_next(lab: Lab) -> None:
    lab.store.refused = {"api"}
    lab.refusal(API)
    half = lab.store.layout / f"repositories/{PREFIX}/lab/api/_uploads/half"
    assert half.exists()
    lab.offer(WEB)
    assert not half.exists()


@given(
    offers=st.lists(
        st.tuples(st.integers(0, 3 * DAY), st.lists(
            st.tuples(st.sampled_from(["api", "web"]), st.integers(1, 4)), min_size=1, max_size=3,
        )),
        max_size=8,
    )
)  # fmt: skip
def test_newest_and_those_of_a_day_are_there_whatever_was_offered(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[int, list[tuple[str, int]]]]
) -> None:
    lab = made(tmp_path_factory.mktemp("host"))
    offered: dict[str, float] = {}
    for pause, images in offers:
        lab.engine.clock.sleep(pause)
        references = [f"lab/{name}:{tag}" for name, tag in dict.fromkeys(images)]
        answer = lab.offer(*references)
        offered |= dict.fromkeys(references, lab.engine.clock.now)
        tags = set(lab.store.tags())
        assert set(references) <= tags
        assert all(answer["digests"][each].startswith("sha256:") for each in references)
        assert not set(answer["removed"]) & tags
        young = {each for each, at in offered.items() if lab.engine.clock.now - at <= DAY}
        assert young <= tags
        if answer["pushed"]:
            for name in ("api", "web"):
                mine = {each: at for each, at in offered.items() if f"/{name}:" in each}
                there = [each for each in tags if f"/{name}:" in each]
                assert len(there) >= min(2, len(mine))
                assert len(there) <= max(2, len(young))
        offered = {each: at for each, at in offered.items() if each in tags}
        assert set(offered) == tags


# What a failure leaves.


def test_push_that_fails_says_why_and_is_done_again(lab: Lab) -> None:
    lab.store.refused = {"web"}
    assert lab.refusal(API, WEB) == "docker push --quiet: denied: no space left on device"
    assert not (lab.store.top / "offers.json").exists()
    lab.store.refused = set()
    assert lab.offer(API, WEB)["pushed"] == [API, WEB]


def test_image_that_the_engine_lacks_is_named_before_anything_is_pushed(lab: Lab) -> None:
    lab.engine.images = {API: "sha256:1"}
    lab.engine.failures = {f"image inspect -f {{{{.Id}}}} {WEB}": f"Error: No such image: {WEB}"}
    assert lab.refusal(API, WEB) == f"docker image inspect: Error: No such image: {WEB}"
    assert lab.served == 0


def test_names_that_images_are_pushed_by_are_gone_whatever_happened(lab: Lab) -> None:
    lab.engine.images = {
        f"127.0.0.1:9/{PREFIX}/lab/api:0": "sha256:left",
        f"127.0.0.1:9/{PREFIX}er/lab/api:0": "sha256:other",
        f"10.0.0.1:9/{PREFIX}/lab/api:0": "sha256:other",
        f"{PREFIX}/lab/api:0": "sha256:other",
    }
    there = set(lab.engine.images) - {f"127.0.0.1:9/{PREFIX}/lab/api:0"}
    lab.store.refused = {"web"}
    lab.refusal(API, WEB)
    assert set(lab.engine.images) == {*there, API, WEB}


def test_what_was_pushed_is_noted_though_the_layers_could_not_be_removed(lab: Lab) -> None:
    for number in (1, 2):
        lab.offer(f"lab/api:{number}")
    lab.engine.clock.sleep(2 * DAY)
    lab.error = "time=noon level=info msg=marked\nfailed to garbage collect: broken link"
    assert lab.refusal("lab/api:3") == (
        "docker-registry garbage-collect: failed to garbage collect: broken link"
    )
    noted = json.loads((lab.store.top / "offers.json").read_text())
    assert set(noted) == {"lab/api:2", "lab/api:3"}


# The registry itself.


@pytest.mark.parametrize(("said", "reason"), [
    ("", "no word of why"),
    ("time=noon level=info msg=starting\nbind: address already in use\n", "bind: address already"),
])  # fmt: skip
def test_registry_that_ends_says_why(tmp_path: Path, said: str, reason: str) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    address = f"127.0.0.1:{registry_offer.free_port()}"
    with subprocess.Popen(["false"]) as process:
        process.wait()
        with pytest.raises(registry_offer.OfferError, match=f"does not serve {address}: {reason}"):
            registry_offer.wait_for(address, process, log)


def test_registry_that_listens_is_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        with socket.create_server(("127.0.0.1", 0)) as server:
            registry_offer.wait_for(f"127.0.0.1:{server.getsockname()[1]}", process, tmp_path)
        process.kill()


def test_configuration_is_of_the_store_and_loopback(lab: Lab) -> None:
    store = registry_offer.Store(lab.store.top, PREFIX)
    text = json.loads(store.configuration(ADDRESS))
    assert text["storage"] == {"filesystem": {"rootdirectory": str(lab.store.top)}}
    assert text["http"] == {"addr": ADDRESS}


def test_second_run_waits_for_the_first(tmp_path: Path) -> None:
    order = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with registry_offer.held(tmp_path / "store/lock"):
            order.append("second")

    with registry_offer.held(tmp_path / "store/lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(10)
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
