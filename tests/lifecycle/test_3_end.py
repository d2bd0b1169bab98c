"""Down keeps the data; destroy removes it, and only when told so by name."""

from __future__ import annotations

from .conftest import PROJECT, STACK_DIR, deploy, leftovers, play, request


def test_prod_over_dev_leaves_no_debug_network() -> None:
    deploy("dev")
    assert deploy("prod").code == 0
    assert len(leftovers()["networks"].split()) == 4


def test_down_keeps_the_data_and_up_brings_it_back() -> None:
    item = request("/items", {"name": "kept while down"})
    down = play("playbooks/down.yml")
    assert down.code == 0, down.output
    assert not leftovers()["containers"]
    assert not leftovers()["networks"]
    assert leftovers()["volumes"]
    assert play("playbooks/down.yml").changed == 0
    deploy("prod")
    assert request(f"/items/{item['id']}")["name"] == "kept while down"


def test_destroy_without_the_name_changes_nothing() -> None:
    before = leftovers()
    for confirm in ("", "yes", "stackyard"):
        run = play("playbooks/destroy.yml", "-e", f"confirm={confirm}")
        assert run.code != 0
        assert f"make destroy CONFIRM={PROJECT}" in run.output
        assert run.changed == 0
    assert leftovers() == before
    assert request("/health")["status"] == "ok"


def test_destroy_with_the_name_leaves_only_what_is_not_ours() -> None:
    foreign = STACK_DIR / "notes.txt"
    foreign.write_text("somebody's\n")
    run = play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}")
    assert run.code == 0, run.output
    assert not any(leftovers().values())
    assert [path.name for path in STACK_DIR.iterdir()] == ["notes.txt"]
    foreign.unlink()
    assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").code == 0
    assert not STACK_DIR.exists()
    assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").changed == 0
