package bound

import "github.com/keyway-agents/keyway/shared/fault"

// The texts of single fields have pydantic's words where it has such a constraint.
const (
	textTooLong   = "String should have at most {max} bytes, not {sent}"
	listTooLong   = "List should have at most {max} items after validation, not {sent}"
	objectTooLong = "Value error, Object should have at most {max} bytes, not {sent}"
)

// The request as a whole.
var (
	// Body is the largest request body.
	Body = add(Bound{
		Name: "body", Of: "Request body, in bytes", Default: 10 << 20,
		Kind: fault.TooLarge, Text: "The request body is larger than 10 MB",
		Why: "API Gateway's limit. A function gets at most 6 MB, Lambda's limit.",
	})
	// MCPRoom is what the body of a message of MCP may have beside its texts.
	MCPRoom = add(Bound{
		Name: "mcp_room", Of: "Body of POST /mcp, in bytes, beside the largest message and the largest tool_results " +
			"that the settings allow", Default: 2 << 20,
		Kind: fault.TooLarge, Text: "The body of a request to /mcp is too large",
		Why: "JSON's escapes can double a text. With the default settings, a body has at most 4 MB.",
	})
	// MCPValues is the number of values in a message of MCP.
	MCPValues = add(Bound{
		Name: "mcp_values", Of: "Values in the body of POST /mcp, at all depths: texts, numbers, objects and so on",
		Default: 10_000, Kind: fault.Invalid, Text: "A message has at most {max} values",
		Why: "A thousand decisions have 4,000. Decoded, a value takes some hundred bytes.",
	})
	// MCPDepth is how many objects and arrays may enclose a value in a message of MCP.
	MCPDepth = add(Bound{
		Name: "mcp_depth", Of: "Objects and arrays that enclose a value in the body of POST /mcp", Default: 100,
		Kind: fault.Invalid, Text: "At most {max} objects and arrays may enclose a value",
		Why: "The arguments of tools have a few.",
	})
	// Faults is the number of wrong inputs that one answer lists.
	Faults = add(Bound{
		Name: "faults", Of: "Wrong inputs that one answer lists; total is the number of all", Default: 20,
		Kind: fault.Unprocessable, Text: "",
		Why: "An answer must not be larger than the request that caused it.",
	})
	// Fields is the number of fields of a form or a query, files included.
	Fields = add(Bound{
		Name: "fields", Of: "Fields of a form or of a query, files included", Default: 1000,
		Kind: fault.Unprocessable, Text: "Value error, at most {max} fields are accepted, not {sent}",
		Why: "The peer's limit for forms.",
	})
	// Members is the number of members of a JSON body.
	Members = add(Bound{
		Name: "members", Of: "Members of a JSON body, without those inside of them", Default: 1000,
		Kind: fault.Unprocessable, Text: "Value error, at most {max} members are accepted, not {sent}",
		Why: "No body has more than a dozen known members.",
	})
	// Elements is the number of elements of a list in a body.
	Elements = add(Bound{
		Name: "elements", Of: "Elements of a list in a body, such as session_ids and memory_ids", Default: 1000,
		Kind: fault.Unprocessable, Text: listTooLong,
		Why: "One page of a list has at most as many.",
	})
	// Decisions is the number of requests that one request asks about.
	Decisions = add(Bound{
		Name: "decisions", Of: "requests of POST /can", Default: 200,
		Kind: fault.Unprocessable, Text: listTooLong,
		Why: "A page about some 60 agents with three actions each.",
	})
	// Days is the number of days of metrics.
	Days = add(Bound{
		Name: "days", Of: "Days from starting_date to ending_date of GET /metrics and GET /usage", Default: 92,
		Kind: fault.Unprocessable, Text: "Value error, at most {max} days are accepted, not {sent}",
		Why: "The numbers are computed from the runs of these days.",
	})
	// File is the size of a keyway.yaml in a request.
	File = add(Bound{
		Name: "keyway_yaml", Of: "The body of POST /diff, in bytes", Default: 256 << 10,
		Kind: fault.TooLarge, Text: "The file is larger than 256 KB",
		Why: "A file with hundreds of agents has some 100 KB.",
	})
	// Filters is the number of values of one parameter in a query.
	Filters = add(Bound{
		Name: "filters", Of: "Values of one repeated parameter of a query", Default: 100,
		Kind: fault.Unprocessable, Text: listTooLong,
		Why: "There are seven statuses, and a memory has at most 50 topics.",
	})
	// ShortText is the size of an id and of most parameters.
	ShortText = add(Bound{
		Name: "short_text", Of: "An id of something that exists, a filter or a parameter of a query, in bytes", Default: 1024,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "The size of a subject in the database.",
	})
	// NewID is the size of an id that a caller chooses.
	NewID = add(Bound{
		Name: "new_id", Of: "The id of a new session, in bytes", Default: 255,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "The size of a session's id in the database.",
	})
	// TokenID is the size of a token's id in a revocation.
	TokenID = add(Bound{
		Name: "token_id", Of: "jti of a revocation, in bytes", Default: 512,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "The size of a token's id in the database.",
	})
	// Key is the size of an idempotency key.
	Key = add(Bound{
		Name: "idempotency_key", Of: "The header Idempotency-Key, in bytes", Default: 512,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "The size of a key in the database.",
	})
)

