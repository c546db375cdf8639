package config_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

func TestTheOriginIsThatOfPagesAtThePublicURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"": "", "https://OS.test": "https://os.test", "http://127.0.0.1:7777/prod/v1": "http://127.0.0.1:7777",
	} {
		if got := (&config.Config{PublicURL: url}).Origin(); got != want {
			t.Errorf("%q: %q", url, got)
		}
	}
}
