-- What people are to be told: written with the change that it tells, deleted when it is old and over.
-- The id is made from incident, event and receiver, so that nothing is told twice.
CREATE TABLE notices (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    receiver text COLLATE "C" NOT NULL,
    incident_id text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    created_ns bigint NOT NULL,
    due_ns bigint NOT NULL,
    value text NOT NULL
);
CREATE INDEX notices_due ON notices (state, receiver, due_ns);
CREATE INDEX notices_of_incident ON notices (incident_id);
