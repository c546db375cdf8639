package store_test

import (
	"errors"
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

func TestMigrationsMayRunAtOnceAndAgain(t *testing.T) {
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
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), `belongs to the OS "one"`) || !strings.Contains(fault.Detail(err), "database.schema") {
		t.Errorf("%v", err)
	}
	migrate(t, url, "k2", "two")
}

func TestASchemaOfANewerKeywayIsLeftAlone(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	migrate(t, url, "k", "os")
	sql(t, url, "UPDATE k.schema_version SET version = 99")
	_, err := migrations.Run(t.Context(), migrations.Target{URL: url, Schema: "k", OSID: "os"})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "version 99") {
		t.Errorf("%v", err)
	}
}

func TestAnUnreachableDatabaseIsNotMigrated(t *testing.T) {
	t.Parallel()
	_, err := migrations.Run(t.Context(), migrations.Target{URL: "postgres://u:sesame@127.0.0.1:1/x", Schema: "k", OSID: "os"})
	if !errors.Is(err, fault.Unavailable) || strings.Contains(fault.Detail(err), "sesame") {
		t.Errorf("%v", err)
	}
}
