package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/client"
)

// remote is where the commands send their requests that use a server as its clients do.
type remote struct {
	URL   string `name:"url" placeholder:"URL" help:"${help_url}"`
	Token string `placeholder:"TOKEN" help:"${help_token}"`
}

// open returns a client of the server.
func (r remote) open(e env) (*client.Client, error) {
	token, err := e.readToken(r.Token)
	if err != nil {
		return nil, err
	}
	address, _ := e.lookup("KEYWAY_URL")
	return &client.Client{URL: cmp.Or(r.URL, address, "http://127.0.0.1:7777"), Token: token}, nil
}

// runCmd runs an agent on a server.
type runCmd struct {
	remote
	Agent   string `arg:"" help:"The id of the agent."`
	Message string `arg:"" help:"The message; - reads it from standard input."`
	Session string `placeholder:"ID" help:"The session. Defaults to a new one."`
	Yes     bool   `help:"Confirm every tool call that asks for it."`
}

// Help adds examples to the command's --help.
func (runCmd) Help() string {
	return `Sends the message and prints the answer as it arrives. Tool calls are shown on standard error. For a
call that needs a confirmation the command asks; without an answer the run stays paused. Ctrl-C
cancels the run. A connection that is lost is resumed. With --json, each event is one line.

Exit status 0: completed, 1: failed, refused or cancelled, 4: the run waits for a person.

  keyway run assistant "What is new?"
  keyway run assistant "And yesterday?" --session s-1 --token @ann.jwt --url https://agents.example.com
  git diff | keyway run reviewer - --json`
}

// maxMessage is how much of standard input is read, in bytes. The server's own bound is 1 MB by default.
const maxMessage = 16 << 20

// Run runs the agent.
func (c runCmd) Run(ctx context.Context, e env) error {
	if c.Message == "-" {
		if c.Token == "-" {
			return usage("the message and --token can't both come from standard input")
		}
		text, err := io.ReadAll(io.LimitReader(e.in, maxMessage))
		if err != nil {
			return err
		}
		c.Message = string(text)
	}
	server, err := c.open(e)
	if err != nil {
		return err
	}
	t := talk{env: e, server: server, agent: c.Agent, yes: c.Yes, answers: bufio.NewReader(e.in)}
	end, err := t.say(ctx, c.Message, c.Session)
	switch {
	case err != nil:
		return err
	case end.Name == "RunPaused":
		return silent(exitPaused)
	case end.Name != "RunCompleted":
		return silent(exitFailure)
	}
	return nil
}

// chatCmd talks to an agent, one line after the other.
type chatCmd struct {
	remote
	Agent   string `arg:"" help:"The id of the agent."`
	Session string `placeholder:"ID" help:"The session. Defaults to a new one."`
	Yes     bool   `help:"Confirm every tool call that asks for it."`
}

// Help adds examples to the command's --help.
func (chatCmd) Help() string {
	return `Reads a message from each line of standard input and prints the answer as it arrives, in one session.
Ctrl-C cancels the answer; at the prompt, Ctrl-C or Ctrl-D ends the command.

  keyway chat assistant
  keyway chat assistant --session s-1 --url https://agents.example.com --token @ann.jwt`
}

