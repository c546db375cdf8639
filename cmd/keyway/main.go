// Command keyway serves agents to whom their token allows, and answers an
// operator's questions about keys, tokens and decisions.
package main

import "github.com/keyway-agents/keyway/shared/cli"

func main() { cli.Main(cli.Own{}) }
