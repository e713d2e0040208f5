create table customers (id integer primary key, name text not null, city text not null);
create table products (id integer primary key, name text not null, cents integer not null);
create table orders (
  id integer primary key,
  customer integer not null references customers (id),
  product integer not null references products (id),
  amount integer not null check (amount > 0),
  ordered text not null
);
create index orders_by_day on orders (ordered);
create view turnover as
  select substr(ordered, 1, 7) as month, sum(amount * cents) as cents
  from orders join products on products.id = orders.product group by 1;

insert into customers values (1, 'Ada''s Bakery', 'Riga'), (2, 'Café Müller', 'Bremen'), (3, 'Nord "48"', 'Oslo');
insert into products values (1, 'Flour, 25 kg', 1890), (2, 'Sugar, 10 kg', 1240), (3, 'Salt, 5 kg', 310);
insert into orders
  with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)
  select i, 1 + i % 3, 1 + i % 2, 1 + i * 7 % 12, date('2026-01-01', (i % 300) || ' days') from n;
