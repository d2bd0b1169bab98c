"""What Alembic runs: all migrations in one transaction, with the version that they lead to."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["table"],
)
with context.begin_transaction():
    context.run_migrations()
