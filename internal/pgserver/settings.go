package pgserver

// Settings make a server fast that need not survive a crash, and the same on
// every machine.
var Settings = []string{
	"fsync=off",
	"synchronous_commit=off",
	"full_page_writes=off",
	"autovacuum=off",
	"max_connections=300",
	"shared_buffers=32MB", // dropping a table searches all of them
	"timezone=UTC",
	"log_timezone=UTC",
	"log_min_messages=fatal",
}

// ClusterArgs are the arguments of initdb that decide what a cluster is like,
// wherever it is.
var ClusterArgs = []string{"--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"}
