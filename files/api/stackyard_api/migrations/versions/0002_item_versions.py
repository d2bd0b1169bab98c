"""A number that each change of an item raises: its entity tag."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; PostgreSQL does so without rewriting the table."""
    op.execute("ALTER TABLE items ADD COLUMN version bigint NOT NULL DEFAULT 1")
