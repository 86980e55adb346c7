-- +goose Up

-- What was dropped, by whom, and up to where it had been published: one row a source partition that had rows in it (none: one row without a
-- source). Written in the transaction that drops. An audit can vouch for a table from to_offset on only, where it is named here.
CREATE TABLE pruned (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name       text        NOT NULL, -- enriched_clicks | outbox | dead_letters
    time_partition   text        NOT NULL, -- the table that was dropped: outbox_20260131; of …_default the rows went, the table stays
    first_at         timestamptz,          -- capture times of what was in it; NULL: nothing was
    last_at          timestamptz,
    source_id        smallint,
    source_partition int,
    from_offset      bigint,               -- source offsets of what was in it: [from_offset, to_offset)
    to_offset        bigint,
    records          bigint      NOT NULL, -- rows of that table
    published        bigint,               -- the group offset then: all of it was in Kafka; NULL: the source is retired, nothing is owed any more
    ledger_seq       bigint,               -- the ledger entry of kind prune. Its digest: SHA-256 of time_partition, source_id, source_partition, from_offset,
                                           -- to_offset, records and published in decimal, a space between each. NULL: a retired source's
    dropped_at       timestamptz NOT NULL DEFAULT now(),
    who              text        NOT NULL,
    why              text        NOT NULL
);
CREATE INDEX pruned_source ON pruned (source_id, source_partition);

-- Whose data was blanked, by coordinate and not by name: one row a ledger entry of kind erase, whose digest covers source, partition and
-- offsets. A heal that rebuilds rows from Kafka blanks these again.
CREATE TABLE erasures (
    source_id        smallint    NOT NULL REFERENCES sources,
    source_partition int         NOT NULL,
    ledger_seq       bigint      NOT NULL,
    erasure          uuid        NOT NULL, -- the same for all entries of one command
    offsets          bigint[]    NOT NULL, -- source offsets, ascending, each once
    rows             bigint      NOT NULL, -- blanked in enriched_clicks
    messages         bigint      NOT NULL, -- in outbox
    dead_letters     bigint      NOT NULL, -- in dead_letters
    who              text        NOT NULL,
    why              text        NOT NULL,
    erased_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition, ledger_seq)
);

-- Both are facts: added to by the owner or by a function of the owner's, never changed.
-- +goose StatementBegin
CREATE FUNCTION exactly_refuse_change_of_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER pruned_append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON pruned
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change_of_facts();
CREATE TRIGGER erasures_append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON erasures
    FOR EACH STATEMENT EXECUTE FUNCTION exactly_refuse_change_of_facts();

-- exactly_grant learns the two names, whatever else it has learnt since 00003: the worker reads them.
-- +goose StatementBegin
DO $$
DECLARE
    was CONSTANT text := pg_get_functiondef('exactly_grant()'::regprocedure);
    now CONSTANT text := replace(replace(was, '|goose_db_version|', '|goose_db_version|pruned|erasures|'),
        '= ''goose_db_version'' THEN', 'IN (''goose_db_version'', ''pruned'', ''erasures'') THEN');
BEGIN
    IF position('|pruned|erasures|' IN now) = 0 OR position('(''goose_db_version'', ''pruned'', ''erasures'') THEN' IN now) = 0 THEN
        RAISE EXCEPTION 'exactly_grant() is not as this migration knows it';
    END IF;
    EXECUTE now;
END $$;
-- +goose StatementEnd

-- exactly_prune_extent and exactly_prune_drop run as their owner. Nobody but the owner may call them at first: whoever may drop may destroy
-- evidence, so it takes an administrator's GRANT before workers prune. What they can be asked for is bounded all the same: whole time
-- partitions of the three tables, over for a day or more, and of the default one only what is as old.

-- Whether the time partition is one that may be named here; the day it begins, NULL for the default one.
-- +goose StatementBegin
CREATE FUNCTION exactly_prune_check(parent text, suffix text) RETURNS date LANGUAGE plpgsql SET datestyle = 'ISO' AS $$
DECLARE
    child CONSTANT text := parent || '_' || suffix;
    d     date;
