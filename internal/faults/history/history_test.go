package history_test

import (
	"strings"
	"testing"

	"github.com/tholedb/thole"
	"github.com/tholedb/thole/internal/faults/history"
)

// Each case is a history by hand, and what begins the one anomaly in it.
func TestAnomalies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		h    history.History
		want string
	}{
		{"nothing happened", history.History{}, ""},
		{"good", good(), ""},
		{"its own tokens are no news", of(lists("a#1/2 a#2/2"),
			session("a", "r0= w0=a#1/2 r0=a#1/2 w0=a#2/2 r0=a#1/2,a#2/2")), ""},
		{"lost", of(lists(""), session("a", "w0=a#1/1")), "lost: a"},
		{"in another list", of(lists("", "a#1/1"), session("a", "w0=a#1/1")), "lost: a"},
		{"half", of(lists("a#1/2", ""), told(thole.Unknown, "a", "w0=a#1/2 w1=a#2/2")), "half: of a 1 of 2"},
		{"unknown and absent", of(lists(""), told(thole.Unknown, "a", "w0=a#1/1")), ""},
		{"unknown and there", of(lists("a#1/1"), told(thole.Unknown, "a", "w0=a#1/1")), ""},
		{"false failure", of(lists("a#1/1"), told(thole.RolledBack, "a", "w0=a#1/1")), "false failure: a"},
		{"stranger", of(lists("z#1/1")), "stranger: z#1/1"},
		{"stranger expected", history.History{Lists: lists("z#1/1"), Partial: true}, ""},
		{"half a stranger", history.History{Lists: lists("z#1/2"), Partial: true}, "half: of z 1 of 2"},
		{"ran twice", of(lists("a#1/1 a#1/1"), session("a", "w0=a#1/1")), "duplicate: a#1/1"},
		{"nested session not undone", of(lists("a#undone"), session("a", "")), "not undone: a#undone"},
		{"G1a", of(lists(""), told(thole.RolledBack, "a", "w0=a#1/1"), session("b", "r0=a#1/1")), "G1a: b"},
		{"G1a of a nested session", of(lists(""), session("a", ""), session("b", "r0=a#undone")), "G1a: b"},
		{"G1a by one that failed", of(lists(""), told(thole.RolledBack, "a", "w0=a#1/1"), failed("b", "r0=a#1/1")), "G1a: b"},
		{"excused", of(lists(""), told(thole.RolledBack, "a", "w0=a#1/1"), told(thole.RolledBack, "b", "r0=a#1/1")), ""},
		{"G1b", of(lists("a#1/2 a#2/2"), session("a", "w0=a#1/2 w0=a#2/2"), failed("b", "r0=a#1/2")), "G1b: b"},
		{"lost update", of(lists("a#1/1 b#1/1"),
			session("a", "r0= w0=a#1/1"), session("b", "r0= w0=b#1/1")), "cycle: a, b"},
		{"write skew", of(lists("a#1/1", "b#1/1"),
			session("a", "r0= r1= w0=a#1/1"), session("b", "r0= r1= w1=b#1/1")), "cycle: a, b"},
		{"read skew", of(lists("a#1/2", "a#2/2"),
			session("a", "w0=a#1/2 w1=a#2/2"), session("b", "r0= r1=a#2/2")), "cycle: a, b"},
		{"writes in two orders", of(lists("a#1/2 b#1/2", "b#2/2 a#2/2"),
			session("a", "w0=a#1/2 w1=a#2/2"), session("b", "w0=b#1/2 w1=b#2/2")), "cycle: a, b"},
		{"reordered", of(lists("a#1/1 b#1/1"),
			session("a", "w0=a#1/1"), session("b", "w0=b#1/1"), session("c", "r0=b#1/1")), "lost or reordered: c"},
		{"stale", of(lists("a#1/1"), at(1, 2, session("a", "w0=a#1/1")), at(3, 4, session("b", "r0="))), "cycle: a, b"},
		{"stale after a third", of(lists("a#1/1"), at(1, 2, session("a", "w0=a#1/1")), at(3, 4, session("c", "")),
			at(5, 6, session("b", "r0="))), "cycle: a, b, c"},
		{"at the same time", of(lists("a#1/1"), at(1, 3, session("a", "w0=a#1/1")), at(2, 4, session("b", "r0="))), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := tc.h.Anomalies()
			if tc.want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || tc.want == "" || !strings.HasPrefix(got[0], tc.want) {
				t.Errorf("anomalies: got %q, want %q", got, tc.want)
			}
		})
	}
}

func good() history.History {
	return of(lists("a#1/1 b#1/2 c#1/1", "b#2/2"),
		at(1, 4, session("a", "r0= w0=a#1/1")),
		at(2, 6, session("b", "r0=a#1/1 w0=b#1/2 r1= w1=b#2/2")),
		at(3, 5, failed("f", "r0=a#1/1 r1=")),
		at(5, 8, session("c", "r0=a#1/1,b#1/2 w0=c#1/1")),
		at(9, 10, session("r", "r0=a#1/1,b#1/2,c#1/1 r1=b#2/2")))
}

func of(lists [][]string, sessions ...history.Session) history.History {
	return history.History{Lists: lists, Sessions: sessions}
}

func lists(texts ...string) [][]string {
	all := make([][]string, len(texts))
	for i, text := range texts {
		all[i] = strings.Fields(text)
	}
	return all
}

// session reads "r0=a#1/1,b#1/1" as a read of list 0, and "w0=c#1/1" as an
// append to it.
func session(id, text string) history.Session {
	s := history.Session{ID: id, Outcome: thole.Committed}
	for step := range strings.FieldsSeq(text) {
		list, tokens := int(step[1]-'0'), step[3:]
		if step[0] == 'w' {
			s.Appends = append(s.Appends, history.Append{List: list, Token: tokens})
			continue
		}
		read := history.Read{List: list}
		if tokens != "" {
			read.Tokens = strings.Split(tokens, ",")
		}
		s.Reads = append(s.Reads, read)
	}
	return s
}

func told(outcome thole.Outcome, id, text string) history.Session {
	s := session(id, text)
	s.Outcome = outcome
	return s
}

// failed is a session that its own error ended.
func failed(id, text string) history.Session {
	s := told(thole.RolledBack, id, text)
	s.Trusted = true
	return s
}

func at(began, ended int64, s history.Session) history.Session {
	s.Began, s.Ended = began, ended
	return s
}
