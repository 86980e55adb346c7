-- +goose Up

-- Clicks by window of event time and country, added to in the captures themselves (counts.enabled). A source partition's rows are written by its owner
-- alone, so that captures never wait for each other; what a window comes to is in the view. Rows of 0 are of counts that began anew.
CREATE TABLE click_counts (
    window_start     timestamptz NOT NULL, -- of the clicks' own timestamps; windows are as long as partition_offsets.counted_window_s says
    country          char(2)     NOT NULL,
    source_id        smallint    NOT NULL,
    source_partition int         NOT NULL,
    clicks           bigint      NOT NULL CHECK (clicks >= 0),
    PRIMARY KEY (window_start, country, source_id, source_partition)
) WITH (fillfactor = 70); -- the newest windows are hot: room for HOT updates

CREATE VIEW click_counts_total AS
SELECT window_start, country, sum(clicks)::bigint AS clicks FROM click_counts GROUP BY window_start, country HAVING sum(clicks) > 0;

-- Which rows are counted: those of source offsets [counted_from, counted_to). NULL: none ever was.
ALTER TABLE partition_offsets
    ADD COLUMN counted_from     bigint,
    ADD COLUMN counted_to       bigint,
    ADD COLUMN counted_window_s bigint; -- length of the windows, seconds

-- exactly_grant learns the names: workers add to the counts, and move what is counted along with the stored offset.
-- +goose StatementBegin
DO $$
DECLARE
    next text := pg_get_functiondef('exactly_grant()'::regprocedure);
    e    text[];
BEGIN
    FOREACH e SLICE 1 IN ARRAY ARRAY[
        ARRAY['|goose_db_version|', '|goose_db_version|click_counts|'],
        ARRAY['UPDATE (next_offset, ', 'UPDATE (next_offset, counted_from, counted_to, counted_window_s, '],
        ARRAY['WHEN o.relname = ''workers'' THEN', 'WHEN o.relname = ''click_counts'' THEN ''SELECT, INSERT, UPDATE (clicks)'' WHEN o.relname = ''workers'' THEN']
    ] LOOP
        IF position(e[1] IN next) = 0 THEN
            RAISE EXCEPTION 'exactly_grant() is not as this migration knows it: %', e[1];
        END IF;
        next := replace(next, e[1], e[2]);
    END LOOP;
    EXECUTE next;
END $$;
-- +goose StatementEnd

-- +goose Down
ALTER TABLE partition_offsets DROP COLUMN counted_from, DROP COLUMN counted_to, DROP COLUMN counted_window_s;
DROP VIEW click_counts_total;
DROP TABLE click_counts;
