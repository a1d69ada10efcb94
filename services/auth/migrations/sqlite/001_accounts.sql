-- Times are milliseconds since 1970-01-01T00:00:00Z.

-- Without a hash the account is only reserved: its profile may not be made yet.
CREATE TABLE accounts (
    email         TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL UNIQUE,
    password_hash TEXT,
    created_at    INTEGER NOT NULL
) STRICT;

-- What one login began.
CREATE TABLE sessions (
    session_id TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE refresh_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    session_id TEXT    NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- By email rather than account: an unknown one must behave the same.
CREATE TABLE failed_logins (
    email         TEXT    NOT NULL PRIMARY KEY,
    failures      INTEGER NOT NULL,
    last_at       INTEGER NOT NULL,
    blocked_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    idempotency_key TEXT    NOT NULL PRIMARY KEY,
    user_id         TEXT    NOT NULL,
    display_name    TEXT    NOT NULL,
    attempts        INTEGER NOT NULL,
    due_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_by_due ON outbox (due_at);
