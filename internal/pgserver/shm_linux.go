package pgserver

import "syscall"

// roomy is the space that a server with some databases shall find in memory. A
// container's /dev/shm often has 64 MB, which they would fill.
const roomy = 1 << 30

// memoryDirs returns folders that lie in memory.
func memoryDirs() []string {
	const shm = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || uint64(fs.Bsize)*fs.Bavail < roomy {
		return nil
	}
	return []string{shm}
}
