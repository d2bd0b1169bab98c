"""What all checks on a lab machine share: options, the stack at hand, the promises' summary."""

pytest_plugins = ["tests.acceptance.plugin"]
