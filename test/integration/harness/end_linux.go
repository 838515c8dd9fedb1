package harness

import "syscall"

// endWithParent has the kernel kill a program whose test process is gone, as
// after a test timeout.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
