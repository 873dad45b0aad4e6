-- A fault that somebody made on purpose stands beside a real one of the same kind, and never takes its place.
ALTER TABLE incidents ADD COLUMN drill INTEGER NOT NULL DEFAULT 0;
DROP INDEX incidents_open;

-- At most one open incident per host, fault class and subject, and one drill.
CREATE UNIQUE INDEX incidents_open ON incidents (
    agent_id, fault_class, ifnull(fault_number, -1), subject_kind, subject_name, drill
) WHERE open = 1;
