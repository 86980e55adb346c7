-- +goose Up

-- Who did it and with what. All of it is in the entry's hash.
ALTER TABLE offset_ledger
    ADD COLUMN who     text NOT NULL DEFAULT '', -- person or role behind a deed; empty for captures
    ADD COLUMN build   text NOT NULL DEFAULT '', -- version of the program
    ADD COLUMN schemas text NOT NULL DEFAULT '', -- registry ids, those read > those written
    ADD COLUMN geo     text NOT NULL DEFAULT ''; -- build of the geo database
COMMENT ON COLUMN offset_ledger.kind IS 'start | capture | accept_loss | restore | reset | hold | release | replay | heal | erase | archive';

-- What a ledger entry's digest is made of, kept beside the bytes so that erasing them leaves it.
ALTER TABLE outbox
    ADD COLUMN salt         bytea,       -- 16 random bytes a source record; NULL once erased
    ADD COLUMN record_hash  bytea,       -- of the salt and the source record
    ADD COLUMN message_hash bytea,       -- of the salt and the message; NULL until it is erased: before, the bytes tell
    ADD COLUMN erased_at    timestamptz;

-- +goose Down
ALTER TABLE outbox DROP COLUMN salt, DROP COLUMN record_hash, DROP COLUMN message_hash, DROP COLUMN erased_at;
ALTER TABLE offset_ledger DROP COLUMN who, DROP COLUMN build, DROP COLUMN schemas, DROP COLUMN geo;
