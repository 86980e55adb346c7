-- +goose Up

-- Dead letters handed in again (`exactly dlq replay`): one row a letter and attempt, written before its pointer is. A letter's name is the coordinate
-- of the first record, whichever attempt it failed in last.
CREATE TABLE replays (
    source_id        smallint    NOT NULL, -- of the first record
    source_partition int         NOT NULL,
    source_offset    bigint      NOT NULL,
    attempt          int         NOT NULL CHECK (attempt > 0), -- 1 is the first replay
    letter_source_id smallint    NOT NULL, -- the dead letter that is read: the first one's row, or that of the attempt before
    letter_partition int         NOT NULL,
    letter_offset    bigint      NOT NULL,
    replay           uuid        NOT NULL, -- the same for all of one command
    who              text        NOT NULL,
    why              text        NOT NULL,
    requested_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition, source_offset, attempt)
);

-- What became of them: written in the capture of the pointer, along with the row or the new dead letter. Its second key is what makes a replay
-- happen once, however often and wherever its pointer is written.
CREATE TABLE replay_captures (
    source_id        smallint    NOT NULL, -- of the pointer
    source_partition int         NOT NULL,
    source_offset    bigint      NOT NULL,
    of_source_id     smallint    NOT NULL, -- of the first record
    of_partition     int         NOT NULL,
    of_offset        bigint      NOT NULL,
    attempt          int         NOT NULL,
    captured_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, source_partition, source_offset),
    CONSTRAINT replay_captures_once UNIQUE (of_source_id, of_partition, of_offset, attempt)
);

-- Every dead letter with the first record's coordinate, its attempt (0: it was never replayed before it came here), and where it stands: open, requested
-- (its pointer is under way, or the command that should have written it died), replayed (its next attempt is captured: as a row, or as a newer dead letter).
CREATE VIEW exactly_dead_letters AS
SELECT d.source_id, d.source_partition, d.source_offset, d.error_class, d.error_stage, d.error_message, d.key, d.value, d.headers, d.created_at, d.replayed_at,
    o.source_id AS of_source_id, o.source_partition AS of_partition, o.source_offset AS of_offset, o.attempt,
    CASE WHEN n.attempt IS NOT NULL THEN 'replayed' WHEN r.attempt IS NOT NULL THEN 'requested' ELSE 'open' END AS state
FROM dead_letters d
LEFT JOIN replay_captures c ON (c.source_id, c.source_partition, c.source_offset) = (d.source_id, d.source_partition, d.source_offset)
CROSS JOIN LATERAL (SELECT coalesce(c.of_source_id, d.source_id) AS source_id, coalesce(c.of_partition, d.source_partition) AS source_partition,
    coalesce(c.of_offset, d.source_offset) AS source_offset, coalesce(c.attempt, 0) AS attempt) o
LEFT JOIN replays r ON (r.source_id, r.source_partition, r.source_offset, r.attempt) = (o.source_id, o.source_partition, o.source_offset, o.attempt + 1)
LEFT JOIN replay_captures n ON (n.of_source_id, n.of_partition, n.of_offset, n.attempt) = (o.source_id, o.source_partition, o.source_offset, o.attempt + 1);

-- exactly_grant learns the two names: workers append to one and read the other, and read dead letters to replay them.
-- +goose StatementBegin
DO $$
DECLARE
    next text := pg_get_functiondef('exactly_grant()'::regprocedure);
    e    text[];
BEGIN
    FOREACH e SLICE 1 IN ARRAY ARRAY[
        ARRAY['|goose_db_version|', '|goose_db_version|replays|replay_captures|'],
        ARRAY['WHEN o.relname IN (''enriched_clicks'', ''dead_letters'') THEN ''INSERT''',
            'WHEN o.relname = ''enriched_clicks'' THEN ''INSERT'' WHEN o.relname = ''dead_letters'' THEN ''SELECT, INSERT'' WHEN o.relname = ''replays'' THEN ''SELECT''']
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
DROP VIEW exactly_dead_letters;
DROP TABLE replay_captures, replays;
