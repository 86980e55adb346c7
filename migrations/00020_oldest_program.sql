-- Which programs may start on this database: those made for its version, and older ones down to the one named here. A migration that only expands
-- leaves the view alone; one that contracts (takes away or changes what an older program uses) replaces it with its own number. See doc/upgrade.md.
-- Programs of before this migration compare for equality and do not start here again; those that run go on (tests/upgrade).

-- +goose Up
CREATE VIEW exactly_oldest_program AS SELECT 20::bigint AS migration;
COMMENT ON VIEW exactly_oldest_program IS 'a program made for an older migration than this does not start on this database';

-- +goose Down
DROP VIEW exactly_oldest_program;
