-- What each carrier can still take this week, as the planners keep it.
create table capacity (
  carrier text not null,
  lane    text not null,
  free_kg integer not null check (free_kg >= 0),
  primary key (carrier, lane)
);
insert into capacity (carrier, lane, free_kg) values
  ('Nordfracht',    'Hamburg-Riga',  2400),
  ('Nordfracht',    'Hamburg-Oslo',   800),
  ('Baltic & Co',   'Hamburg-Riga',  1500),
  ('Baltic & Co',   'Gdansk-Turku',  5000),
  ('Alpen Express', 'Munich-Milan',   600),
  ('Alpen Express', 'Munich-Vienna', 1200),
  ('Rail Cargo',    'Munich-Milan',  9000),
  ('Rail Cargo',    'Hamburg-Riga', 20000);
