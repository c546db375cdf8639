-- The first merge_objects searched the whole old object anew for each member of the new one: two states of 1 MB with
-- 9,000 members took half a minute. This one reads both once, and its plan has no nested loop, because of FULL JOIN.
CREATE OR REPLACE FUNCTION {{.schema}}.merge_objects(old jsonb, new jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF old = new THEN
        RETURN old;
    END IF;
    RETURN (
        SELECT COALESCE(jsonb_object_agg(COALESCE(n.key, o.key), CASE
            WHEN n.key IS NULL THEN o.value
            WHEN jsonb_typeof(n.value) = 'object' AND jsonb_typeof(o.value) = 'object'
                THEN {{.schema}}.merge_objects(o.value, n.value)
            ELSE n.value END), '{}')
        FROM jsonb_each(new) AS n FULL JOIN jsonb_each(old) AS o ON o.key = n.key
    );
END
$$;

UPDATE {{.schema}}.schema_version SET oldest = 6;
