#!/bin/sh
# Makes a password for each role of the store, once, readable by its reader alone.
# It runs as root in the image of AgentVault: compose.yaml, service "passwords".
set -eu
umask 077
folder=${1:-/passwords}
make() { # NAME OWNER
  [ -s "$folder/$1" ] && return
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/$1.new"
  chown "$2" "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
}
copy() { # FROM NAME OWNER
  cp "$folder/$1" "$folder/$2.new"
  chown "$3" "$folder/$2.new"
  mv "$folder/$2.new" "$folder/$2"
}
server=${POSTGRES_UID:-999} broker=${AGENTVAULT_UID:-10001}
make superuser "$server"
make server-owner "$server"
make server-broker "$server"
copy server-owner owner "$broker"
copy server-broker broker "$broker"
chmod 0711 "$folder"
