"""The line of a failed command's output that names its cause.

A command's last words are often a consequence: the engine continues an error in a line of its own,
a build ends with the command that failed rather than with what that said, and docker closes with a
hint to its help.
"""

from __future__ import annotations

import re

LONGEST_CAUSE = 400
# What goes before an error: progress of Compose, BuildKit and mmdebstrap, and warnings.
NOISE = re.compile(
    r"(Container|Network|Volume|Image|Service) \S+ +[A-Z][a-z]+\b"
    r"|time=\S+ level=(debug|info|warning)\b|\[?WARN(ING)?\b|W: |I: |#\d+ |-{3,}$",
    re.ASCII,
)
ERROR = re.compile(r"(?:\S+: )?(?:\[?(?:error|fatal|panic)\b|E: |ERR )", re.IGNORECASE)
# BuildKit's report of the step that failed; each line of its output begins with a time.
STEP = re.compile(r"^ > \[.*\].*:\n(.*?)^-{3,}$", re.MULTILINE | re.DOTALL)
# A container's or an image's, of which twelve characters do.
IDENTITY = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
TIME = re.compile(r"^\d+\.\d+ ", re.MULTILINE)


def root_cause(output: str, otherwise: str) -> str:
    """Return the first error that a command's output names, in one line of at most 400 characters.

    That is the first line that begins like an error, or else the first that is neither progress nor
    a warning. Of a build's step that failed without an error it is the last line, which that step
    ended with. `otherwise` stands for an output that says nothing.
    """
    step = STEP.search(output)
    text = TIME.sub("", step[1]) if step else output
    # The engine ends many errors with a line of its own, ": unknown".
    lines = [line.strip() for line in text.replace("\n: ", ": ").splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    said = [line for line in lines if not NOISE.match(line)]
    if step:
        said.reverse()
    cause = (errors or said or lines[-1:] or [otherwise])[0].removesuffix(": unknown")
    return " ".join(IDENTITY.sub(r"\1", cause).split())[:LONGEST_CAUSE]
