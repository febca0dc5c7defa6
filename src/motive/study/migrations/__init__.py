"""Alembic migrations of a study's database."""
