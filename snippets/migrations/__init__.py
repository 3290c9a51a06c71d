"""Change the schema of a database that is in use, without losing a row."""
