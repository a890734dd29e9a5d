package sqlite

import (
	"time"

	"github.com/tholedb/thole/internal/engine"
)

// Those who share a transaction wait for each other, also for one that does something slow inside its session. Nobody
// knows how long a session will last; but those that are opened at one place of the program mostly last as long as the
// ones before them.

// keptPlaces is how many places are kept.
const keptPlaces = 1000

// pace is how long the writer's sessions last, by where they come from, on average.
type pace map[place]time.Duration

// place is where a session was opened, or the text of a statement outside one.
type place struct {
	caller engine.Caller
	query  string
}

func placeOf(info *engine.Info) place {
	if info == nil {
		return place{}
	}
	return place{info.Caller, info.Query}
}

// of returns how long a session is expected to last.
func (p pace) of(info *engine.Info) time.Duration { return p[placeOf(info)] }

// note takes note of how long a session has lasted.
func (p pace) note(info *engine.Info, lasted time.Duration) {
	const weight = 8
	at := placeOf(info)
	average, known := p[at]
	if !known {
		average = lasted
		if len(p) >= keptPlaces {
			clear(p)
		}
	}
	p[at] = average + (lasted-average)/weight
}
