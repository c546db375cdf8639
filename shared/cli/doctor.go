package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
)

// doctorCmd checks everything that keyway serve, or a deployed stack, needs.
type doctorCmd struct {
	AskModels bool   `name:"ask-models" help:"Also send each model one short request, which costs a few tokens."`
	Stack     string `placeholder:"NAME" help:"${help_stack}"`
	// The flags of keyway serve that decide who can read the requests.
	Addr    string `default:"127.0.0.1:7777" placeholder:"HOST:PORT" help:"The --addr of keyway serve (127.0.0.1:7777)."`
	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Its --tls-cert."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"Its --tls-key."`
}

// Help adds examples to the command's --help.
func (doctorCmd) Help() string {
	return `Checks the file, the keys and their issuers, the database, the models, the MCP servers, what
browsers may do, how callers connect, and the logs. It changes nothing: it doesn't migrate, and
starts no database. Each line is ok, warning or fault, with a remedy.

Exit status 0: no fault, 1: a fault, 2: a mistake in the file or in the command line.

  keyway doctor
  keyway doctor --ask-models --json
  keyway doctor --addr 0.0.0.0:7777 --tls-cert tls.crt --tls-key tls.key
  keyway doctor --stack keyway`
}

// checkTime bounds each check of doctor.
const checkTime = 10 * time.Second

// The statuses of a finding.
const (
	statusOK      = "ok"
	statusWarning = "warning" // it works now, or only a part of it doesn't
	statusFault   = "fault"   // requests fail
)

// finding is one line of doctor. Its member names are part of the output of --json.
type finding struct {
	Area   string `json:"area"`
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	// Remedy is empty if the status is ok.
	Remedy string `json:"remedy"`
}

// findings are those of one area.
type findings struct {
	area string
	list []finding
}

func (f *findings) add(status, check, detail, remedy string) {
	f.list = append(f.list, finding{f.area, check, status, oneLine(detail), oneLine(remedy)})
}

func (f *findings) ok(check, format string, args ...any) {
	f.add(statusOK, check, fmt.Sprintf(format, args...), "")
}

func (f *findings) warning(check, remedy, format string, args ...any) {
	f.add(statusWarning, check, fmt.Sprintf(format, args...), remedy)
}

func (f *findings) fault(check, remedy, format string, args ...any) {
	f.add(statusFault, check, fmt.Sprintf(format, args...), remedy)
}

// failed adds the fault of an error. The texts of this project's errors are "what is wrong; the remedy". otherwise is
// the remedy of other errors.
func (f *findings) failed(check string, err error, otherwise string) {
	text, cause := err.Error(), error(nil)
	if public, ok := errors.AsType[*fault.Error](err); ok {
		text, cause = cmp.Or(public.Detail, text), public.Cause
	}
	detail, remedy, _ := strings.Cut(text, "; ")
	if cause != nil {
		detail += " (" + cause.Error() + ")"
	}
	f.add(statusFault, check, detail, cmp.Or(remedy, otherwise))
}

// oneLine returns a text without tokens and without what would change the line or the terminal.
func oneLine(text string) string {
	const most = 500
	text = inLine(withoutTokens(strings.TrimSpace(strings.ReplaceAll(text, "\n", "; "))))
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// examination is what the areas of doctor share.
type examination struct {
	env
	doctorCmd
	cfg *config.Config
}

// area is a part of doctor.
type area struct {
	name  string
	check func(*examination, context.Context, *findings)
}

// Run prints what it finds, in a fixed order, and each area as soon as it is known.
func (c doctorCmd) Run(ctx context.Context, e env) error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usage("--tls-cert and --tls-key belong together: name the certificate and its key")
	}
	x := &examination{env: e, doctorCmd: c}
	var err error
	x.cfg, err = e.load(true)
	if faults, ok := errors.AsType[config.Faults](err); ok {
		f := findings{area: "config"}
		for _, one := range faults {
			where := one
			where.Text, where.Remedy, where.Path = "", "", ""
			f.fault(cmp.Or(one.Path, "file"), one.Remedy, "%s%s", where, one.Text)
		}
		return errors.Join(e.printFindings([]finding{}, f.list), silent(exitUsage))
	}
	if err != nil {
		return err
	}
	return x.run(ctx)
}

