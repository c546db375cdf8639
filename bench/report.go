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

// report is everything that was measured, in the order of its table.
type report struct {
	About    about     `json:"about"`
	Seconds  float64   `json:"seconds"` // of a cell
	Rounds   int       `json:"rounds"`
	Tokens   int       `json:"tokens"`   // of the model's answer
	Subjects []string  `json:"subjects"` // keyway, and the peer if there was one
	Figures  []*figure `json:"figures"`
	Errors   []int     `json:"errors"` // wrong answers, by subject
}

// about says what the figures hold for.
type about struct {
	Time       time.Time `json:"time"`
	Keyway     string    `json:"keyway"`
	PostgreSQL string    `json:"postgresql"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Kernel     string    `json:"kernel"`
	Load       string    `json:"load"` // the load averages before the run
}

// figure is one line of the table. Its name ends with its unit.
type figure struct {
	Name    string      `json:"name"`
	Samples [][]float64 `json:"samples"` // by subject
}

// add puts a sample of a subject into the figure of that name.
func (r *report) add(subject int, name string, value float64) {
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.Name == name })
	if i < 0 {
		i = len(r.Figures)
		r.Figures = append(r.Figures, &figure{Name: name, Samples: make([][]float64, len(r.Subjects))})
	}
	r.Figures[i].Samples[subject] = append(r.Figures[i].Samples[subject], value)
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) markdown(w io.Writer) error {
	var t strings.Builder
	fmt.Fprintf(&t, "%s. %s. PostgreSQL %s. %d × %s, Linux %s, load averages before: %s.\n",
		r.About.Time.Format("2006-01-02 15:04 MST"), r.About.Keyway, r.About.PostgreSQL, r.About.Cores, r.About.CPU, r.About.Kernel, r.About.Load)
	fmt.Fprintf(&t, "%d rounds of %g s for each cell, answers of %d tokens. Median (least to greatest).\n\n", r.Rounds, r.Seconds, r.Tokens)
	if _, err := io.WriteString(w, t.String()); err != nil {
		return err
	}
	return r.table(w)
}

// table is the figures alone.
func (r *report) table(w io.Writer) error {
	var t strings.Builder
	columns := append([]string{"figure"}, r.Subjects...)
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

func row(t *strings.Builder, cells []string) { fmt.Fprintf(t, "| %s |\n", strings.Join(cells, " | ")) }

// spread is the median with the range around it; a lone sample has none.
func spread(samples []float64) string {
	switch len(samples) {
	case 0:
		return "–"
	case 1:
		return number(samples[0])
	}
	return fmt.Sprintf("%s (%s to %s)", number(median(samples)), number(slices.Min(samples)), number(slices.Max(samples)))
}

// ratio is b in units of a, where that says something.
func ratio(a, b float64) string {
	if a <= 0 || b <= 0 {
		return "–"
	}
	return number(b / a)
}

// number shows three digits or so.
func number(v float64) string {
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

// median is the middle of the samples, or half-way between the two; 0 without any.
func median(samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// machine describes where the run happens; what can't be read is left empty.
func machine(ctx context.Context) about {
	version, _ := exec.CommandContext(ctx, keywayBinary, "version").Output() // #nosec G204 -- a constant
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	loadavg, _ := os.ReadFile("/proc/loadavg")
	load := strings.Fields(string(loadavg))
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := strings.Cut(string(info), "model name\t: ")
	model, _, _ = strings.Cut(model, "\n")
	return about{
		Time: time.Now().UTC(), Keyway: strings.TrimSpace(string(version)), CPU: cmp.Or(model, runtime.GOARCH), Cores: runtime.NumCPU(),
		Kernel: strings.TrimSpace(string(kernel)), Load: strings.Join(load[:min(3, len(load))], " "),
	}
}
