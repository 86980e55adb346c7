-- The application's own table. Its first three columns say which record a row came from; the engine fills them, and together they are unique.
CREATE TABLE IF NOT EXISTS payments (
    source_id        smallint    NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    payment_id       text        NOT NULL,
    account          text        NOT NULL,
    cents            bigint      NOT NULL,
    currency         text        NOT NULL,
    euro_cents       bigint      NOT NULL,
    paid_at          timestamptz NOT NULL,
    PRIMARY KEY (source_id, source_partition, source_offset)
);

-- What a payment's currency is worth, in millionths of a euro.
CREATE TABLE IF NOT EXISTS payment_rates (currency text PRIMARY KEY, micro_euros bigint NOT NULL CHECK (micro_euros > 0));
INSERT INTO payment_rates VALUES ('EUR', 1000000), ('USD', 920000), ('CHF', 1060000) ON CONFLICT DO NOTHING;

-- Workers log in as members of exactly_worker; where the roles are made by somebody else, so are these rights.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'exactly_worker') THEN
        GRANT INSERT ON payments TO exactly_worker;
        GRANT SELECT ON payment_rates TO exactly_worker;
    END IF;
END $$;
