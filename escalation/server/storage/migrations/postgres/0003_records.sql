-- What is noted beside incidents and recommendations; see records.py.
CREATE TABLE records (
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (kind, owner, key)
);
