"""The promises about a running stack, checked on the machine that runs it."""
