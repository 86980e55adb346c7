-- +goose Up

-- Up to where an audit has proven everything, per source partition: written by `exactly audit --mark` and --follow. It is what an auditor said
-- at a time, no part of the pipeline: no worker reads it. The one table that auditors may write.
CREATE TABLE exactly_verified_through (
    source_id        smallint    NOT NULL REFERENCES sources,
    source_partition int         NOT NULL,
    verified_from    bigint      NOT NULL, -- source offsets [verified_from, verified_through) were proven in both sinks
    verified_through bigint      NOT NULL,
    ledger_seq       bigint      NOT NULL, -- the ledger's newest entry then, and its hash
    ledger_hash      bytea       NOT NULL,
    program          text        NOT NULL DEFAULT '',
    audited_by       text        NOT NULL DEFAULT session_user,
    audited_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition),
    CHECK (verified_from <= verified_through)
);

-- exactly_grant learns of it, whatever else it has learnt since 00003.
-- +goose StatementBegin
DO $$
DECLARE
    was CONSTANT text := pg_get_functiondef('exactly_grant()'::regprocedure);
    now CONSTANT text := replace(replace(was,
        'EXECUTE format(''GRANT SELECT ON %s TO exactly_auditor'', o.name);',
        'EXECUTE format(''GRANT SELECT%s ON %s TO exactly_auditor'', CASE o.relname WHEN ''exactly_verified_through'' THEN '', INSERT, UPDATE'' ELSE '''' END, o.name);'),
        'WHEN o.relkind IN (''v'', ''m'')', 'WHEN o.relname = ''exactly_verified_through'' OR o.relkind IN (''v'', ''m'')');
BEGIN
    IF position(', INSERT, UPDATE'' ELSE' IN now) = 0 OR position('WHEN o.relname = ''exactly_verified_through'' OR' IN now) = 0 THEN
        RAISE EXCEPTION 'exactly_grant() is not as this migration knows it';
    END IF;
    EXECUTE now;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE exactly_verified_through;
