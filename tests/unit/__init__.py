"""What needs no root, no engine and no docker command."""
