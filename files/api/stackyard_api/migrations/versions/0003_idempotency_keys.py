"""Which items were created under which key, for a day."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table, and the index that finds what has had its day."""
    op.execute("""
        CREATE TABLE idempotency_keys (
            key        text PRIMARY KEY,
            request    bytea NOT NULL,
            answer     bytea,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX ON idempotency_keys (created_at)")
