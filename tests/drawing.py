"""The drawing of the stack, as it is promised: what every check compares with."""

from __future__ import annotations

# Who is on which network.
NETWORKS = {
    "gateway": {"ingress", "edge"},
    "frontend": {"edge", "frontend"},
    "api": {"frontend", "backend"},
    "database": {"backend"},
    "cache": {"backend"},
}
SERVICES = list(NETWORKS)
# Who waits for whose health.
NEEDS = {
    "gateway": {"frontend"},
    "frontend": {"api"},
    "api": {"database", "cache"},
    "database": set(),
    "cache": set(),
}
RESTART = {
    "gateway": "always",
    "frontend": "always",
    "api": "unless-stopped",
    "database": "on-failure",
    "cache": "unless-stopped",
}
