-- +goose Up

-- What was moved out of the ledger into files: one row a source partition and archive. A chain goes on with entry to_seq + 1, whose prev_hash is last_hash;
-- a later entry of kind archive (ledger_seq) vouches for the row.
CREATE TABLE ledger_archives (
    source_id        smallint    NOT NULL REFERENCES sources,
    source_partition int         NOT NULL,
    from_seq         bigint      NOT NULL, -- entries [from_seq, to_seq]
    to_seq           bigint      NOT NULL,
    begun_at         bigint      NOT NULL, -- source offset that the partition was started at
    to_offset        bigint      NOT NULL, -- source offset that the entries end at
    last_hash        bytea       NOT NULL, -- of entry to_seq
    file             text        NOT NULL, -- its name, without a folder
    file_hash        bytea       NOT NULL, -- SHA-256 of its bytes
    ledger_seq       bigint      NOT NULL, -- the entry of kind archive. Its digest: SHA-256 of source_id, source_partition, from_seq, to_seq, begun_at and to_offset in decimal,
                                           -- last_hash and file_hash in hexadecimal, a space between each
    who              text        NOT NULL,
    why              text        NOT NULL,
    archived_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition, to_seq),
    CHECK (from_seq <= to_seq AND to_seq < ledger_seq)
);
CREATE TRIGGER ledger_archives_append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger_archives
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change_of_facts();

-- An entry may be deleted if a row above names it, and else by nobody.
-- +goose StatementBegin
CREATE FUNCTION exactly_refuse_unarchived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger_archives a WHERE a.source_id = OLD.source_id AND a.source_partition = OLD.source_partition
        AND OLD.seq BETWEEN a.from_seq AND a.to_seq) THEN
        RAISE EXCEPTION 'offset_ledger is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
-- +goose StatementEnd
DROP TRIGGER offset_ledger_append_only ON offset_ledger;
CREATE TRIGGER offset_ledger_append_only BEFORE UPDATE OR TRUNCATE ON offset_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change();
CREATE TRIGGER offset_ledger_archived_only BEFORE DELETE ON offset_ledger
    FOR EACH ROW EXECUTE FUNCTION exactly_refuse_unarchived();

-- exactly_grant learns the name: the worker reads it.
-- +goose StatementBegin
DO $$
DECLARE
    was CONSTANT text := pg_get_functiondef('exactly_grant()'::regprocedure);
    now CONSTANT text := replace(replace(was, '|pruned|erasures|', '|pruned|erasures|ledger_archives|'),
        '''pruned'', ''erasures'') THEN', '''pruned'', ''erasures'', ''ledger_archives'') THEN');
BEGIN
    IF position('|ledger_archives|' IN now) = 0 OR position('''ledger_archives'') THEN' IN now) = 0 THEN
        RAISE EXCEPTION 'exactly_grant() is not as this migration knows it';
    END IF;
    EXECUTE now;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER offset_ledger_archived_only ON offset_ledger;
DROP TRIGGER offset_ledger_append_only ON offset_ledger;
CREATE TRIGGER offset_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON offset_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change();
DROP FUNCTION exactly_refuse_unarchived();
DROP TABLE ledger_archives;
