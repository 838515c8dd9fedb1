package testprogram

import (
	"os/exec"
	"syscall"
)

// EndWithParent makes the kernel kill a program when the test process is gone, as
// after a test timeout. Call it before the program starts.
func EndWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
