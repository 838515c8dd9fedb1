package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/secretfile"
)

// Access defines who may use the admin address.
type Access struct {
	// TokenFile holds the bearer token that requests must bring. Empty: none. It is
	// read for each request, so that the token can be replaced while serving.
	TokenFile string
	// ClientCertificates is set if the listener only accepts connections with a
	// client certificate that it has verified.
	ClientCertificates bool
	// ReadOnly refuses all changes.
	ReadOnly bool

	// Names says how an operator sets these, and the address.
	Names named.Fields

	public bool // whether other machines can reach the address
}

// minToken is the least length of a token in bytes.
const minToken = 16

// On returns the Access of this address. It is an error if anybody could change rules
// there, or if the token cannot be used.
func (a Access) On(addr net.Addr) (Access, error) {
	a.public = !isLoopback(addr.String())
	if a.TokenFile != "" {
		_, err := a.token()
		return a, err
	}
	if a.ForAnyone() && !a.ReadOnly {
		return a, fmt.Errorf("other machines could reach %s and change rules there: set %s, or %s, or %s, or listen on 127.0.0.1",
			addr, a.Names.Of("Admin.TokenFile"), a.Names.Of("Admin.TLS"), a.Names.Of("Admin.ReadOnly"))
	}
	return a, nil
}

// ForAnyone reports whether other machines can reach the address without
// authentication.
func (a Access) ForAnyone() bool { return a.public && a.anonymous() }

func (a Access) anonymous() bool { return a.TokenFile == "" && !a.ClientCertificates }

