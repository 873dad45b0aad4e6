"""Where it is kept: one ledger in SQL, on SQLite or PostgreSQL, behind one interface."""
