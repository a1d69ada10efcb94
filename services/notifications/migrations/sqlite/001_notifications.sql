-- `sequence` orders notifications by arrival for all processes alike: SQLite
-- has one writer at a time, so a smaller number is never committed later.
CREATE TABLE notifications (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT    NOT NULL UNIQUE,
    user            TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    title           TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    webhook_url     TEXT,
    create_time     INTEGER NOT NULL, -- microseconds since 1970
    read_time       INTEGER,
    sender          TEXT    NOT NULL,
    idempotency_key TEXT
) STRICT;
CREATE INDEX notifications_by_user ON notifications (user, sequence);
CREATE INDEX notifications_unread ON notifications (user, sequence) WHERE read_time IS NULL;
CREATE UNIQUE INDEX notifications_by_key ON notifications (sender, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Webhooks that are still to be sent, or were given up. One that has arrived
-- is removed.
CREATE TABLE deliveries (
    notification INTEGER PRIMARY KEY REFERENCES notifications (sequence) ON DELETE CASCADE,
    attempts     INTEGER NOT NULL DEFAULT 0, -- that were begun
    due_time     INTEGER NOT NULL, -- of the next attempt; of the lease's end while one runs
    lease        TEXT, -- of the worker that last took it
    last_error   TEXT,
    dead_time    INTEGER
) STRICT;
CREATE INDEX deliveries_due ON deliveries (due_time) WHERE dead_time IS NULL;
CREATE INDEX deliveries_leased ON deliveries (lease) WHERE lease IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_time, notification) WHERE dead_time IS NOT NULL;
