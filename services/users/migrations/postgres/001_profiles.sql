-- Times are milliseconds since 1970-01-01T00:00:00Z; preferences are a JSON object of strings.
CREATE TABLE profiles (
    user_id      TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    email        TEXT   COLLATE "C" NOT NULL UNIQUE,
    display_name TEXT   COLLATE "C" NOT NULL,
    locale       TEXT   COLLATE "C" NOT NULL,
    time_zone    TEXT   COLLATE "C" NOT NULL,
    preferences  TEXT   COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
