-- `sequence` orders products by creation for all processes alike: whoever adds
-- one waits for the others that do, so a smaller number is never committed later.
-- Text compares by its bytes, whatever the database's own order.
CREATE TABLE products (
    sequence     BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME products_sequence),
    id           TEXT   COLLATE "C" NOT NULL UNIQUE,
    name         TEXT   COLLATE "C" NOT NULL,
    description  TEXT   COLLATE "C" NOT NULL,
    sku          TEXT   COLLATE "C" NOT NULL UNIQUE,
    currency     TEXT   COLLATE "C" NOT NULL,
    amount_minor BIGINT NOT NULL,
    category     TEXT   COLLATE "C" NOT NULL,
    tags         TEXT   COLLATE "C" NOT NULL, -- a JSON array of strings
    revision     BIGINT NOT NULL DEFAULT 1,
    create_time  BIGINT NOT NULL, -- microseconds since 1970
    update_time  BIGINT NOT NULL,
    created_by   TEXT   COLLATE "C" NOT NULL,
    rating_sum   BIGINT NOT NULL DEFAULT 0,
    rating_count BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX products_by_price ON products (amount_minor, sequence);
CREATE INDEX products_by_name ON products (lower(name), sequence);
CREATE INDEX products_by_category ON products (category, sequence);

CREATE TABLE ratings (
    product BIGINT NOT NULL REFERENCES products (sequence) ON DELETE CASCADE,
    "user"  TEXT   COLLATE "C" NOT NULL,
    stars   BIGINT NOT NULL,
    PRIMARY KEY (product, "user")
);

-- What was done once and for all, such as `seeded`.
CREATE TABLE done (what TEXT PRIMARY KEY);
