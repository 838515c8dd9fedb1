package harness

import (
	"slices"
	"testing"
)

func TestSettingsOfTheShellStayOutside(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1")
	t.Setenv("GRPC_FRONT", "lean")
	t.Setenv("GORACE", "halt_on_error=1")
	environment := Environment("REPLICAS=2")
	if slices.Contains(environment, "REDIS_URL=redis://127.0.0.1:1") {
		t.Errorf("REDIS_URL of the shell is in %q", environment)
	}
	for _, want := range []string{"GRPC_FRONT=lean", "REPLICAS=2"} {
		if !slices.Contains(environment, want) {
			t.Errorf("%s is not in %q", want, environment)
		}
	}
	if own, theirs := slices.Index(environment, "GORACE=atexit_sleep_ms=10"), slices.Index(environment, "GORACE=halt_on_error=1"); theirs < own {
		t.Errorf("GORACE of the shell does not come last in %q", environment)
	}
}

func TestVariablesComeBeforeFlags(t *testing.T) {
	for _, tt := range []struct{ settings, variables, flags []string }{
		{nil, nil, nil},
		{[]string{"A=1", "B_2="}, []string{"A=1", "B_2="}, nil},
		{[]string{"--a", "b", "C=1"}, nil, []string{"--a", "b", "C=1"}},
		{[]string{"A=1", "--b", "C=1"}, []string{"A=1"}, []string{"--b", "C=1"}},
	} {
		if variables, flags := split(tt.settings); !slices.Equal(variables, tt.variables) || !slices.Equal(flags, tt.flags) {
			t.Errorf("%q: %q and %q, want %q and %q", tt.settings, variables, flags, tt.variables, tt.flags)
		}
	}
}
