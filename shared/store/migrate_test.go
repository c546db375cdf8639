package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func migrate(t *testing.T, url, schema, osID string) {
	t.Helper()
	if _, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: schema, OSID: osID}); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationsCanRunAtTheSameTimeAndAgain(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "os"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "os"})
	if err != nil || r.From != r.To || r.To != store.SchemaVersion {
		t.Errorf("%+v %v; the queries are written for version %d", r, err, store.SchemaVersion)
	}
}

func TestASchemaBelongsToOneOS(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	migrate(t, url, "k", "one")
	_, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "two"})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), `belongs to the OS "one"`) ||
		!strings.Contains(fault.Detail(err), "database.schema") {
		t.Errorf("%v", err)
	}
	migrate(t, url, "k2", "two")
}

func TestTheSchemaOfANewerKeywayIsNotChanged(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	migrate(t, url, "k", "os")
	sql(t, url, "UPDATE k.schema_version SET version = 99")
	r, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "os"})
	if want := (migrations.Result{From: 99, To: 99, Newer: true}); err != nil || r != want {
		t.Errorf("%+v %v", r, err)
	}
	sql(t, url, "UPDATE k.schema_version SET oldest = 98")
	_, err = migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "os"})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "a Keyway for version 98 or later") ||
		!strings.Contains(fault.Detail(err), "run the newer Keyway") {
		t.Errorf("%v", err)
	}
	_, err = migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "another"})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), `belongs to the OS "os"`) {
		t.Errorf("%v", err)
	}
}

// Only the author of a migration knows whether older programs still work with the schema.
func TestEachMigrationSetsOldest(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) != store.SchemaVersion {
		t.Fatalf("%q %v", files, err)
	}
	lowest := 0
	for i, file := range files[5:] {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		match := regexp.MustCompile(`(?m)^UPDATE \{\{\.schema\}\}\.schema_version SET oldest = (\d+);$`).FindSubmatch(text)
		if match == nil {
			t.Errorf("%s sets no oldest", file)
			continue
		}
		oldest, err := strconv.Atoi(string(match[1]))
		if number := i + 6; err != nil || oldest < lowest || oldest > number {
			t.Errorf("%s: oldest = %s, want %d to %d", file, match[1], lowest, number)
		}
		lowest = oldest
	}
}

func TestAnUnreachableDatabaseIsNotMigrated(t *testing.T) {
	t.Parallel()
	_, err := migrations.Run(t.Context(), migrations.Target{URL: "postgres://u:sesame@127.0.0.1:1/x", Schema: "k",
		OSID: "os"})
	if !errors.Is(err, fault.Unavailable) || strings.Contains(fault.Detail(err), "sesame") {
		t.Errorf("%v", err)
	}
}
