-- Who besides its owner may use an instance. Goes with the instance's row and with the user.

CREATE TABLE shares (
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    user_name   TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (instance_id, user_name)
) STRICT;

CREATE INDEX shares_user ON shares (user_name);

-- Filters of the audit, newest first.
CREATE INDEX audit_actor ON audit (actor, seq);
