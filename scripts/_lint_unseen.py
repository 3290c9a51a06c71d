"""Mistakes that no rule finds, and rules that need more than the wrong lines: each says why."""

UNSEEN: dict[str, str] = {
    "memory-database-for-two-sessions": "whether two sessions are open at once shows at run time",
    "read-then-write": "reading before writing is right on every database but SQLite, and there "
    "with BEGIN IMMEDIATE, which is set on the engine",
    "answer-that-repeats-the-input": "FastAPI does it by default; whether NaN can arrive is up to "
    "the types of all request bodies and their validators",
    "uuid-over-char": "the type that the column has in the database stands in no code",
    "orphans-without-foreign-keys": "the statement is right; the pragma that is missing is that of "
    "sqlite-without-hooks",
    "batch-with-foreign-keys-on": "which engine a revision runs on, and whether rows refer to the "
    "table, shows at run time",
    "batch-over-a-generated-column": "another revision made the generated column, or none did",
    "index-that-a-key-needs": "whether a foreign key uses the index is known to the server alone",
    "readiness-through-the-requests-pool": "whose pool an engine has is decided where it is made",
    "load-rows-with-their-ids": "whether the rows have ids is in their values",
}

# These have a rule, but it needs more than the wrong lines: the file in which to look.
ELSEWHERE: dict[str, str] = {
    "greenlet-left-to-luck": "pyproject.toml and requirements*.txt",
    "sqlite-without-hooks": "an engine whose URL is written out, in a project without hooks",
    "type-without-import": "env.py with its script.py.mako, and revisions",
    "enum-left-behind": "a revision, whose upgrade makes the type",
    "engine-at-import": "the top level of a module",
}
