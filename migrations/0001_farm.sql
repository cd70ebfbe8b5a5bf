-- The farm's whole state: who may do what, which instances are leased, what runs on them, which
-- buildlets there are, and who did what. Times are Unix milliseconds (columns end in _ms); ids are
-- canonical UUID text; states are the words of motefarm-core.

CREATE TABLE users (
    name       TEXT NOT NULL PRIMARY KEY,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'user')),
    created_ms INTEGER NOT NULL
) STRICT;

-- Secrets are never stored: only their SHA-256.
CREATE TABLE tokens (
    hash         BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    user_name    TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    expires_ms   INTEGER,
    last_used_ms INTEGER,
    UNIQUE (user_name, name)
) STRICT;

CREATE TABLE join_tokens (
    id         TEXT NOT NULL PRIMARY KEY,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    host_type  TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    one_time   INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE buildlets (
    id            TEXT NOT NULL PRIMARY KEY,
    hostname      TEXT NOT NULL,
    host_type     TEXT NOT NULL,
    provider      TEXT NOT NULL,
    slots         INTEGER NOT NULL,
    version       TEXT NOT NULL,
    -- Which token let it in; a buildlet that once joined comes back as long as that is not revoked.
    join_token_id TEXT REFERENCES join_tokens (id),
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE instances (
    -- Order of asking: what the wait queue goes by.
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    owner       TEXT NOT NULL,
    host_type   TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'starting', 'ready', 'lost', 'ending', 'gone')),
    buildlet_id TEXT REFERENCES buildlets (id),
    work_dir    TEXT NOT NULL DEFAULT '',
    -- While it waits: when its asker was last seen to listen.
    watched_ms  INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL,
    end_reason  TEXT,
    ended_ms    INTEGER
) STRICT;

CREATE UNIQUE INDEX instances_live_name ON instances (name) WHERE state IN ('queued', 'starting', 'ready', 'lost');
CREATE INDEX instances_state ON instances (state) WHERE state <> 'gone';
CREATE INDEX instances_buildlet ON instances (buildlet_id) WHERE state <> 'gone';

CREATE TABLE leases (
    instance_id        TEXT NOT NULL PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    -- Terms are fixed when the instance is asked for; the times when it is ready.
    idle_timeout_ms    INTEGER NOT NULL,
    max_lifetime_ms    INTEGER,
    unwatched_limit_ms INTEGER NOT NULL,
    granted_ms         INTEGER,
    expires_ms         INTEGER
) STRICT;

CREATE INDEX leases_expiry ON leases (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE executions (
    id          TEXT NOT NULL PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    -- mote.v1.ExecSpec as it came: a repeat must be equal byte for byte.
    spec        BLOB NOT NULL,
    created_ms  INTEGER NOT NULL,
    -- When a reader was last seen.
    watched_ms  INTEGER NOT NULL,
    -- mote.v1.ExecOutcome; NULL while it runs.
    outcome     BLOB
) STRICT;

CREATE INDEX executions_instance ON executions (instance_id);
CREATE INDEX executions_running ON executions (instance_id) WHERE outcome IS NULL;

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX audit_time ON audit (at_ms);