// What a run is started or continued with.
var (
	// Message is the size of the user's message.
	Message = add(Bound{
		Name: "message", Of: "The message of a run, in bytes", Default: 1 << 20,
		Settable: true, Kind: fault.Unprocessable, Text: textTooLong,
		Why: "Some 250,000 tokens, more than most models read.",
	})
	// Files is the number of files of a run.
	Files = add(Bound{
		Name: "files", Of: "Files of a run", Default: 50,
		Settable: true, Kind: fault.Unprocessable, Text: listTooLong,
		Why: "Far more than a person attaches.",
	})
	// FileSize is the size of one file.
	FileSize = add(Bound{
		Name: "file_size", Of: "One file of a run, in bytes", Default: 2 << 20,
		Settable: true, Kind: fault.Unprocessable, Text: "Value error, a file should have at most {max} bytes, not {sent}",
		Why: "Some 500,000 tokens of text.",
	})
	// FilesSize is the size of all files of a run.
	FilesSize = add(Bound{
		Name: "files_size", Of: "All files of a run together, in bytes", Default: 4 << 20,
		Settable: true, Kind: fault.Unprocessable,
		Text: "Value error, the files should have at most {max} bytes together, not {sent}",
		Why:  "Some 1,000,000 tokens, as much as the largest models read.",
	})
	// FileName is the size of the name of a file.
	FileName = add(Bound{
		Name: "file_name", Of: "The name of a file, in bytes", Default: 255,
		Kind: fault.Invalid, Text: "files: the name of a file must be valid UTF-8 of at most {max} bytes",
		Why: "The limit of file systems.",
	})
	// Conversation is the size of a conversation that the client of a door sends.
	Conversation = add(Bound{
		Name:    "conversation",
		Of:      "The conversation before the message of a run, which clients of other protocols send, in bytes",
		Default: 1 << 20, Kind: fault.Unprocessable,
		Text: "The conversation before the message should have at most {max} bytes, not {sent}",
		Why:  "As much as a message. It is stored with the run.",
	})
	// Messages is the number of messages in such a conversation.
	Messages = add(Bound{
		Name: "messages", Of: "Messages in such a conversation, and elements of the other lists beside it", Default: 10_000,
		Kind: fault.Invalid, Text: "{max} elements",
		Why: "A thread of years. Clients send all of its messages with each request.",
	})
	// ToolResults is the size of the decisions about a paused run.
	ToolResults = add(Bound{
		Name: "tool_results", Of: "tools of a request to continue a run, in bytes", Default: 1 << 20,
		Settable: true, Kind: fault.Unprocessable, Text: textTooLong,
		Why: "The model reads the results, as it reads a message.",
	})
	// ToolCalls is the number of the decisions about a paused run.
	ToolCalls = add(Bound{
		Name: "tool_calls", Of: "Tool calls in tools of a request to continue a run", Default: 1000,
		Kind: fault.Unprocessable, Text: listTooLong,
		Why: "A model may request 128 in one answer.",
	})
	// Turns is the number of messages of a conversation that a client sends.
	Turns = add(Bound{
		Name: "turns", Of: "Messages of a conversation that a client sends with a run, by another API than AgentOS's",
		Default: 2000, Kind: fault.Invalid, Text: listTooLong,
		Why: "A thousand questions and answers.",
	})
	// Parts is the number of parts of these messages.
	Parts = add(Bound{
		Name: "parts", Of: "Parts of these messages together", Default: 5000,
		Kind: fault.Invalid, Text: "at most {max} parts are accepted in all messages together",
		Why: "A message has a few.",
	})
	// References is the number of these messages that a client only names.
	References = add(Bound{
		Name: "references", Of: "Messages that a client names by their ids instead of repeating them", Default: 100,
		Kind: fault.Invalid, Text: "at most {max} messages can be named by their ids; send their texts",
		Why: "Each is read from the database.",
	})
	// History is the size of these messages without the last ones of the user.
	History = add(Bound{
		Name: "history", Of: "The texts of these messages, without those behind the agent's last one, in bytes",
		Default: 4 << 20, Kind: fault.Invalid, Text: "The conversation should have at most {max} bytes, not {sent}",
		Why: "Some 1,000,000 tokens, as much as the largest models read.",
	})
)