// run checks all areas at the same time.
func (x *examination) run(ctx context.Context) error {
	areas := []area{
		{"config", (*examination).file}, {"keys", (*examination).keys}, {"database", (*examination).database},
		{"models", (*examination).models}, {"mcp", (*examination).mcp}, {"cors", (*examination).origins},
		{"doors", (*examination).doors}, {"logs", (*examination).logs},
	}
	if x.Stack != "" {
		areas = append(areas, area{"stack", (*examination).stack})
	}
	results := make([]chan []finding, len(areas))
	for i, a := range areas {
		results[i] = make(chan []finding, 1)
		go func() {
			f := &findings{area: a.name}
			a.check(x, ctx, f)
			asWritten(x.cfg, &f.list)
			results[i] <- f.list
		}()
	}
	all := []finding{}
	for i, a := range areas {
		var found []finding
		select {
		case found = <-results[i]:
		case <-time.After(areaTime):
			found = []finding{{a.name, "time", statusFault, "the checks did not end in time", "repeat the command"}}
		case <-ctx.Done():
			return ctx.Err()
		}
		if !x.cli.JSON {
			if err := x.printFindings(nil, found); err != nil {
				return err
			}
		}
		all = append(all, found...)
	}
	return x.end(all)
}

// areaTime bounds an area, which may have several checks after each other.
const areaTime = 6 * checkTime

// end prints the sum, and the array of --json.
func (x *examination) end(all []finding) error {
	count := map[string]int{}
	for _, f := range all {
		count[f.Status]++
	}
	if x.cli.JSON {
		if err := printJSON(x.out, all); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(x.err, "%s, %s\n", counted(count[statusFault], "fault"), counted(count[statusWarning], "warning"))
	}
	if count[statusFault] > 0 {
		return silent(exitFailure)
	}
	return nil
}

// printFindings prints lines, or with --json the array of all.
func (e env) printFindings(all, more []finding) error {
	if e.cli.JSON {
		return printJSON(e.out, append(all, more...))
	}
	for _, f := range more {
		line := fmt.Sprintf("%-8s %-8s %s: %s", f.Status, f.Area, f.Check, f.Detail)
		if f.Remedy != "" {
			line += "; remedy: " + f.Remedy
		}
		if _, err := fmt.Fprintln(e.out, line); err != nil {
			return err
		}
	}
	return nil
}

// file reports what keyway config check does.
func (x *examination) file(_ context.Context, f *findings) {
	policy, err := edge.Policy(x.cfg)
	if err != nil {
		f.failed("scope_mappings", err, "correct auth.scope_mappings")
		return
	}
	f.ok("file", "%s has %s, digest %.12s", x.cli.Config, counted(len(x.cfg.Agents), "agent"), x.cfg.Digest)
	for _, w := range x.cfg.Warnings {
		f.warning(cmp.Or(w.Path, "file"), cmp.Or(w.Remedy, "change it, or ignore the warning if you mean it"), "%s", w.Text)
	}
	for _, path := range slices.Sorted(maps.Keys(x.cfg.Unset)) {
		f.warning(path, "set "+x.cfg.Unset[path], "%s is not set here", x.cfg.Unset[path])
	}
	// As keyway serve without --dev reads the file.
	_, err = x.load(false)
	faults, _ := errors.AsType[config.Faults](err)
	for _, one := range faults {
		if _, unset := x.cfg.Unset[one.Path]; !unset {
			f.warning(cmp.Or(one.Path, "file"), one.Remedy, "keyway serve accepts this with --dev only: %s", one.Text)
		}
	}
	for _, n := range x.cfg.Notes {
		f.ok(cmp.Or(n.Path, "file"), "%s", n.Text)
	}
	for _, note := range weakerMappings(policy, x.cfg) {
		f.ok("scope_mappings", "%s", strings.TrimPrefix(note, "note: "))
	}
}
