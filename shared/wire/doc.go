// Package wire contains AgentOS's contract as Go types: the JSON bodies of requests and
// answers, member by member in the order that AgentOS 3.1.10 writes them, and the framing
// of server-sent events. It decides nothing, and it knows neither HTTP nor storage.
package wire

// The members have AgentOS's names and meanings; the recordings in acceptance/testdata
// show them. A member without omitempty is always present, also if it is null.
//
// If the Go type of a field doesn't say what the member contains, the struct tag holds
// does. The generator of the OpenAPI document reads it: alternatives separated by |, each
// of which is the name of a struct in this package, object, null or any. [] after a name
// makes it a list.
