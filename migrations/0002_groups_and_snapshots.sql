-- Named sets of instances; named trees that instances can be made from; and what an instance still
-- to be made is to be made from. Names are labels of motefarm-core, unique per owner.

CREATE TABLE groups (
    owner      TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT;

CREATE TABLE group_members (
    owner       TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, group_name, instance_id),
    FOREIGN KEY (owner, group_name) REFERENCES groups (owner, name) ON DELETE CASCADE
) STRICT;

CREATE INDEX group_members_instance ON group_members (instance_id);

-- Whichever way an instance ends, it leaves its groups.
CREATE TRIGGER instances_leave_groups AFTER UPDATE OF state ON instances WHEN NEW.state IN ('ending', 'gone')
BEGIN
    DELETE FROM group_members WHERE instance_id = NEW.id;
END;

CREATE TABLE snapshots (
    owner      TEXT NOT NULL,
    name       TEXT NOT NULL,
    -- Where it was taken from and goes to, in the work directory; empty: all of it.
    dir        TEXT NOT NULL,
    -- Digest of the root Directory. As long as this row is here the whole tree is pinned.
    root_hash  BLOB NOT NULL CHECK (length(root_hash) = 32),
    root_size  INTEGER NOT NULL,
    files      INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    host_type  TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    -- When content of it was found missing; NULL: whole.
    damaged_ms INTEGER,
    PRIMARY KEY (owner, name)
) STRICT;

-- The tree an instance is to begin with, as it was when it was asked for: all or none are set.
ALTER TABLE instances ADD COLUMN snapshot_name TEXT;
ALTER TABLE instances ADD COLUMN snapshot_dir TEXT;
ALTER TABLE instances ADD COLUMN snapshot_hash BLOB;
ALTER TABLE instances ADD COLUMN snapshot_size INTEGER;
-- What there is to say of an end besides its reason.
ALTER TABLE instances ADD COLUMN end_detail TEXT;

-- Asked for twice a second with the state as a parameter, which a partial index can not serve.
CREATE INDEX instances_by_state ON instances (state, seq);
DROP INDEX instances_state;
CREATE INDEX instances_owner ON instances (owner) WHERE state <> 'gone';