// isLoopback reports whether host, or host:port, is an address of loopback.
func isLoopback(hostPort string) bool {
	host := hostPort
	if h, _, err := net.SplitHostPort(hostPort); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// token reads the token.
func (a Access) token() ([]byte, error) {
	text, err := secretfile.Read(a.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("the admin token: %w", err)
	}
	token := bytes.TrimSpace(text)
	if len(token) < minToken {
		return nil, fmt.Errorf("the admin token in %s has %d bytes: use at least %d, such as the output of `openssl rand -hex 32`", a.TokenFile, len(token), minToken)
	}
	return token, nil
}

// Warning returns a warning if other users can read or replace the token; "" if they
// cannot.
func (a Access) Warning() string {
	if a.TokenFile == "" {
		return ""
	}
	info, err := os.Stat(a.TokenFile)
	if err != nil {
		return "" // token reports it
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		return fmt.Sprintf("users other than its owner can replace the admin token in %s (mode %#o): chmod 600 it", a.TokenFile, mode)
	case mode&0o004 != 0:
		return fmt.Sprintf("any user of this machine can read the admin token in %s (mode %#o): chmod 600 it, or mount the secret with defaultMode: 0440", a.TokenFile, mode)
	}
	return ""
}

// open has the paths that anybody who reaches the address may read: they show neither
// rules nor values that clients send.
var open = map[string]bool{"/": true, "/openapi.yaml": true, "/healthcheck": true, "/metrics": true}

func isOpen(path string) bool { return open[path] || strings.HasPrefix(path, "/page/") }

// guard passes to next the requests that are allowed: see Access. It always refuses
// writes by a page of another origin in a browser.
func (a Access) guard(next http.Handler, log *zap.Logger) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := a.refusal(r, crossOrigin); p != nil {
			// On an address for anyone, refusals could fill the log.
			if !a.ForAnyone() {
				log.Warn("admin request refused", zap.String("remote", r.RemoteAddr), zap.String("method", r.Method),
					zap.String("path", abridge(r.URL.Path)), zap.Int("status", p.Status), zap.String("why", abridge(p.Detail)), zap.Error(p.cause))
			}
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			writeProblem(w, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isForeign reports whether a request to an address on loopback uses a host name that is
// not one of loopback. Anybody may own a name that resolves to loopback. A browser would
// treat a page of that name as one of this address.
func isForeign(r *http.Request) bool { return !isLoopback(r.Host) }

// isOfAnotherOrigin reports whether a browser says that a request comes from a page of
// another origin. That is so of a page of this host on another port, too: same-site.
func isOfAnotherOrigin(r *http.Request) bool {
	from := r.Header.Get("Sec-Fetch-Site")
	return from != "" && from != "none" && from != "same-origin"
}

// RequireLoopbackHost passes a request to next if addr is not on loopback, or if the request names
// its host as one of loopback. It refuses all others.
func RequireLoopbackHost(addr net.Addr, next http.Handler) http.Handler {
	if !isLoopback(addr.String()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isForeign(r) {
			http.Error(w, fmt.Sprintf("the request calls this address %q: use 127.0.0.1 or localhost", abridge(r.Host)), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusal returns why a request is refused; nil if it is not.
func (a Access) refusal(r *http.Request, crossOrigin *http.CrossOriginProtection) *problem {
	if a.anonymous() && !a.public && isForeign(r) && !isOpen(r.URL.Path) {
		return refuse(http.StatusMisdirectedRequest, "the request calls this address %q: use 127.0.0.1 or localhost, or set %s", r.Host, a.Names.Of("Admin.TokenFile"))
	}
	if err := crossOrigin.Check(r); err != nil {
		return refuse(http.StatusForbidden, "a page of another origin cannot write here: %v", err)
	}
	if (strings.HasPrefix(r.URL.Path, "/debug/") || r.URL.Path == livePath) && isOfAnotherOrigin(r) {
		return refuse(http.StatusForbidden, "a page of another origin can neither take profiles nor watch decisions here")
	}
	if !isOpen(r.URL.Path) || !isRead(r) {
		if p := a.checkToken(r); p != nil {
			return p
		}
	}
	switch {
	case a.ReadOnly && !isRead(r) && r.URL.Path != explainPath:
		return refuseAs(readOnly, "The address is read-only", http.StatusForbidden,
			"nothing can be changed here: start the service %s; and without %s", a.secured(), a.Names.Of("Admin.ReadOnly"))
	case a.ForAnyone() && showsValues(r.URL.Path):
		return refuseAs(readOnly, "The address is for anyone", http.StatusForbidden,
			"values that clients send are not for anyone who reaches this address: start the service %s", a.secured())
	}
	return nil
}

// secured returns the ways to start a service whose address is not for anyone.
func (a Access) secured() string {
	return fmt.Sprintf("with %s, or with %s, or with %s on 127.0.0.1", a.Names.Of("Admin.TokenFile"), a.Names.Of("Admin.TLS"), a.Names.Of("Admin.Addr"))
}

// showsValues reports whether an answer holds values that clients have sent, such as
// names of users: the hottest counters of a rule, the state of a counter, or decisions.
func showsValues(path string) bool {
	return path == livePath || strings.HasPrefix(path, "/admin/stats/") || strings.HasPrefix(path, "/admin/counters")
}

// checkToken returns why the token of a request is not accepted; nil if it is.
func (a Access) checkToken(r *http.Request) *problem {
	if a.TokenFile == "" {
		return nil
	}
	want, err := a.token()
	if err != nil {
		p := refuse(http.StatusServiceUnavailable, "the token can't be checked: the log of the service says why")
		p.cause = err
		return p
	}
	if !carries(r.Header["Authorization"], want) {
		return refuse(http.StatusUnauthorized, "send the token as Authorization: Bearer …")
	}
	return nil
}

// carries reports whether the Authorization header is the token. It refuses a second
// value, because a proxy might read another of the two than this function.
func carries(values []string, token []byte) bool {
	if len(values) != 1 {
		return false
	}
	scheme, given, _ := strings.Cut(values[0], " ")
	// Digests have one length, so the time of the comparison reveals nothing.
	x, y := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256(token)
	return strings.EqualFold(scheme, "bearer") && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// mostLogged bounds in the log, in bytes, a text that anybody may send.
const mostLogged = 256

func abridge(text string) string {
	if len(text) <= mostLogged {
		return text
	}
	return text[:mostLogged] + "…"
}

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// who returns the sender of a request, as far as it is known.
func (a Access) who(r *http.Request) string {
	var names []string
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		names = append(names, r.TLS.VerifiedChains[0][0].Subject.String())
	}
	if a.TokenFile != "" {
		names = append(names, "token")
	}
	if names == nil {
		return "loopback"
	}
	return strings.Join(names, ", ")
}
