//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package pgserver

// memoryDirs returns folders that lie in memory: none is known here.
func memoryDirs() []string { return nil }
