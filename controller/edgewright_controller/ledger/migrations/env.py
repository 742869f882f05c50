"""alembic's entry: runs the migrations on the connection that `migrate.to_head` holds open."""

from alembic import context

from edgewright_controller.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    # The caller's transaction holds everything: a crash in the middle leaves the ledger as it was.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
