"""A machine that cannot be provisioned is refused, and told what it lacks.

Where the machine itself has to be a worse one, the run has a mount namespace of its own in which
a file of the machine is another: nobody else sees it, and it is gone with the run.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from .conftest import INVENTORY, Run, play, variables

NOBODY = 65534
CAP_DAC_READ_SEARCH = 2


def play_with_mounts(mounts: dict[str, Path]) -> Run:
    """Run site.yml where each path of the machine is the given one."""
    commands = [f"mount --bind {shlex.quote(str(new))} {old}" for old, new in mounts.items()]
    script = " && ".join([*commands, 'exec "$@"'])
    before = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]
    return play(*variables(env="prod"), before=before)


@pytest.mark.usefixtures("nothing_altered")
@pytest.mark.parametrize(("content", "reason"), [
    ('{"live-restore": true,}', "line 1"),
    ('["live-restore"]', "not an object"),
    ("\udcff", "utf-8"),
])  # fmt: skip
def test_unreadable_daemon_json_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "daemon.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    run = play_with_mounts({"/etc/docker": tmp_path})
    run.assert_refused(["/etc/docker/daemon.json", reason, "Mend that file"])


@pytest.mark.usefixtures("nothing_altered")
def test_unsupported_system_without_an_engine_is_refused(tmp_path: Path) -> None:
    # Debian's mark is among what Ansible goes by, beside os-release.
    release = tmp_path / "os-release"
    release.write_text('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="20.04"\n')
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    hidden = {
        path: nothing
        for path in ("/usr/bin/docker", "/usr/sbin/dockerd", "/usr/local/bin/docker")
        if Path(path).exists()
    }
    run = play_with_mounts({"/etc/os-release": release, **hidden})
    run.assert_refused(
        ["20.04 has Docker Engine none, Compose none, Buildx none", "or use Debian 12 or 13"]
    )


def reading_all() -> list[str]:
    """Return options of setpriv with which a user can read what is below root's home, if any do.

    The checkout, or the Python of its virtual environment, may be there.
    """
    allowed = re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text(encoding="ascii"))
    if allowed is None or not int(allowed[1], 16) & 1 << CAP_DAC_READ_SEARCH:
        return []
    return ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.mark.usefixtures("nothing_altered")
def test_user_without_root_and_sudo_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY.read_text())
    home.chmod(0o777)
    inventory.chmod(0o644)
    tmp_path.chmod(0o711)
    # pytest's own directories are for their owner alone.
    for path in tmp_path.parents[:2]:
        path.chmod(0o711)
    run = play(
        *variables(env="prod"),
        inventory=inventory,
        before=[
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            *reading_all(),
        ],
        environment={"HOME": str(home), "ANSIBLE_LOCAL_TEMP": str(home / "tmp")},
    )
    run.assert_refused(["this user is neither root nor allowed sudo", "ansible-playbook -K"])


@pytest.mark.usefixtures("nothing_altered")
def test_machine_without_python_is_refused() -> None:
    run = play(*variables(env="prod", ansible_python_interpreter="/usr/bin/python-none"))
    run.assert_refused(
        ["has no /usr/bin/python-none that runs (", "not found", "apt-get install python3"]
    )
