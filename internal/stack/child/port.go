package child

import (
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"strconv"
)

// Loopback is the address of a port on this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreePort is want if nobody listens there, else another one. It looks below the range from which the kernel takes the ports
// of outgoing connections (Linux: 32768): a port from that range may be somebody's when the stack comes back for it.
func FreePort(want int) (int, error) {
	for try := range 200 {
		port := 15_000 + mathrand.IntN(17_000)
		if try == 0 && want != 0 {
			port = want
		}
		l, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	l, err := net.Listen("tcp", Loopback(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
