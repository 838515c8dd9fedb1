package main

import (
	"net"
	"os/exec"
	"testing"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func TestFirstCommand(t *testing.T) {
	tcp := net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081})
	const limit = "rate_limit: {unit: minute, requests_per_unit: 10}"
	for _, tt := range []struct {
		name, descriptors, program string
		addr                       net.Addr
		tls                        bool
		want                       string
	}{
		{"as it comes", "[{key: user, " + limit + "}]", "ratelimit", tcp, false, "ratelimit hit --domain edge user=demo -n 20"},
		{"from elsewhere", "[{key: user, " + limit + "}]", "bin/rate limit", tcp, false, "'bin/rate limit' hit --domain edge user=demo -n 20"},
		{"quoted for the shell", `[{key: q, value: "it's, $HOME", ` + limit + "}]", "ratelimit", tcp, false, `ratelimit hit --domain edge 'q=it'\''s\, $HOME' -n 20`},
		{"many hits", "[{key: a, rate_limit: {unit: day, requests_per_unit: 1000}}]", "ratelimit", tcp, false, "ratelimit hit --domain edge a=demo -n 20 --hits 100"},
		{"another address", "[{key: user, " + limit + "}]", "ratelimit", &net.TCPAddr{IP: net.IPv6zero, Port: 1}, false, "ratelimit hit --domain edge user=demo -n 20 --addr '[::]:1'"},
		{"a socket with TLS", "[{key: user, " + limit + "}]", "ratelimit", &net.UnixAddr{Net: "unix", Name: "/run/r.sock"}, true, "ratelimit hit --domain edge user=demo -n 20 --addr unix:/run/r.sock --tls"},
		{"a limit that no few requests show", "[{key: a, rate_limit: {unit: minute, requests_per_unit: 0}}]", "ratelimit", tcp, false, "ratelimit hit --help (twenty requests in a row do not show any of these limits)"},
		{"nothing limited", "[{key: a, rate_limit: {unlimited: true}}]", "ratelimit", tcp, false, "add a rate_limit to the rules: they limit nothing yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := rulefile.Parse([]rulefile.Source{{Name: "r.yaml", Data: []byte("{domain: edge, descriptors: " + tt.descriptors + "}")}}, rulefile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			started := app.Started{GRPC: tt.addr, TLS: tt.tls, Rules: rules, Matcher: descriptor.Compile(rules)}
			if got := firstCommand(started, tt.program); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestShellWord(t *testing.T) {
	for _, word := range []string{"user=alice,path=/x", "", "a b", "it's", `$HOME`, "`x`", "a\nb", "*"} {
		printed, err := exec.Command("sh", "-c", "printf %s "+shellWord(word)).Output()
		if err != nil || string(printed) != word {
			t.Errorf("a shell reads %s as %q, want %q (error %v)", shellWord(word), printed, word, err)
		}
	}
	if got := shellWord("user=alice"); got != "user=alice" {
		t.Errorf("quoted without need: %s", got)
	}
}
