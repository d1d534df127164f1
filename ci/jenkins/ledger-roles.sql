-- Who may write what in the ledger, by PostgreSQL's own rights: with the login of pull requests nothing of main can be written,
-- changed or removed, whatever that build runs. Run this as the owner of the ledger's tables (who migrates them), in their database
-- and schema, after the first `trainshed doctor` with the owner's login and again after each update of Trainshed that changes the
-- schema; running it twice does no harm. It needs the right to create roles, or the three roles made before by who has it:
--
--     psql "$OWNER_URL" --single-transaction -v ON_ERROR_STOP=1 -f ci/jenkins/ledger-roles.sql
--
-- Then make one login for each kind of build, with a password of its own, and store its URL in Jenkins where only those builds see it:
--
--     CREATE ROLE jenkins_main LOGIN PASSWORD '…' IN ROLE trainshed_main;
--     CREATE ROLE jenkins_pull_requests LOGIN PASSWORD '…' IN ROLE trainshed_pull_request;
--     CREATE ROLE engineers LOGIN PASSWORD '…' IN ROLE trainshed_laptop;
--
-- A login belongs to one of the roles only: policies add up.

DO $roles$
DECLARE
    place text := current_schema();
    role_name text;
    tier_number int;
    record_table text;
    columns text;
BEGIN
    IF to_regclass('alembic_version') IS NULL THEN
        RAISE EXCEPTION 'no ledger in schema %: run `trainshed doctor` with the login of its owner first', place;
    END IF;

    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', place);  -- PostgreSQL before 15 lets everybody make tables

    -- The numbers are those of trainshed.settings.Tier.
    FOR role_name, tier_number IN VALUES ('trainshed_laptop', 0), ('trainshed_pull_request', 1), ('trainshed_main', 2) LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, role_name);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', place, role_name);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM %I', place, role_name);
        EXECUTE format('GRANT SELECT ON alembic_version TO %I', role_name);
        -- A lease only spares work: who takes one wrongly makes an image twice, and the first one pushed counts.
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO %I', role_name);

        FOREACH record_table IN ARRAY ARRAY['verdicts', 'images', 'attachments', 'locks', 'events', 'nodes', 'edges'] LOOP
            -- Not the number of a record: it comes from the sequence, so that nobody takes numbers that others are to get.
            SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
            WHERE attrelid = record_table::regclass AND attnum > 0 AND NOT attisdropped AND NOT (attname = 'id' AND atthasdef);
            EXECUTE format('GRANT SELECT, INSERT (%s) ON %I TO %I', columns, record_table, role_name);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', record_table);
            EXECUTE format('DROP POLICY IF EXISTS %I ON %I', role_name || '_reads', record_table);
            EXECUTE format('CREATE POLICY %I ON %I FOR SELECT TO %I USING (true)', role_name || '_reads', record_table, role_name);
            EXECUTE format('DROP POLICY IF EXISTS %I ON %I', role_name || '_adds', record_table);
            EXECUTE format('CREATE POLICY %I ON %I FOR INSERT TO %I WITH CHECK (tier = %s)',
                           role_name || '_adds', record_table, role_name, tier_number);
            IF record_table NOT IN ('attachments', 'nodes', 'edges') THEN
                EXECUTE format('GRANT USAGE ON SEQUENCE %I TO %I', record_table || '_id_seq', role_name);
            END IF;
        END LOOP;

        -- Records are only ever added; an attachment, and what is known of an edge, takes the place of the former one of its tier.
        EXECUTE format('GRANT UPDATE (content, created) ON attachments TO %I', role_name);
        EXECUTE format('GRANT UPDATE (facts, present, created) ON edges TO %I', role_name);
        FOREACH record_table IN ARRAY ARRAY['attachments', 'edges'] LOOP
            EXECUTE format('DROP POLICY IF EXISTS %I ON %I', role_name || '_replaces', record_table);
            EXECUTE format('CREATE POLICY %I ON %I FOR UPDATE TO %I USING (tier = %s) WITH CHECK (tier = %s)',
                           role_name || '_replaces', record_table, role_name, tier_number, tier_number);
        END LOOP;
    END LOOP;
END
$roles$;
