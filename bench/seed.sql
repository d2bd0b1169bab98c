-- Rows to read, as many for the api as for the reference, and the reference's table, as a migration
-- of its own would make it. Prints the last number of either.
SET ROLE api;
CREATE TABLE reference_items (
    id         serial PRIMARY KEY,
    name       text NOT NULL,
    note       text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO items (name, note)
  SELECT 'bench ' || n, repeat('x', 100) FROM generate_series(1, :items) AS n;
INSERT INTO reference_items (name, note)
  SELECT 'bench ' || n, repeat('x', 100) FROM generate_series(1, :items) AS n;
RESET ROLE;
VACUUM ANALYZE items, reference_items;
CHECKPOINT;
SELECT json_build_object('api', (SELECT max(id) FROM items),
                         'reference', (SELECT max(id) FROM reference_items));
