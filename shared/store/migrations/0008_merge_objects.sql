-- merge_objects merges the new state of a session into the old one. Objects are merged member by member, at every level;
-- any other value replaces the old one, null and lists too. The operator || merges the first level only. An equal
-- object needs no merge: many clients send back the whole state with each run.
CREATE FUNCTION {{.schema}}.merge_objects(old jsonb, new jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT old || new || COALESCE(jsonb_object_agg(key, {{.schema}}.merge_objects(old -> key, value)), '{}')
    FROM jsonb_each(new)
    WHERE jsonb_typeof(value) = 'object' AND jsonb_typeof(old -> key) = 'object' AND old -> key <> value
$$;

UPDATE {{.schema}}.schema_version SET oldest = 6;
