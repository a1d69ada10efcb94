-- Times are milliseconds since 1970-01-01T00:00:00Z; preferences are a JSON object of strings.
CREATE TABLE profiles (
    user_id      TEXT    NOT NULL PRIMARY KEY,
    email        TEXT    NOT NULL UNIQUE,
    display_name TEXT    NOT NULL,
    locale       TEXT    NOT NULL,
    time_zone    TEXT    NOT NULL,
    preferences  TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