// Run talks until the input ends.
func (c chatCmd) Run(ctx context.Context, e env) error {
	if c.Token == "-" {
		return usage("--token -: standard input is for the messages; use --token @FILE or KEYWAY_TOKEN")
	}
	server, err := c.open(e)
	if err != nil {
		return err
	}
	t := talk{env: e, server: server, agent: c.Agent, yes: c.Yes, answers: bufio.NewReader(e.in)}
	session := cmp.Or(c.Session, uuid.NewString())
	fmt.Fprintf(e.err, "session %s\n", session)
	for {
		fmt.Fprint(e.err, "> ")
		line, err := t.answers.ReadString('\n')
		if message := strings.TrimSpace(line); message != "" {
			_, err := t.say(ctx, message, session)
			_, refused := errors.AsType[*client.Error](err)
			switch {
			case refused, errors.Is(err, errCancelled): // The next message may be answered.
				_ = e.report(err)
			case err != nil:
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// talk shows the runs of one agent to a person, or as JSON to a program.
type talk struct {
	env
	server  *client.Client
	agent   string
	yes     bool
	answers *bufio.Reader
}

// cancelTime is how long the request to cancel a run may take.
const cancelTime = 5 * time.Second

// say runs the agent to the end of the run, or to a pause that nobody answers, and returns the last event.
func (t talk) say(ctx context.Context, message, session string) (last client.Event, err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	events := t.server.Run(ctx, t.agent, client.Input{Message: message, SessionID: session})
	for {
		if last, err = t.show(events); err != nil {
			if ctx.Err() != nil && last.RunID != "" {
				stop() // A second Ctrl-C ends the process.
				return last, t.cancel(last)
			}
			return last, err
		}
		if last.Name != "RunPaused" {
			return last, nil
		}
		decisions, ok := t.decide(last)
		if !ok {
			return last, nil
		}
		events = t.server.Continue(ctx, last, decisions)
	}
}

// errCancelled means that the person has cancelled the run.
var errCancelled = errors.New("cancelled the run")

// cancel cancels the run of an event.
func (t talk) cancel(e client.Event) error {
	ctx, done := context.WithTimeout(context.Background(), cancelTime)
	defer done()
	if err := t.server.Cancel(ctx, e.AgentID, e.RunID); err != nil {
		return fmt.Errorf("the run %s was not cancelled and may continue: %w", e.RunID, err)
	}
	return fmt.Errorf("%w: %s", errCancelled, e.RunID)
}

// show prints events and returns the last one.
func (t talk) show(events iter.Seq2[client.Event, error]) (last client.Event, err error) {
	open := false // whether the last line of the answer is not complete
	for e, err := range events {
		if err != nil {
			if open {
				fmt.Fprintln(t.out)
			}
			return last, err
		}
		last = e
		if t.cli.JSON {
			fmt.Fprintf(t.out, "%s\n", e.Raw)
			continue
		}
		if e.Name == "RunContent" {
			fmt.Fprint(t.out, plain(e.Content))
			if e.Content != "" {
				open = !strings.HasSuffix(e.Content, "\n")
			}
			continue
		}
		line := noteOf(e)
		if (line != "" || e.Ends()) && open {
			fmt.Fprintln(t.out)
			open = false
		}
		if line != "" {
			fmt.Fprintln(t.err, line)
		}
	}
	return last, nil
}

// noteOf returns a line about an event that is not text of the answer, or "".
func noteOf(e client.Event) string {
	switch e.Name {
	case "ToolCallStarted", "ToolCallError":
		if e.Tool == nil {
			return ""
		}
		if e.Name == "ToolCallError" {
			return "tool " + inLine(e.Tool.Name) + " failed"
		}
		const most = 500
		text := call(*e.Tool)
		if len(text) > most {
			text = strings.ToValidUTF8(text[:most], "") + "…"
		}
		return "tool " + text
	case "RunError":
		return "error: " + plain(e.Content)
	case "RunCancelled":
		return "the run was cancelled"
	}
	return ""
}

// call returns a tool call in one line.
func call(c client.Tool) string { return inLine(c.Name) + inLine(string(c.Args)) }

// maxConfirmed is the size of the arguments that a person can be asked about in a terminal, in bytes.
const maxConfirmed = 16 << 10

// plain replaces control characters, except line ends and tabs, and those that change the direction of a text. A
// model's text must not move the cursor of a terminal, change its title, or show a text in another order than it has.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// inLine is plain for a text within a line, such as the name of a tool.
func inLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.Is(unicode.Cf, r) {
			return unicode.ReplacementChar
		}
		return r
	}, plain(text))
}

// decide asks the person about each call of a paused run. ok is false if there is no answer, or if the run needs more
// than a yes or a no.
func (t talk) decide(paused client.Event) (decisions []client.Decision, ok bool) {
	isSet := func(b *bool) bool { return b != nil && *b }
	for _, c := range paused.Tools {
		if isSet(c.UserInput) || isSet(c.External) {
			fmt.Fprintf(t.err, "the run %s waits: %s needs more than a yes or a no; continue it in the console or by "+
				"POST /agents/%s/runs/%s/continue\n", inLine(paused.RunID), inLine(c.Name), inLine(paused.AgentID),
				inLine(paused.RunID))
			return nil, false
		}
		if !isSet(c.Confirm) {
			continue
		}
		confirmed := t.yes
		if !t.yes && len(c.Args) > maxConfirmed {
			fmt.Fprintf(t.err, "the run %s waits: the arguments of %s are too long to show here; confirm it in the console\n",
				inLine(paused.RunID), inLine(c.Name))
			return nil, false
		}
		if !t.yes {
			fmt.Fprintf(t.err, "call %s? [y/N] ", call(c))
			line, err := t.answers.ReadString('\n')
			if err != nil && line == "" {
				fmt.Fprintf(t.err, "\nthe run %s waits for a person\n", inLine(paused.RunID))
				return nil, false
			}
			answer := strings.ToLower(strings.TrimSpace(line))
			confirmed = answer == "y" || answer == "yes"
		}
		decisions = append(decisions, client.Decision{CallID: c.ID, Confirmed: confirmed})
	}
	return decisions, true
}

// sessionsCmd lists sessions.
type sessionsCmd struct {
	remote
	Limit int `default:"20" help:"How many sessions to show, at most 1,000."`
	Page  int `default:"1" help:"Which page of them."`
}

// Help adds examples to the command's --help.
func (sessionsCmd) Help() string {
	return `Lists the sessions of the token's user on a server, the last changed first.

  keyway sessions
  keyway sessions --limit 100 --json --url https://agents.example.com --token @ann.jwt`
}

// Run prints the sessions.
func (c sessionsCmd) Run(ctx context.Context, e env) error {
	if c.Limit < 1 || c.Limit > 1000 || c.Page < 1 {
		return usage("--limit is 1 to 1000, and --page at least 1")
	}
	server, err := c.open(e)
	if err != nil {
		return err
	}
	list, total, err := server.Sessions(ctx, c.Limit, c.Page)
	if err != nil {
		return err
	}
	if e.cli.JSON {
		return json.NewEncoder(e.out).Encode(list)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tAGENT\tCHANGED\tNAME")
	for _, s := range list {
		name := []rune(strings.Join(strings.Fields(inLine(s.Name)), " "))
		const most = 60
		if len(name) > most {
			name = append(name[:most], '…')
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", inLine(s.ID), inLine(s.AgentID), inLine(s.UpdatedAt), string(name))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if total > len(list) {
		fmt.Fprintf(e.err, "%d of %d sessions; --page shows the others\n", len(list), total)
	}
	return nil
}
