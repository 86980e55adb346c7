-- +goose Up

-- Who may do what. exactly_setup owns everything and makes tables; exactly_worker may do what `exactly run` needs and no more: it appends to
-- the ledger and never changes it; exactly_auditor reads. People and programs log in as users of their own that are members of one of them.
--
-- Roles belong to the server, not to a database: another database of such a pipeline may have made them already, or be making them now. A
-- backup does not bring them back. So both functions are called at the end of every setup, and may be called at any time.

-- Makes the roles that are missing, as far as this user may, and returns what it made.
-- +goose StatementBegin
CREATE FUNCTION exactly_make_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    r    text;
    made text[] := '{}';
BEGIN
    FOREACH r IN ARRAY ARRAY['exactly_setup', 'exactly_worker', 'exactly_auditor'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', r);
            made := made || r;
        EXCEPTION
            WHEN insufficient_privilege THEN NULL; -- setup says what an administrator has to do
            WHEN duplicate_object OR unique_violation THEN NULL; -- made from another database at this moment
        END;
    END LOOP;
    IF 'exactly_setup' = ANY (made) AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT exactly_setup TO %I', current_user); -- what this user makes can then be given to the role
    END IF;
    RETURN made;
END $$;
-- +goose StatementEnd

-- Gives the roles their rights on everything here that is ours, new tables included, and takes away what they have beyond them. Returns how
-- many relations that changed. What this user does not own it leaves alone.
-- +goose StatementBegin
CREATE FUNCTION exactly_grant() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ledger   CONSTANT oid := 'offset_ledger'::regclass;
    space    CONSTANT oid := (SELECT relnamespace FROM pg_class WHERE oid = ledger);
    -- Others may keep tables in the same schema: ours have these names, or begin with them.
    ours     CONSTANT text := '^(sources|workers|partition_offsets|offset_ledger|enriched_clicks|outbox|dead_letters|goose_db_version|exactly)(_|$)';
    setting  CONSTANT text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
    has_role jsonb;
    to_setup boolean := false;
    changed  int := 0;
    rights   text;
    o        record;
    r        text;
BEGIN
    -- Two at once would meet in the same rows of the catalog ("tuple concurrently updated"), and so would the making of time partitions.
    PERFORM pg_advisory_xact_lock(hashtext('exactly_make_time_partitions'));
    SELECT coalesce(jsonb_object_agg(rolname, true), '{}') INTO has_role FROM pg_roles WHERE rolname IN ('exactly_setup', 'exactly_worker', 'exactly_auditor');

    FOR r IN SELECT jsonb_object_keys(has_role) LOOP
        IF NOT has_schema_privilege(r, space, CASE r WHEN 'exactly_setup' THEN 'CREATE' ELSE 'USAGE' END) THEN
            BEGIN
                EXECUTE format('GRANT USAGE%s ON SCHEMA %s TO %I', CASE r WHEN 'exactly_setup' THEN ', CREATE' ELSE '' END, space::regnamespace, r);
            EXCEPTION WHEN insufficient_privilege THEN NULL; -- setup says so
            END;
        END IF;
    END LOOP;
    IF has_role ? 'exactly_setup' THEN
        to_setup := pg_has_role('exactly_setup', 'USAGE') AND pg_has_role('exactly_setup', setting) AND has_schema_privilege('exactly_setup', space, 'CREATE');
    END IF;

    FOR o IN SELECT p.oid::regprocedure AS name, p.proname, p.proowner::regrole = 'exactly_setup'::text::regrole AS given
        FROM pg_proc p WHERE p.pronamespace = space AND p.proname LIKE 'exactly\_%' AND has_role ? 'exactly_setup'
    LOOP
        IF to_setup AND NOT o.given THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO exactly_setup', o.name);
        END IF;
    END LOOP;
    FOR o IN SELECT p.oid::regprocedure AS name, p.proname FROM pg_proc p
        WHERE p.pronamespace = space AND p.proname LIKE 'exactly\_%' AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', o.name);
        IF has_role ? 'exactly_worker' AND o.proname = 'exactly_make_days_ahead' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO exactly_worker', o.name);
        END IF;
    END LOOP;

    FOR o IN SELECT c.oid, c.oid::regclass AS name, c.relname, c.relkind, c.relispartition, c.relowner::regrole::text AS owner,
        (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a) AS acl
        FROM pg_class c WHERE c.relnamespace = space AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname ~ ours
        AND pg_has_role(c.relowner, 'USAGE') ORDER BY c.relname
    LOOP
        IF to_setup AND o.owner <> 'exactly_setup' THEN
            EXECUTE format('ALTER %s %s OWNER TO exactly_setup', CASE o.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, o.name);
        ELSIF has_role ? 'exactly_setup' AND o.owner <> 'exactly_setup' THEN
            EXECUTE format('GRANT ALL ON %s TO exactly_setup', o.name);
        END IF;
        IF has_role ? 'exactly_auditor' THEN
            EXECUTE format('REVOKE ALL ON %s FROM exactly_auditor', o.name);
            EXECUTE format('GRANT SELECT ON %s TO exactly_auditor', o.name);
        END IF;
        IF has_role ? 'exactly_worker' THEN
            rights := CASE
                WHEN o.relispartition THEN NULL -- reached through its parent
                WHEN o.relname = 'sources' THEN 'SELECT, UPDATE (start_from, started_at)'
                WHEN o.relname = 'workers' THEN 'SELECT, INSERT, UPDATE'
                -- Not state, held_by, held_why, held_since: holding a partition is for people.
                WHEN o.relname = 'partition_offsets' THEN 'SELECT, INSERT, UPDATE (next_offset, leader_epoch, epoch, published_at_least, '
                    || 'ledger_seq, ledger_head, worker, claimants, updated_at)'
                WHEN o.relname IN ('enriched_clicks', 'dead_letters') THEN 'INSERT'
                WHEN o.relkind IN ('v', 'm') OR o.relname = 'goose_db_version' THEN 'SELECT'
                ELSE 'SELECT, INSERT' -- the ledger, the outbox, and what comes: appended to and read
            END;
            EXECUTE format('REVOKE ALL ON %s FROM exactly_worker', o.name);
            IF rights IS NOT NULL THEN
                EXECUTE format('GRANT %s ON %s TO exactly_worker', rights, o.name);
            END IF;
        END IF;
        IF EXISTS (SELECT FROM pg_class c WHERE c.oid = o.oid AND (c.relowner::regrole::text <> o.owner
            OR (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a) IS DISTINCT FROM o.acl)) THEN
            changed := changed + 1;
        END IF;
    END LOOP;
    RETURN changed;
END $$;
-- +goose StatementEnd

-- What a worker may do about time partitions: make those of today and the coming days. It runs as its owner, who may make tables, so what it
-- can be asked for is bounded, and names in it mean what they mean here.
-- +goose StatementBegin
CREATE FUNCTION exactly_make_days_ahead(days int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET datestyle = 'ISO' AS $$
DECLARE
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    made  int;
BEGIN
    IF days IS NULL OR days NOT BETWEEN 0 AND 31 THEN
        RAISE EXCEPTION 'exactly_make_days_ahead(%): must be from 0 to 31', days USING ERRCODE = 'invalid_parameter_value';
    END IF;
    made := exactly_make_time_partitions(today, today + days);
    IF made > 0 THEN
        PERFORM exactly_grant(); -- the auditor reads each of them by its name
    END IF;
    RETURN made;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION exactly_make_days_ahead(int) SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION exactly_make_days_ahead(int) FROM PUBLIC;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION exactly_make_days_ahead(int);
DROP FUNCTION exactly_grant();
DROP FUNCTION exactly_make_roles();
