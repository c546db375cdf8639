// Command keyway serves LLM agents over HTTP and lets each caller do what the
// scopes of its token allow. It also signs tokens, makes keys, and explains and
// tests decisions for an operator.
package main

import "github.com/keyway-agents/keyway/shared/cli"

func main() { cli.Main(cli.Options{}) }
