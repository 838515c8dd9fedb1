//go:build linux

// Package container tests the image that the Dockerfile makes, without an engine:
// the binary is built by the Dockerfile's own command and runs as its user in a
// root that is empty but for what the Dockerfile copies, and that cannot be
// written. Around it stands whatever a compose file, a kubelet or Envoy Gateway
// would give it.
//
// The tests run in namespaces of their own, which need root, as putting the service into a
// root file system of its own does.
package container

import (
	"os"
	"testing"

	"github.com/distlimiter/ratelimit/test/namespace"
)

func TestMain(m *testing.M) { os.Exit(namespace.Main(m, buildImage)) }
