-- Who signed in by OpenID Connect: an issuer's subject is one user, whatever it calls itself later; and
-- which of its id tokens were used, so that none is used twice (kept until it would expire anyway).

CREATE TABLE oidc_subjects (
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    user_name  TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT;

CREATE INDEX oidc_subjects_user ON oidc_subjects (user_name);

CREATE TABLE oidc_used (
    -- SHA-256 of the id token.
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX oidc_used_expiry ON oidc_used (expires_ms);
