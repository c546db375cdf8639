package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report holds everything that was measured, in the order of the table.
type report struct {
	About about `json:"about"`
	// Seconds is the time of a cell.
	Seconds float64 `json:"seconds"`
	Rounds  int     `json:"rounds"`
	// Tokens is the length of the model's answer.
	Tokens int `json:"tokens"`
	// Subjects are the names of the columns: keyway, and peer if there is one.
	Subjects []string  `json:"subjects"`
	Figures  []*figure `json:"figures"`
	// Errors counts the wrong answers of each subject.
	Errors []int `json:"errors"`
}

// about describes the machine and the programs that the figures are valid for.
type about struct {
	Time time.Time `json:"time"`
	// Keyway is the output of "keyway version".
	Keyway     string `json:"keyway"`
	PostgreSQL string `json:"postgresql"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	// Load is the load averages before the run: 1, 5 and 15 minutes. A high one means that
	// other programs disturbed the figures.
	Load string `json:"load"`
}

// figure is one line of the table. Its name ends with its unit.
type figure struct {
	Name string `json:"name"`
	// Samples are the values of each subject.
	Samples [][]float64 `json:"samples"`
}

// add adds a sample of a subject to the figure of that name. The first sample of a name
// adds a line to the table.
func (r *report) add(subject int, name string, value float64) {
	// A table has some sixty lines, so a search is fast enough.
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.Name == name })
	if i < 0 {
		i = len(r.Figures)
		r.Figures = append(r.Figures, &figure{Name: name, Samples: make([][]float64, len(r.Subjects))})
	}
	r.Figures[i].Samples[subject] = append(r.Figures[i].Samples[subject], value)
}

// json writes every sample as JSON.
func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// markdown writes two lines about the run, and the table.
func (r *report) markdown(w io.Writer) error {
	var t strings.Builder
	fmt.Fprintf(&t, "%s. %s. PostgreSQL %s. %d × %s, Linux %s, load averages before: %s.\n",
		r.About.Time.Format("2006-01-02 15:04 MST"), r.About.Keyway, r.About.PostgreSQL,
		r.About.Cores, r.About.CPU, r.About.Kernel, r.About.Load)
	fmt.Fprintf(&t, "%d rounds of %g s for each cell, answers of %d tokens. Median (least to greatest).\n\n",
		r.Rounds, r.Seconds, r.Tokens)
	if _, err := io.WriteString(w, t.String()); err != nil {
		return err
	}
	return r.table(w)
}

// table writes the figures as a Markdown table, with a column for each subject. With two
// subjects a last column holds the second's median divided by the first's. This ratio
// depends less on the machine than the figures themselves.
func (r *report) table(w io.Writer) error {
	var t strings.Builder
	columns := append([]string{"figure"}, r.Subjects...)
	// A quotient is easier to compare than two numbers.
	if len(r.Subjects) == 2 {
		columns = append(columns, r.Subjects[1]+" / "+r.Subjects[0])
	}
	row(&t, columns)
	row(&t, append([]string{"---"}, slices.Repeat([]string{"---:"}, len(columns)-1)...))
	for _, f := range r.Figures {
		cells := []string{f.Name}
		for _, samples := range f.Samples {
			cells = append(cells, spread(samples))
		}
		if len(f.Samples) == 2 {
			cells = append(cells, ratio(median(f.Samples[0]), median(f.Samples[1])))
		}
		row(&t, cells)
	}
	// The authorizer's benchmark sends no requests and has no such line.
	if r.Errors != nil {
		errors := []string{"wrong answers"}
		for _, n := range r.Errors {
			errors = append(errors, fmt.Sprint(n))
		}
		row(&t, append(errors, slices.Repeat([]string{""}, len(columns)-len(errors))...))
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// row writes one line of a Markdown table.
func row(t *strings.Builder, cells []string) { fmt.Fprintf(t, "| %s |\n", strings.Join(cells, " | ")) }

// spread formats the median with the least and the greatest sample. The range shows a
// reader how much to trust the median. A single sample has no range.
func spread(samples []float64) string {
	switch len(samples) {
	case 0:
		return "–"
	case 1:
		return threeDigits(samples[0])
	}
	return fmt.Sprintf("%s (%s to %s)",
		threeDigits(median(samples)), threeDigits(slices.Min(samples)), threeDigits(slices.Max(samples)))
}

// ratio formats b divided by a, or – if either is zero, negative or missing. A ratio that
// three decimals cannot show is formatted as a fraction.
func ratio(a, b float64) string {
	if a <= 0 || b <= 0 {
		return "–"
	}
	if b/a < 0.01 {
		return "1/" + threeDigits(a/b)
	}
	return threeDigits(b / a)
}

// threeDigits formats a value with about three significant digits. More would only show
// the noise of the machine.
func threeDigits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// median returns the middle of the samples, the mean of the two middle ones if their
// number is even, and 0 without samples. A mean would follow a single disturbed sample.
func median(samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// machine describes this machine and the binary, since the figures are valid for them
// only. A field that can't be read stays empty: a missing name is no reason to lose the
// figures.
func machine(ctx context.Context) about {
	version, _ := exec.CommandContext(ctx, keywayBinary, "version").Output() // #nosec G204 -- a constant
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	loadavg, _ := os.ReadFile("/proc/loadavg")
	load := strings.Fields(string(loadavg))
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := strings.Cut(string(info), "model name\t: ")
	model, _, _ = strings.Cut(model, "\n")
	return about{
		Time: time.Now().UTC(), Keyway: strings.TrimSpace(string(version)),
		CPU: cmp.Or(model, runtime.GOARCH), Cores: runtime.NumCPU(),
		Kernel: strings.TrimSpace(string(kernel)), Load: strings.Join(load[:min(3, len(load))], " "),
	}
}
