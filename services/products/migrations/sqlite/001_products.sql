-- `sequence` orders products by creation for all processes alike: SQLite has
-- one writer at a time, so a smaller number is never committed later.
CREATE TABLE products (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    sku          TEXT    NOT NULL UNIQUE,
    currency     TEXT    NOT NULL,
    amount_minor INTEGER NOT NULL,
    category     TEXT    NOT NULL,
    tags         TEXT    NOT NULL, -- a JSON array of strings
    revision     INTEGER NOT NULL DEFAULT 1,
    create_time  INTEGER NOT NULL, -- microseconds since 1970
    update_time  INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    rating_sum   INTEGER NOT NULL DEFAULT 0,
    rating_count INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX products_by_price ON products (amount_minor, sequence);
CREATE INDEX products_by_name ON products (name COLLATE NOCASE, sequence);
CREATE INDEX products_by_category ON products (category, sequence);

CREATE TABLE ratings (
    product INTEGER NOT NULL REFERENCES products (sequence) ON DELETE CASCADE,
    user    TEXT    NOT NULL,
    stars   INTEGER NOT NULL,
    PRIMARY KEY (product, user)
) STRICT, WITHOUT ROWID;

-- What was done once and for all, such as `seeded`.
CREATE TABLE done (what TEXT PRIMARY KEY) STRICT;
