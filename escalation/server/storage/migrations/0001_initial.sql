-- Everything that the orchestrator keeps. Values that are read whole are JSON; columns beside them are what
-- is looked up. Times are Unix nanoseconds.

-- One numbering of reports of one host; `highest` is the last number that was kept.
CREATE TABLE boots (
    number INTEGER PRIMARY KEY,
    agent_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    highest INTEGER NOT NULL,
    UNIQUE (agent_id, boot_id)
) STRICT;

-- Reports as they came over the wire; the unique pair is what makes a second delivery harmless.
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    boot INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    received_ns INTEGER NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (boot, sequence)
) STRICT;

CREATE TABLE hosts (
    agent_id TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE cases (
    agent_id TEXT NOT NULL,
    case_id TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    cleared_boot_id TEXT,
    cleared_sequence INTEGER,
    cleared_created_ns INTEGER,
    PRIMARY KEY (agent_id, case_id)
) STRICT;

CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    fault_class TEXT NOT NULL,
    fault_number INTEGER,
    subject_kind TEXT NOT NULL,
    subject_name TEXT NOT NULL,
    open INTEGER NOT NULL,
    last_seen_ns INTEGER NOT NULL,
    value TEXT NOT NULL
) STRICT;

-- At most one open incident per host, fault class and subject.
CREATE UNIQUE INDEX incidents_open ON incidents (
    agent_id, fault_class, ifnull(fault_number, -1), subject_kind, subject_name
) WHERE open = 1;
CREATE INDEX incidents_newest ON incidents (open, last_seen_ns);

CREATE TABLE recommendations (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    incident_id TEXT NOT NULL,
    state TEXT NOT NULL,
    fault_class TEXT NOT NULL,
    action_kind TEXT NOT NULL,
    value TEXT NOT NULL
) STRICT;
CREATE INDEX recommendations_of_incident ON recommendations (incident_id, position);
CREATE INDEX recommendations_in_state ON recommendations (state, position);
CREATE INDEX recommendations_outcome ON recommendations (fault_class, action_kind, state);

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,
    actor TEXT NOT NULL,
    verb TEXT NOT NULL,
    object_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Written to when a write has failed before, to learn whether writing works again.
CREATE TABLE probe (attempts INTEGER NOT NULL) STRICT;
INSERT INTO probe VALUES (0);
