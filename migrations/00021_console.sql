-- +goose Up

-- Deeds among the captures, one in thousands: found without reading the captures, and next to nothing to keep up, since no capture is in it.
CREATE INDEX offset_ledger_deeds ON offset_ledger (source_id, source_partition, seq) WHERE kind <> 'capture';

-- +goose Down
DROP INDEX offset_ledger_deeds;
