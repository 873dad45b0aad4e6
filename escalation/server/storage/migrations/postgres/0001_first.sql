-- Everything that orchestrators keep together. Values that are read whole are JSON text; columns beside them
-- are what is looked up. Times are Unix nanoseconds. Names compare byte by byte, whatever the locale.

-- The one row that every transaction reads first: the schema's version, and how many transactions have written.
CREATE TABLE orchestrator (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    number bigint NOT NULL
);
INSERT INTO orchestrator (version, number) VALUES (1, 0);

-- The last transaction of each process: how it learns whether a COMMIT whose answer was lost had happened.
CREATE TABLE writers (
    writer uuid PRIMARY KEY,
    number bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);

-- `changed` is the number of the transaction that wrote a row last: how a process learns what others wrote.
CREATE FUNCTION orchestrator_mark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := coalesce(nullif(current_setting('nanobot.number', true), ''), '0')::bigint;
    RETURN NEW;
END $$;

-- One numbering of reports of one host; `highest` is the last number that was kept.
CREATE TABLE boots (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id text COLLATE "C" NOT NULL,
    boot_id text COLLATE "C" NOT NULL,
    highest bigint NOT NULL,
    UNIQUE (agent_id, boot_id)
);

-- Reports as they came over the wire; the key is what makes a second delivery harmless.
CREATE TABLE reports (
    boot bigint NOT NULL,
    sequence bigint NOT NULL,
    created_ns bigint NOT NULL,
    received_ns bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (boot, sequence)
);
CREATE INDEX reports_oldest ON reports (received_ns);

CREATE TABLE hosts (
    agent_id text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    changed bigint NOT NULL DEFAULT 0
);
CREATE INDEX hosts_changed ON hosts (changed);
CREATE TRIGGER hosts_mark BEFORE INSERT OR UPDATE ON hosts
FOR EACH ROW EXECUTE FUNCTION orchestrator_mark();

CREATE TABLE cases (
    agent_id text COLLATE "C" NOT NULL,
    case_id text COLLATE "C" NOT NULL,
    incident_id text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    cleared_boot_id text,
    cleared_sequence bigint,
    cleared_created_ns bigint,
    PRIMARY KEY (agent_id, case_id)
);

CREATE TABLE incidents (
    id text COLLATE "C" PRIMARY KEY,
    agent_id text COLLATE "C" NOT NULL,
    fault_class text COLLATE "C" NOT NULL,
    fault_number bigint,
    subject_kind text COLLATE "C" NOT NULL,
    subject_name text COLLATE "C" NOT NULL,
    open smallint NOT NULL,
    last_seen_ns bigint NOT NULL,
    value text NOT NULL,
    drill smallint NOT NULL,
    changed bigint NOT NULL DEFAULT 0
);
-- At most one open incident per host, fault class and subject, and one drill.
CREATE UNIQUE INDEX incidents_open ON incidents (
    agent_id, fault_class, coalesce(fault_number, -1), subject_kind, subject_name, drill
) WHERE open = 1;
CREATE INDEX incidents_newest ON incidents (open, last_seen_ns);
CREATE INDEX incidents_changed ON incidents (changed);
CREATE TRIGGER incidents_mark BEFORE INSERT OR UPDATE ON incidents
FOR EACH ROW EXECUTE FUNCTION orchestrator_mark();

CREATE TABLE recommendations (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    incident_id text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    fault_class text COLLATE "C" NOT NULL,
    action_kind text COLLATE "C" NOT NULL,
    value text NOT NULL,
    changed bigint NOT NULL DEFAULT 0
);
CREATE INDEX recommendations_of_incident ON recommendations (incident_id, position);
CREATE INDEX recommendations_in_state ON recommendations (state, position);
CREATE INDEX recommendations_outcome ON recommendations (fault_class, action_kind, state);
CREATE INDEX recommendations_changed ON recommendations (changed);
CREATE TRIGGER recommendations_mark BEFORE INSERT OR UPDATE ON recommendations
FOR EACH ROW EXECUTE FUNCTION orchestrator_mark();

CREATE TABLE audit (
    number bigint PRIMARY KEY,
    at_ns bigint NOT NULL,
    actor text NOT NULL,
    verb text NOT NULL,
    object_id text NOT NULL,
    detail text NOT NULL,
    previous text NOT NULL,
    digest text NOT NULL UNIQUE
);
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
