"""Who is told what: the outbox, its routes, and what sends it."""