BEGIN
    IF parent NOT IN ('enriched_clicks', 'outbox', 'dead_letters') OR suffix !~ '^([0-9]{8}|default)$' OR NOT EXISTS (
        SELECT FROM pg_inherits WHERE inhparent = to_regclass(parent) AND inhrelid = to_regclass(child)) THEN
        RAISE EXCEPTION '% has no time partition %', parent, child USING ERRCODE = 'undefined_table';
    END IF;
    IF suffix <> 'default' THEN
        d := to_date(suffix, 'YYYYMMDD');
        IF d + 2 > (now() AT TIME ZONE 'UTC')::date THEN
            RAISE EXCEPTION '%: its day must have been over for a day', child USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    RETURN d;
END $$;
-- +goose StatementEnd

-- What is in a time partition, by source partition. It is locked against writers until the end of the transaction, so that it stays so:
-- nobody writes to a day that is over. It reads all of it.
-- +goose StatementBegin
CREATE FUNCTION exactly_prune_extent(parent text, suffix text) RETURNS TABLE (source smallint, partition int, from_offset bigint, to_offset bigint,
    records bigint, first_at timestamptz, last_at timestamptz) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    at CONSTANT text := CASE parent WHEN 'enriched_clicks' THEN 'captured_at' ELSE 'created_at' END;
BEGIN
    IF exactly_prune_check(parent, suffix) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %I IN SHARE MODE', parent || '_' || suffix);
    END IF;
    RETURN QUERY EXECUTE format('SELECT source_id, source_partition, min(source_offset), max(source_offset) + 1, count(*), min(%1$I), max(%1$I)
        FROM ONLY %2$I GROUP BY 1, 2 ORDER BY 1, 2', at, parent || '_' || suffix);
END $$;
-- +goose StatementEnd

-- Drops a time partition, or empties the default one, and notes it. facts: what exactly_prune_extent said in the same transaction, with the
-- group offset and the ledger entry of each. The locks it takes conflict with captures: the caller bounds the wait by lock_timeout. (DETACH
-- CONCURRENTLY is not to be had: Postgres refuses it where there is a default partition. What is left to do under the lock is a few rows of
-- the catalog; the files are removed after it.)
-- +goose StatementBegin
CREATE FUNCTION exactly_prune_drop(parent text, suffix text, who text, why text, facts jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    child CONSTANT text := parent || '_' || suffix;
    at    CONSTANT text := CASE parent WHEN 'enriched_clicks' THEN 'captured_at' ELSE 'created_at' END;
    young boolean := false;
BEGIN
    IF EXISTS (SELECT FROM jsonb_to_recordset(facts) AS f (source_id smallint, source_partition int, to_offset bigint)
        LEFT JOIN partition_offsets p USING (source_id, source_partition) JOIN sources s USING (source_id)
        WHERE s.retired_at IS NULL AND (p.published_at_least IS NULL OR f.to_offset > p.published_at_least)) THEN
        RAISE EXCEPTION '% has what is not known to be published', child USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF exactly_prune_check(parent, suffix) IS NULL THEN
        EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', child);
        EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %I WHERE %I > coalesce($1, ''-infinity''))', child, at) INTO young
            USING (SELECT max((f ->> 'last_at')::timestamptz) FROM jsonb_array_elements(facts) f WHERE (f ->> 'last_at')::timestamptz < now() - interval '1 day');
        IF young THEN
            RAISE EXCEPTION '% has been written to meanwhile', child USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        EXECUTE format('TRUNCATE ONLY %I', child);
    ELSE
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
        EXECUTE format('DROP TABLE %I', child);
    END IF;
    INSERT INTO pruned (table_name, time_partition, first_at, last_at, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
        SELECT parent, child, f.first_at, f.last_at, f.source_id, f.source_partition, f.from_offset, f.to_offset, f.records, f.published, f.ledger_seq, who, why
        FROM jsonb_to_recordset(facts) AS f (first_at timestamptz, last_at timestamptz, source_id smallint, source_partition int, from_offset bigint,
            to_offset bigint, records bigint, published bigint, ledger_seq bigint)
        UNION ALL SELECT parent, child, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, who, why WHERE facts = '[]';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['exactly_prune_extent(text, text)', 'exactly_prune_drop(text, text, text, text, jsonb)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION exactly_prune_drop(text, text, text, text, jsonb);
DROP FUNCTION exactly_prune_extent(text, text);
DROP FUNCTION exactly_prune_check(text, text);
DROP TABLE erasures, pruned;
DROP FUNCTION exactly_refuse_change_of_facts();
