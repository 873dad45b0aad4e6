-- When time alone may change a recommendation: from due_ns on, or when the clock stands before since_ns. Each
-- second reads what may be due, and not ten thousand that are not.
ALTER TABLE recommendations ADD COLUMN due_ns bigint;
ALTER TABLE recommendations ADD COLUMN since_ns bigint;
UPDATE recommendations SET
    due_ns = (value::json ->> 'approve_by_ns')::bigint,
    since_ns = created_ns - 60000000000
WHERE state = 'proposed';
UPDATE recommendations SET
    due_ns = (value::json ->> 'execute_by_ns')::bigint,
    since_ns = (value::json ->> 'decided_ns')::bigint - 60000000000
WHERE state = 'approved';
UPDATE recommendations SET due_ns = 0, since_ns = 0
WHERE state = 'done' OR (state IN ('proposed', 'approved') AND (due_ns IS NULL OR since_ns IS NULL));
CREATE INDEX recommendations_due ON recommendations (due_ns) WHERE due_ns IS NOT NULL;
CREATE INDEX recommendations_since ON recommendations (since_ns) WHERE since_ns IS NOT NULL;
