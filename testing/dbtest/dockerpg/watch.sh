# Runs the entrypoint and the command that are the arguments, and ends it when
# for $THOLE_IDLE seconds no client has been connected. This is the container's
# first process: with it all others end.
#
# Before the first answer there are five minutes. Answers come by TCP, where an
# image's server for the first start does not listen. In the end a lock decides
# against a client that has just come: it must get the same to stay, and it is
# held until the server takes no client any more.
ask() {
	PGPASSWORD=$POSTGRES_PASSWORD PGCONNECT_TIMEOUT=5 psql --no-psqlrc --quiet --tuples-only --no-align \
		--host=127.0.0.1 --username=postgres --dbname=postgres --set=lock="$THOLE_LOCK" "$@" 2>/dev/null
}

others="select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"

watch() {
	left=300
	while sleep "$THOLE_STEP"; do
		left=$((left - THOLE_STEP))
		case $(ask --command="$others") in
		'') ;;
		0) [ "$left" -lt "$THOLE_IDLE" ] || left=$THOLE_IDLE ;;
		*) left=$THOLE_IDLE ;;
		esac
		[ "$left" -gt 0 ] || finish
	done
}

finish() {
	ask <<'END' || kill -KILL "$server"
select pg_try_advisory_lock(:lock) as free \gset
\if :free
\! kill -QUIT "$server"
select pg_sleep(60);
\endif
END
}

trap exit TERM
"$@" &
server=$!
export server
watch &
wait "$server"
