"""Action of registry_pull: opens the way from the machine's loopback to the build host's store.

For as long as the module runs, and no longer: a registry serves the store on the build host, read
only, at a socket of one user there; where that is another machine, SSH brings that socket to the
controller; and the module's own SSH connection brings it to a port of the machine's loopback. All
of it hangs on pipes of this process, and ends with it.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVE = Path(__file__).parents[1] / "files" / "serve.sh"
SECONDS_TO_SERVE = 20
OTHERWISE = "or send archives, -e stack_images_distribution=archive"


def configuration(store: str, network: str, address: str) -> str:
    """Return the configuration of a registry that nobody can write to; JSON is YAML too."""
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": store},
                "maintenance": {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}},
            },
            "http": {"net": network, "addr": address},
        }
    )


def answers(address: str | tuple[str, int]) -> bool:
    """Tell whether a registry answers at the path of a socket, or at a host and port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    try:
        with socket.socket(family) as client:
            client.settimeout(5)
            client.connect(address)
            client.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n")
            return b" 200 " in client.recv(64)
    except OSError:
        return False


@contextmanager
def running(command: Sequence[str | bytes], errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends, which ends its standard input too."""
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stream
        )
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ActionModule(ActionBase):
    """The action."""

    _VALID_ARGS = frozenset(("images", "prefix", "builder", "store"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Pull the images, `reference: digest`; without any, only try the way to the machine."""
        result = super().run(tmp, task_vars)
        given = self._task.args
        images = given.get("images") or {}
        asked: dict[str, Any] = {"prefix": given["prefix"], "images": images}
        if self._connection.transport not in ("ssh", "local"):
            raise AnsibleActionFail(
                f"The connection to this machine is {self._connection.transport}, and its way to a"
                f" registry is SSH: set ansible_connection=ssh, {OTHERWISE}."
            )

        def ask(**more: Any) -> dict[str, Any]:
            answer = self._execute_module("registry_pull", asked | more, task_vars=task_vars)
            return result | answer

        port = ask(images={})
        if port.get("failed"):
            return port
        if self._connection.transport == "local":
            # Its loopback is the controller's.
            if not images:
                return result
            with self._registry(task_vars, f"127.0.0.1:{port['port']}"):
                return ask(port=port["port"])
        with self._folder() as folder:
            end = f"{folder}/registry"
            # In a connection of its own: a forward on a shared one would outlive this.
            extra = self._connection.get_option("ssh_extra_args") or ""
            way = f"-S none -o ExitOnForwardFailure=yes -R 127.0.0.1:{port['port']}:{end}"
            self._connection.set_option("ssh_extra_args", f"{extra} {way}")
            try:
                if not images:
                    return ask(port=port["port"])
                with self._registry(task_vars, end):
                    return ask(port=port["port"])
            except AnsibleConnectionFailure as error:
                if "forwarding failed" not in str(error):
                    raise
                raise AnsibleActionFail(
                    "sshd forwards no port, and images are sent through one: set AllowTcpForwarding"
                    f" to yes in /etc/ssh/sshd_config and reload sshd, {OTHERWISE}."
                ) from None

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Make a folder of this user's alone, in the run's own."""
        folder = Path(tempfile.mkdtemp(dir=constants.DEFAULT_LOCAL_TMP))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _registry(self, task_vars: dict[str, Any] | None, end: str) -> Iterator[None]:
        """Have the build host's registry answer on the controller, at a socket or host:port."""
        assert task_vars is not None
        builder, store = self._task.args["builder"], self._task.args["store"]
        variables = task_vars["hostvars"][builder]
        host, _, port = end.rpartition(":")
        is_socket = end.startswith("/")
        with self._folder() as folder:
            serve = ["sh", "-c", SERVE.read_text("utf-8"), "serve.sh"]
            command: Sequence[str | bytes]
            if variables.get("ansible_connection") == "local":
                network = "unix" if is_socket else "tcp"
                command = [*serve, str(folder / "serve"), configuration(store, network, end)]
            else:
                there = f"/tmp/stackyard-{secrets.token_hex(8)}"
                given = configuration(store, "unix", f"{there}/registry")
                way = f"-S none -o ExitOnForwardFailure=yes -L {end}:{there}/registry"
                command = self._ssh(variables, way, shlex.join([*serve, there, given]))
            errors = folder / "errors"
            with running(command, errors) as process:
                limit = time.monotonic() + SECONDS_TO_SERVE
                while not answers(end if is_socket else (host, int(port))):
                    if process.poll() is not None or time.monotonic() > limit:
                        words = errors.read_text("utf-8", "replace").strip().splitlines()
                        raise AnsibleActionFail(
                            f"The registry on {builder} does not answer:"
                            f" {words[-1] if words else 'no word of why'}"
                        )
                    time.sleep(0.05)
                yield

    def _ssh(self, variables: Any, way: str, command: str) -> list[bytes]:
        """Return a command for another machine of the inventory, as Ansible would run it there."""
        connection = connection_loader.get("ssh", self._play_context)
        names = constants.config.get_plugin_vars("connection", "ssh")
        given = {name: variables[name] for name in names if name in variables}
        connection.set_options(var_options=given)
        extra = connection.get_option("ssh_extra_args") or ""
        connection.set_option("ssh_extra_args", f"{extra} {way}")
        ssh: str = connection.get_option("ssh_executable")
        built: list[bytes] = connection._build_command(
            ssh, "ssh", "-T", connection.get_option("host"), command
        )
        return built
