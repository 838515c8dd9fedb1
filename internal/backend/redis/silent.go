package redis

import (
	"bytes"
	"net"
)

// silentConn hides HELLO from the other side, which may close the connection because
// of it. The library begins each connection with HELLO 2, even if it is configured for
// RESP2 only. silentConn answers that the command is unknown, and the library goes on
// without it.
type silentConn struct {
	net.Conn
	begun  bool   // whether anything was written
	before int    // replies to read before the answer
	answer []byte // bytes to read before those of the connection
}

var (
	hello     = []byte("*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n")
	noCommand = "-ERR unknown command 'HELLO'\r\n"
)

// Write implements [net.Conn]. The first commands of a connection come in one piece:
// AUTH if there is a password, HELLO, and SELECT if there is a database.
func (c *silentConn) Write(p []byte) (int, error) {
	if c.begun {
		return c.Conn.Write(p)
	}
	c.begun = true
	auth, rest, found := bytes.Cut(p, hello)
	if !found {
		return c.Conn.Write(p)
	}
	c.answer = []byte(noCommand)
	if len(auth) > 0 {
		c.before = 1
	}
	if others := append(bytes.Clone(auth), rest...); len(others) > 0 {
		if _, err := c.Conn.Write(others); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Read implements [net.Conn].
func (c *silentConn) Read(p []byte) (int, error) {
	switch {
	case len(c.answer) == 0:
		return c.Conn.Read(p)
	case c.before == 0:
		n := copy(p, c.answer)
		c.answer = c.answer[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	end := bytes.IndexByte(p[:n], '\n') + 1 // of the reply to AUTH, which is one line
	if end == 0 {
		return n, err
	}
	c.before = 0
	c.answer = append(c.answer, p[end:n]...)
	return end, err
}
