// Package version describes the program that runs: its version, its commit and its compiler.
package version

import (
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// module is Keyway's path as a Go module.
const module = "github.com/keyway-agents/keyway"

// nextVersion is the version that a build without a release tag reports. A
// release needs no change here: its tag is the version.
const nextVersion = "0.1.0-dev"

// Build describes the program that runs.
type Build struct {
	// Version is a semantic version without the leading v: that of the tag, such as
	// 0.2.0, if the program was built from a tag; otherwise that of the release to
	// come, such as 0.1.0-dev. AgentOS's clients read it as os_version.
	Version string `json:"version"`
	// Commit is the Git commit, 12 hexadecimal digits or more. Empty if unknown.
	Commit string `json:"commit,omitempty"`
	// Time is when the commit was made, in RFC 3339. Empty if unknown.
	Time string `json:"time,omitempty"`
	// Modified reports whether the checkout held changes that were not committed.
	Modified bool `json:"modified,omitempty"`
	// Go is the version of the compiler, such as go1.26.8.
	Go string `json:"go"`
	// Platform is the operating system and the processor, such as linux/arm64.
	Platform string `json:"platform"`
}

// ThisBuild describes this program. The information comes from the Go toolchain,
// which records it in every binary (debug.BuildInfo): the version of the module
// when the program was built by "go install …@v0.2.0" or from a tagged checkout, and
// the commit when it was built in a checkout.
//
// It is read on first use and not when the process starts: parsing takes time that
// the cold start of a Lambda function should not spend.
var ThisBuild = sync.OnceValue(func() Build {
	info, _ := debug.ReadBuildInfo()
	return describeBuild(info)
})

// pseudoVersion matches the end of a version that Go made up for a commit without a
// tag, such as v0.0.0-20261125173600-0123456789ab: the time in UTC and the commit.
// See https://go.dev/ref/mod#pseudo-versions. It is compiled on first use, so that a
// cold start spends no time on it.
var pseudoVersion = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[-.](\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)-([0-9a-f]{12})(\+dirty)?$`)
})

// describeBuild reads what the toolchain recorded; info may be nil.
func describeBuild(info *debug.BuildInfo) Build {
	b := Build{Version: nextVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	version := info.Main.Version
	if info.Main.Path == module {
		// The vcs settings describe the repository of the main module. In an
		// operator's own program that is not Keyway's repository.
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Time = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	} else {
		version = dependency(info)
	}
	switch made := pseudoVersion().FindStringSubmatch(version); {
	case made != nil && b.Commit == "":
		b.Commit = made[7]
		b.Time = made[1] + "-" + made[2] + "-" + made[3] + "T" + made[4] + ":" + made[5] + ":" + made[6] + "Z"
	case made == nil && strings.HasPrefix(version, "v"):
		b.Version = strings.TrimPrefix(version, "v")
	}
	return b
}

// dependency returns the version of Keyway that a program of another module was
// built with, or "" if a replace directive points to a directory.
func dependency(info *debug.BuildInfo) string {
	for _, m := range info.Deps {
		if m.Path != module {
			continue
		}
		if m.Replace != nil {
			return m.Replace.Version
		}
		return m.Version
	}
	return ""
}

// String is the build in one line: "0.2.0 go1.26.8 linux/arm64", with the commit
// after the version if it is known, and "modified" after that if it does not
// describe the program exactly.
func (b Build) String() string {
	parts := []string{b.Version}
	if b.Commit != "" {
		parts = append(parts, "commit", b.Commit[:min(12, len(b.Commit))])
	}
	if b.Modified {
		parts = append(parts, "(modified)")
	}
	return strings.Join(append(parts, b.Go, b.Platform), " ")
}
