"""Type a command at a terminal, and answer when what it shows calls for it.

JSON in: command, seconds, dialogue: [[what has to be shown first, what is typed then]]. JSON out:
its exit code, 124 where the time was over; all that was shown, without the terminal's own codes.
"""

import json
import os
import pty
import re
import select
import sys
import termios
import time

CODES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78])|[\r\x0e\x0f]")
TIME_OVER = 124


def type_in(command: str, dialogue: list[tuple[str, str]], seconds: float) -> tuple[int, str]:
    """Return the exit code and what was shown."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm"
        os.execlp("bash", "bash", "-c", command)
    termios.tcsetwinsize(terminal, (40, 160))
    end = time.monotonic() + seconds
    raw, answered = b"", 0
    while True:
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            # The terminal closes when this program ends, and hangs up on whatever runs there.
            return TIME_OVER, _text(raw)
        try:
            raw += os.read(terminal, 65536)
        except OSError:
            # Nobody has it open any more.
            break
        shown = _text(raw)
        if dialogue and dialogue[0][0] in shown[answered:]:
            os.write(terminal, dialogue.pop(0)[1].encode())
            answered = len(shown)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), _text(raw)


def _text(raw: bytes) -> str:
    return CODES.sub("", raw.decode(errors="replace"))


asked = json.loads(sys.argv[1])
print(json.dumps(type_in(asked["command"], asked["dialogue"], asked["seconds"])))
