//go:build !unix

package lambdaruntime

import "net"

// block does nothing where Lambda doesn't run.
func block(net.Conn) {}
