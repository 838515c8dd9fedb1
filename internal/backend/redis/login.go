package redis

import (
	"fmt"
	"net"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/secretfile"
)

// login is the user and password of connections. A file, if there is one, is read for
// each connection and takes precedence.
type login struct {
	user, password         string
	userFile, passwordFile string
}

func (l *login) credentials() (c rueidis.AuthCredentials, err error) {
	c = rueidis.AuthCredentials{Username: l.user, Password: l.password}
	if l.userFile != "" {
		if c.Username, err = ReadSecret(l.userFile); err != nil {
			return c, fmt.Errorf("user: %w", err)
		}
	}
	if l.passwordFile != "" {
		if c.Password, err = ReadSecret(l.passwordFile); err != nil {
			return c, fmt.Errorf("password: %w", err)
		}
	}
	return c, nil
}

// ReadSecret returns the content of a file without line ends at its end. The error
// names the file, and never its content.
func ReadSecret(path string) (string, error) {
	secret, err := secretfile.Read(path)
	if err == nil && len(secret) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return string(secret), err
}

// logins are the logins of the servers and of the sentinels. The library asks for both
// with only the address of the connection, so the type of the address distinguishes
// them.
type logins struct{ server, sentinel login }

// sentinelAddr is the address of a sentinel.
type sentinelAddr struct{ net.Addr }

// sentinelConn is a connection to a sentinel.
type sentinelConn struct{ net.Conn }

// RemoteAddr implements [net.Conn].
func (c sentinelConn) RemoteAddr() net.Addr { return sentinelAddr{c.Conn.RemoteAddr()} }

func (l *logins) credentials(at rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	if _, sentinel := at.Address.(sentinelAddr); sentinel {
		return l.sentinel.credentials()
	}
	return l.server.credentials()
}
