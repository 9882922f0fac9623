#!/bin/sh
# Makes the two roles of the store and their database, once, in an empty PostgreSQL:
# one owns the tables, the other is the brokers', which can change no event.
set -eu
folder=${PASSWORDS:-/passwords}
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner="$(cat "$folder/server-owner")" \
  --set broker="$(cat "$folder/server-broker")" <<'SQL'
CREATE ROLE agentvault_owner LOGIN PASSWORD :'owner';
CREATE ROLE agentvault LOGIN PASSWORD :'broker';
CREATE DATABASE agentvault OWNER agentvault_owner;
SQL
