-- +goose Up

-- One row per (topic, group) ever processed. A recreated topic has another topic_id and is another source.
CREATE TABLE sources (
    source_id   smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text        NOT NULL,
    topic_id    uuid        NOT NULL,
    cluster_id  text        NOT NULL,
    group_id    text        NOT NULL,
    outputs     jsonb       NOT NULL,            -- output topic -> topic id
    start_from  text        NOT NULL DEFAULT '', -- what the first start chose; '' until then
    started_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz,                     -- set when a recreated topic was accepted as a new source
    retired_why text
);
CREATE UNIQUE INDEX sources_current ON sources (topic, group_id) WHERE retired_at IS NULL;

-- Each worker id's running incarnation: a fresh uuid per process.
CREATE TABLE workers (
    group_id    text        NOT NULL,
    worker      text        NOT NULL,
    incarnation uuid        NOT NULL,
    host        text        NOT NULL DEFAULT '',
    pid         int         NOT NULL DEFAULT 0,
    build       text        NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_id, worker)
);

-- The stored offset of each source partition: the one row every capture compares and sets.
CREATE TABLE partition_offsets (
    source_id          smallint    NOT NULL REFERENCES sources,
    source_partition   int         NOT NULL,
    next_offset        bigint      NOT NULL CHECK (next_offset >= 0),
    leader_epoch       int         NOT NULL DEFAULT -1, -- of the record before next_offset; -1 unknown (KIP-320)
    epoch              bigint      NOT NULL DEFAULT 0,
    published_at_least bigint      NOT NULL DEFAULT 0,
    ledger_seq         bigint      NOT NULL DEFAULT 0,
    ledger_head        bytea       NOT NULL DEFAULT '\x',
    worker             text        NOT NULL DEFAULT '', -- who drained the gap last
    claimants          text[]      NOT NULL DEFAULT '{}', -- who claimed since; any of them may have left a transaction open
    state              text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'held')),
    held_by            text,
    held_why           text,
    held_since         timestamptz,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition)
) WITH (fillfactor = 50); -- one hot row a partition: room for HOT updates

-- One entry per capture and partition, and per human deed. Never updated, never deleted.
CREATE TABLE offset_ledger (
    source_id        smallint    NOT NULL REFERENCES sources,
    source_partition int         NOT NULL,
    seq              bigint      NOT NULL,
    kind             text        NOT NULL, -- start | capture | accept_loss | restore
    from_offset      bigint      NOT NULL,
    to_offset        bigint      NOT NULL,
    records          bigint      NOT NULL DEFAULT 0,
    rows             bigint      NOT NULL DEFAULT 0,
    dead_letters     bigint      NOT NULL DEFAULT 0,
    events           bigint      NOT NULL DEFAULT 0,
    digest           bytea       NOT NULL DEFAULT '\x',
    prev_hash        bytea       NOT NULL DEFAULT '\x',
    hash             bytea       NOT NULL DEFAULT '\x',
    epoch            bigint      NOT NULL DEFAULT 0,
    worker           text        NOT NULL DEFAULT '',
    why              text        NOT NULL DEFAULT '',
    committed_at     timestamptz NOT NULL DEFAULT now(),
    captured_at      timestamptz NOT NULL DEFAULT now(), -- this server's clock: the same value as the outbox rows' created_at; not hashed
    PRIMARY KEY (source_id, source_partition, seq)
);
-- Leads a drain from source offsets to the time its outbox rows were written.
CREATE INDEX offset_ledger_to ON offset_ledger (source_id, source_partition, to_offset);

-- +goose StatementBegin
CREATE FUNCTION exactly_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'offset_ledger is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER offset_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON offset_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change();

-- The three tables below are range-partitioned by capture time (UTC days). Uniqueness of the source coordinates holds
-- within each time partition; across them the compare-and-set of partition_offsets guarantees it and the audit proves it.
CREATE TABLE enriched_clicks (
    source_id        smallint    NOT NULL,
    source_partition int         NOT NULL,
    source_offset    bigint      NOT NULL,
    user_id          bigint      NOT NULL,
    session_id       text        NOT NULL,
    "timestamp"      timestamptz NOT NULL,
    url              text        NOT NULL,
    ip               inet        NOT NULL,
    country          char(2)     NOT NULL,
    geo_build        text        NOT NULL,
    captured_at      timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (captured_at);

-- What Kafka is owed: the exact bytes, target, timestamp and headers.
CREATE TABLE outbox (
    source_id        smallint    NOT NULL,
    source_partition int         NOT NULL,
    source_offset    bigint      NOT NULL,
    seq              smallint    NOT NULL, -- 0.. within one source record
    topic            text        NOT NULL,
    partition        int         NOT NULL, -- chosen at capture: murmur2 of the key
    "timestamp"      bigint      NOT NULL, -- ms since the epoch, as Kafka will be given it
    key              bytea,
    value            bytea,
    headers          bytea       NOT NULL, -- ordered, duplicates and nulls kept: see outbox.AppendHeaders
    created_at       timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (created_at);

CREATE TABLE dead_letters (
    source_id        smallint    NOT NULL,
    source_partition int         NOT NULL,
    source_offset    bigint      NOT NULL,
    error_class      text        NOT NULL,
    error_stage      text        NOT NULL,
    error_message    text        NOT NULL,
    key              bytea,
    value            bytea,
    headers          bytea       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    replayed_at      timestamptz
) PARTITION BY RANGE (created_at);

-- +goose StatementBegin
CREATE FUNCTION exactly_make_time_partition(parent text, suffix text, bounds text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || suffix;
BEGIN
    IF to_regclass(child) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF %I %s', child, parent, bounds);
    -- A table that is only ever appended to and dropped whole needs no vacuum for every fifth of its rows.
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_threshold = 5000000, autovacuum_analyze_threshold = 1000000)', child);
    IF parent = 'outbox' THEN
        -- Read by when it was written, which the ledger knows: a summary a thousandth the size of the table, and next to nothing to
        -- keep up on the way in, where a unique index would be a sixth of a capture's cost. The rows and dead letters of the same
        -- captures are unique.
        EXECUTE format('CREATE INDEX %I ON %I USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on)', child || '_created', child);
    ELSE
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (source_id, source_partition, source_offset)', child || '_source', child);
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION exactly_make_time_partitions(from_day date, to_day date) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    d      date;
    made   int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('exactly_make_time_partitions'));
    FOREACH parent IN ARRAY ARRAY['enriched_clicks', 'outbox', 'dead_letters'] LOOP
        d := from_day;
        WHILE d <= to_day LOOP
            IF exactly_make_time_partition(parent, to_char(d, 'YYYYMMDD'),
                format('FOR VALUES FROM (%L) TO (%L)', d::text || ' 00:00:00+00', (d + 1)::text || ' 00:00:00+00')) THEN
                made := made + 1;
            END IF;
            d := d + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd

-- A safety net: a capture must never fail because nobody made tomorrow's partition.
SELECT exactly_make_time_partition('enriched_clicks', 'default', 'DEFAULT');
SELECT exactly_make_time_partition('outbox', 'default', 'DEFAULT');
SELECT exactly_make_time_partition('dead_letters', 'default', 'DEFAULT');

-- +goose Down
DROP TABLE dead_letters, outbox, enriched_clicks, offset_ledger, partition_offsets, workers, sources;
DROP FUNCTION exactly_make_time_partitions(date, date);
DROP FUNCTION exactly_make_time_partition(text, text, text);
DROP FUNCTION exactly_refuse_change();
