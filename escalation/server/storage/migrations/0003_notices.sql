-- What people are to be told: written with the change that it tells, deleted when it is old and over.
-- The id is made from incident, event and receiver, so that nothing is told twice.
CREATE TABLE notices (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    receiver TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    value TEXT NOT NULL
) STRICT;
CREATE INDEX notices_due ON notices (state, receiver, due_ns);
CREATE INDEX notices_of_incident ON notices (incident_id);
