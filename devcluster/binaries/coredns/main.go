// Command coredns is CoreDNS with the plugins a cluster's Services need and no cloud provider's.
//
// The full CoreDNS links some ninety plugins; leaving them out saves two minutes of build and 60 MB, and it shares the
// Kubernetes client with the binary beside it.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	coremain.Run()
}
