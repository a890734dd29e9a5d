package pgclone

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// BenchmarkClone measures the life of a database: the copy, the first connection,
// and the drop, which no test waits for.
func BenchmarkClone(b *testing.B) {
	s := newTestServer(b, testServer(b))
	for _, n := range []int{0, 10, 100} {
		template := Template{Key: key(b), Build: tables(n)}
		if n == 0 {
			template = Template{}
		}
		clone(b, s, template).Drop()
		await(b, s)
		var db *Database
		steps := []struct {
			name string
			do   func()
		}{
			{"clone", func() { db = clone(b, s, template) }},
			{"connect", func() {
				conn, err := pgx.Connect(b.Context(), db.URL)
				if err != nil {
					b.Fatal(err)
				}
				execute(b, conn, "create table more ()")
				conn.Close(b.Context())
			}},
			{"drop", func() { db.Drop(); await(b, s) }},
		}
		for i, step := range steps {
			b.Run(fmt.Sprintf("tables=%d/%s", n, step.name), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					for _, before := range steps[:i] {
						before.do()
					}
					b.StartTimer()
					step.do()
					b.StopTimer()
					for _, after := range steps[i+1:] {
						after.do()
					}
					b.StartTimer()
				}
			})
		}
	}
}
