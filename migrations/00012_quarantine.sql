-- +goose Up

-- Which records a worker has handed to its handler and not captured yet, where their partition was just claimed or they are handled with care. Whoever
-- claims the row next and finds the mark of another process knows that it is gone in the middle of them, and takes care (engine.Care).
ALTER TABLE partition_offsets
    ADD begun_by     uuid,                      -- the process (workers.incarnation); NULL: nothing is begun
    ADD begun_from   bigint NOT NULL DEFAULT 0, -- the stored offset then
    ADD begun_to     bigint NOT NULL DEFAULT 0,
    ADD careful_to   bigint NOT NULL DEFAULT 0, -- records below are handled with care; at or below the stored offset: none
    ADD careful_step int    NOT NULL DEFAULT 0, -- so many at a time
    ADD attempts     int    NOT NULL DEFAULT 0; -- processes gone over the record at begun_from, alone

-- exactly_grant learns the names: workers write them.
-- +goose StatementBegin
DO $$
DECLARE
    was  CONSTANT text := pg_get_functiondef('exactly_grant()'::regprocedure);
    next CONSTANT text := replace(was, 'worker, claimants, updated_at)', 'worker, claimants, updated_at, begun_by, begun_from, begun_to, careful_to, careful_step, attempts)');
BEGIN
    IF next = was THEN
        RAISE EXCEPTION 'exactly_grant() is not as this migration knows it';
    END IF;
    EXECUTE next;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('exactly_grant()'::regprocedure), ', begun_by, begun_from, begun_to, careful_to, careful_step, attempts)', ')');
END $$;
-- +goose StatementEnd
ALTER TABLE partition_offsets DROP begun_by, DROP begun_from, DROP begun_to, DROP careful_to, DROP careful_step, DROP attempts;
