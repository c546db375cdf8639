package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// chart is one picture of the report: the figures whose names begin with one of these texts, as multiples of the first
// subject's median.
type chart struct {
	file, title string
	prefixes    []string
}

var charts = []chart{
	{"cpu", "Processor time of the server", []string{"CPU of "}},
	{"memory", "Memory, and bytes of write-ahead log", []string{"memory ", "WAL of "}},
	{"first-text", "First text of a stream, added to the model's own", []string{"first text "}},
	{"growth", "Time of a request in a database of this size",
		[]string{"GET /sessions?limit=20, at", "a page of 20 runs", "a run of the long session"}},
}

// publish writes benchmarks.md and its charts below a directory.
func (r *report) publish(dir string) (err error) {
	if len(r.Subjects) != 2 {
		return errors.New("a report compares two servers; use --base or --peer")
	}
	page, err := os.Create(filepath.Join(dir, "benchmarks.md")) // #nosec G304 -- the user names the directory
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, page.Close()) }()
	if err := os.MkdirAll(filepath.Join(dir, "benchmarks"), 0o755); err != nil { // #nosec G301 -- documents
		return err
	}
	text := strings.Builder{}
	fmt.Fprintf(&text, "# Benchmarks\n\n<!-- Made by \"make bench-report\". Do not edit. -->\n\n"+
		"[bench/README.md](../bench/README.md) explains the figures, and [performance.md](performance.md) what they "+
		"are made of. "+
		"A chart shows %s beside %s: the median as a bar, the least and the greatest sample as a line. %s is 1.\n\n",
		r.Subjects[1], r.Subjects[0], r.Subjects[0])
	for _, c := range charts {
		drawn, err := r.draw(c, filepath.Join(dir, "benchmarks", c.file+".svg"))
		if err != nil {
			return err
		}
		if drawn {
			fmt.Fprintf(&text, "![%s](benchmarks/%s.svg)\n\n", c.title, c.file)
		}
	}
	if _, err := page.WriteString(text.String()); err != nil {
		return err
	}
	return r.markdown(page)
}

// bars are the bars of a chart.
type bars struct {
	names  []string
	values plotter.Values
	errs   struct {
		plotter.XYs
		plotter.XErrors
	}
}

// draw writes a chart. drawn is false if nothing of it was measured.
func (r *report) draw(c chart, path string) (drawn bool, err error) {
	b := r.bars(c)
	if len(b.names) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s: %s / %s\n%d × %s, load before %s", c.title, r.Subjects[1], r.Subjects[0],
		r.About.Cores, r.About.CPU, r.About.Load)
	p.X.Min, p.X.Label.Text = 0, "times "+r.Subjects[0]
	chart, err := plotter.NewBarChart(b.values, vg.Points(12))
	if err != nil {
		return false, err
	}
	chart.Horizontal, chart.Color = true, color.Gray{Y: 200}
	ranges, err := plotter.NewXErrorBars(b.errs)
	if err != nil {
		return false, err
	}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(b.names)) - 0.5}})
	if err != nil {
		return false, err
	}
	one.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
	p.Add(plotter.NewGrid(), chart, ranges, one)
	p.NominalY(b.names...)
	p.Y.Tick.Label.Font.Size = vg.Points(9)
	return true, p.Save(9*vg.Inch, vg.Length(1.2+0.25*float64(len(b.names)))*vg.Inch, path)
}

// bars returns the bars of a chart, the first figure at the top.
func (r *report) bars(c chart) (b bars) {
	for _, f := range slices.Backward(r.Figures) {
		begins := func(prefix string) bool { return strings.HasPrefix(f.Name, prefix) }
		first, second := median(f.Samples[0]), f.Samples[1]
		if !slices.ContainsFunc(c.prefixes, begins) || first <= 0 || len(second) == 0 || strings.Contains(f.Name, " / ") {
			continue
		}
		y, middle := float64(len(b.names)), median(second)/first
		b.names = append(b.names, strings.TrimPrefix(f.Name, "CPU of "))
		b.values = append(b.values, middle)
		b.errs.XYs = append(b.errs.XYs, plotter.XY{X: middle, Y: y})
		b.errs.XErrors = append(b.errs.XErrors, struct{ Low, High float64 }{
			middle - slices.Min(second)/first, slices.Max(second)/first - middle,
		})
	}
	return b
}
