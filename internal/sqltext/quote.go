package sqltext

import "strings"

// Quote writes names, with a dot between them, so that each is a name in either dialect, whatever it holds.
func Quote(names ...string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ".")
}
