package harness

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill a program whose test process is gone, as
// after a test timeout.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
