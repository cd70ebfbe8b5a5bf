-- The action cache of the Remote Execution API: what is stored under a digest that only clients can read
-- anything into. Content is named in it, not held: an entry is good for as long as the store has that.

CREATE TABLE action_results (
    action_hash BLOB NOT NULL CHECK (length(action_hash) = 32),
    action_size INTEGER NOT NULL,
    -- An encoded ActionResult.
    result      BLOB NOT NULL,
    -- The last use, to a few minutes.
    used_ms     INTEGER NOT NULL,
    PRIMARY KEY (action_hash, action_size)
) STRICT;

-- Who goes when there are too many.
CREATE INDEX action_results_used ON action_results (used_ms);
