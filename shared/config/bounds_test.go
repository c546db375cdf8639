package config_test

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/config"
)

func TestEachSettableBoundIsASettingWithTheSameDefault(t *testing.T) {
	t.Parallel()
	settings := map[string]int{}
	full := reflect.New(reflect.TypeFor[config.Bounds]()).Elem()
	for f := range full.Type().Fields() {
		n, err := strconv.Atoi(f.Tag.Get("default"))
		if err != nil {
			t.Fatal(f.Name, err)
		}
		settings[f.Tag.Get("json")] = n
		full.FieldByIndex(f.Index).SetInt(int64(n) + 1)
	}
	limits := full.Interface().(config.Bounds).Limits()
	for _, b := range bound.All() {
		n, is := settings[b.Name]
		if is != b.Settable || is && n != b.Default {
			t.Errorf("%s: setting %t with the default %d", b.Name, is, n)
		}
		want := b.Default
		if is {
			want++
		}
		if got := limits.Of(b); got != want {
			t.Errorf("%s: %d is in force, not %d", b.Name, got, want)
		}
		delete(settings, b.Name)
	}
	if len(settings) > 0 {
		t.Errorf("settings without a bound: %v", settings)
	}
	if got := (config.Bounds{}).Limits().Of(bound.Message); got != bound.Message.Default {
		t.Errorf("without a setting %d is in force", got)
	}
}
