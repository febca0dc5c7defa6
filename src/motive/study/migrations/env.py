"""Run by Alembic: migrate over the connection that `motive.study.database` hands in."""

from alembic import context

from motive.study.schema import metadata

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    # Two servers that start at once migrate one after the other.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7301)")
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
