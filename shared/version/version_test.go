package version

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestBuildDescribesWhatTheToolchainRecorded(t *testing.T) {
	t.Parallel()
	const commit = "0123456789abcdef0123456789abcdef01234567"
	checkout := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: commit},
			{Key: "vcs.time", Value: "2026-11-25T17:36:00Z"}, {Key: "vcs.modified", Value: modified},
		}
	}
	own := func(keyway *debug.Module) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main: debug.Module{Path: "example.com/shop", Version: "v9.9.9"}, Settings: checkout("true"),
			Deps: []*debug.Module{{Path: "github.com/jackc/pgx/v5", Version: "v5.7.1"}, keyway},
		}
	}
	for name, c := range map[string]struct {
		info *debug.BuildInfo
		want Build
		text string
	}{
		"no information": {nil, Build{Version: nextVersion}, "0.1.0-dev"},
		"go test, or a build without version control": {
			&debug.BuildInfo{Main: debug.Module{Path: module, Version: "(devel)"}}, Build{Version: nextVersion}, "0.1.0-dev"},
		"go install of a tag": {
			&debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.2.0"}}, Build{Version: "0.2.0"}, "0.2.0"},
		"go install of a branch": {
			&debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.0.0-20261125173600-0123456789ab"}},
			Build{Version: nextVersion, Commit: "0123456789ab", Time: "2026-11-25T17:36:00Z"},
			"0.1.0-dev commit 0123456789ab"},
		"a clean checkout of a tag": {
			&debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.2.0"}, Settings: checkout("false")},
			Build{Version: "0.2.0", Commit: commit, Time: "2026-11-25T17:36:00Z"}, "0.2.0 commit 0123456789ab"},
		"a checkout with changes": {
			&debug.BuildInfo{
				Main:     debug.Module{Path: module, Version: "v0.2.1-0.20261125173600-0123456789ab+dirty"},
				Settings: checkout("true")},
			Build{Version: nextVersion, Commit: commit, Time: "2026-11-25T17:36:00Z", Modified: true},
			"0.1.0-dev commit 0123456789ab (modified)"},
		"an operator's own program": {
			own(&debug.Module{Path: module, Version: "v0.2.0"}), Build{Version: "0.2.0"}, "0.2.0"},
		"an operator's own program beside a checkout": {
			own(&debug.Module{Path: module, Version: "v0.2.0", Replace: &debug.Module{Path: "../keyway"}}),
			Build{Version: nextVersion}, "0.1.0-dev"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.want.Go, c.want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
			got := describeBuild(c.info)
			if got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			if want := c.text + " " + c.want.Go + " " + c.want.Platform; got.String() != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