// What a caller may hold open. Each process counts for itself.
var (
	// Followers is the number of clients that follow runs.
	Followers = add(Bound{
		Name:    "followers",
		Of:      "Requests of one process that follow a run: resume, and requests repeated with an Idempotency-Key",
		Default: 1000, Kind: fault.Unavailable, Text: "Too many clients follow runs on this server, try again",
		Why: "Each holds some 128 KB until its client has received them.",
	})
	// FollowersOfRun is the number of clients that follow one run.
	FollowersOfRun = add(Bound{
		Name: "followers_of_run", Of: "The same for one run",
		Default: 50, Kind: fault.LimitReached, Text: "At most {max} clients can follow one run on this server, try again",
		Why: "A person has a few windows.",
	})
	// FollowersOfCaller is the number of runs that one caller follows.
	FollowersOfCaller = add(Bound{
		Name: "followers_of_caller", Of: "The same for one subject of an issuer",
		Default: 200, Kind: fault.LimitReached,
		Text: "At most {max} requests of one caller can follow runs on this server, try again",
		Why:  "One caller must leave room for the others.",
	})
)

// What a session and a memory hold.
var (
	// SessionState is the size of a session's state.
	SessionState = add(Bound{
		Name: "session_state", Of: "session_state of a request, and the state of a session after the merge, in bytes",
		Default: 256 << 10, Settable: true, Kind: fault.Unprocessable, Text: objectTooLong,
		Why: "A state is for settings and progress, and is sent with the end of each run.",
	})
	// Metadata is the size of the metadata of a session or a run.
	Metadata = add(Bound{
		Name: "metadata", Of: "metadata of a session or a run, in bytes", Default: 64 << 10,
		Settable: true, Kind: fault.Unprocessable, Text: objectTooLong,
		Why: "Metadata are labels.",
	})
	// Summary is the size of a session's summary.
	Summary = add(Bound{
		Name: "summary", Of: "summary of a session, in bytes", Default: 64 << 10,
		Kind: fault.Unprocessable, Text: objectTooLong,
		Why: "A summary is shorter than what it sums up.",
	})
	// SessionName is the size of a session's name.
	SessionName = add(Bound{
		Name: "session_name", Of: "session_name, in bytes", Default: 4 << 10,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "A session without a name gets the first 1,000 characters of a message.",
	})
	// Memory is the size of a memory.
	Memory = add(Bound{
		Name: "memory", Of: "The text of a memory, in characters", Default: 5000,
		Kind: fault.Unprocessable, Text: "String should have at most {max} characters",
		Why: "The peer's limit.",
	})
	// Topics is the number of topics of a memory.
	Topics = add(Bound{
		Name: "topics", Of: "Topics of a memory", Default: 50,
		Kind: fault.Unprocessable, Text: listTooLong,
		Why: "Topics are for searching.",
	})
	// Topic is the size of a topic.
	Topic = add(Bound{
		Name: "topic", Of: "A topic of a memory, in bytes", Default: 255,
		Kind: fault.Unprocessable, Text: textTooLong,
		Why: "A topic is a word or two.",
	})
)
