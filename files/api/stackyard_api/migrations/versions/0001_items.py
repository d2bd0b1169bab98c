"""Items."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table, unless it is there since before Alembic kept the version."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS items (
            id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name       text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
            note       text CHECK (char_length(note) <= 2000),
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("DROP TABLE IF EXISTS schema_migrations")
