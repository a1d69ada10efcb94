-- `sequence` orders notifications by arrival for all processes alike: whoever
-- adds one waits for the others that do, so a smaller number is never committed later.
CREATE TABLE notifications (
    sequence        BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id              TEXT   COLLATE "C" NOT NULL UNIQUE,
    "user"          TEXT   COLLATE "C" NOT NULL,
    kind            TEXT   COLLATE "C" NOT NULL,
    title           TEXT   COLLATE "C" NOT NULL,
    body            TEXT   COLLATE "C" NOT NULL,
    webhook_url     TEXT   COLLATE "C",
    create_time     BIGINT NOT NULL, -- microseconds since 1970
    read_time       BIGINT,
    sender          TEXT   COLLATE "C" NOT NULL,
    idempotency_key TEXT   COLLATE "C"
);
CREATE INDEX notifications_by_user ON notifications ("user", sequence);
CREATE INDEX notifications_unread ON notifications ("user", sequence) WHERE read_time IS NULL;
CREATE UNIQUE INDEX notifications_by_key ON notifications (sender, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Webhooks that are still to be sent, or were given up. One that has arrived
-- is removed.
CREATE TABLE deliveries (
    notification BIGINT PRIMARY KEY REFERENCES notifications (sequence) ON DELETE CASCADE,
    attempts     BIGINT NOT NULL DEFAULT 0, -- that were begun
    due_time     BIGINT NOT NULL, -- of the next attempt; of the lease's end while one runs
    lease        TEXT   COLLATE "C", -- of the worker that last took it
    last_error   TEXT   COLLATE "C",
    dead_time    BIGINT
);
CREATE INDEX deliveries_due ON deliveries (due_time) WHERE dead_time IS NULL;
CREATE INDEX deliveries_leased ON deliveries (lease) WHERE lease IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_time, notification) WHERE dead_time IS NOT NULL;

-- The key that webhooks are signed with, `webhook-secret`: all processes share one.
CREATE TABLE secrets (
    name  TEXT  COLLATE "C" NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);
