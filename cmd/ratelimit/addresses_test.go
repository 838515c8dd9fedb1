package main

import (
	"os"
	"testing"
)

// TestAddresses shows where the service listens by what the environment says.
func TestAddresses(t *testing.T) {
	for name, tt := range map[string]struct {
		env               map[string]string
		grpc, http, admin string
	}{
		"nothing said": {nil, "127.0.0.1:8081", "127.0.0.1:8080", "127.0.0.1:6070"},
		"their way, with their hosts": {map[string]string{"RUNTIME_ROOT": "/data"},
			"0.0.0.0:8081", "0.0.0.0:8080", "0.0.0.0:6070"},
		"their way, from xDS": {map[string]string{"CONFIG_TYPE": "GRPC_XDS_SOTW"},
			"0.0.0.0:8081", "0.0.0.0:8080", "0.0.0.0:6070"},
		"their way, hosts and ports given": {map[string]string{"RUNTIME_ROOT": "/data", "GRPC_HOST": "::1", "PORT": "80", "DEBUG_HOST": "10.0.0.1"},
			"[::1]:8081", "0.0.0.0:80", "10.0.0.1:6070"},
		"ports alone": {map[string]string{"GRPC_PORT": "1", "PORT": "2", "DEBUG_PORT": "3"},
			"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		"an address wins": {map[string]string{"RUNTIME_ROOT": "/data", "GRPC_ADDR": "127.0.0.1:5", "GRPC_PORT": "6"},
			"127.0.0.1:5", "0.0.0.0:8080", "0.0.0.0:6070"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, unset := range []string{"GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"} {
				t.Setenv(unset, "")
				if err := os.Unsetenv(unset); err != nil {
					t.Fatal(err)
				}
			}
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var c commands
			parser, err := newParser(&c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse([]string{"serve", "--config", "rules.yaml"}); err != nil {
				t.Fatal(err)
			}
			if c.Serve.GRPCAddr != tt.grpc || c.Serve.HTTPAddr != tt.http || c.Serve.AdminAddr != tt.admin {
				t.Errorf("gRPC %s, HTTP %s, admin %s; want %s, %s, %s", c.Serve.GRPCAddr, c.Serve.HTTPAddr, c.Serve.AdminAddr, tt.grpc, tt.http, tt.admin)
			}
		})
	}
}
