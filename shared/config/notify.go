package config

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// WebhookSecretPrefix is the beginning of a secret of Standard Webhooks.
const WebhookSecretPrefix = "whsec_"

// checkNotify checks the address and the secret of the webhook.
func (d *decoder) checkNotify(n Notify) {
	if d.without(Runs) {
		return
	}
	d.checkURL("notify.url", string(n.URL))
	if n.URL == "" {
		if n.Secret != "" && d.clean("notify.url") {
			d.fault("notify.url", "is missing, and notify.secret is set", "add the address of the webhook")
		}
		return
	}
	if u, err := url.Parse(string(n.URL)); err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
		d.warn("notify.url", "sends the users and the ids of runs without encryption", "use https")
	}
	if !d.clean("notify.secret") {
		return
	}
	encoded, found := strings.CutPrefix(string(n.Secret), WebhookSecretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(key) < 24 || len(key) > 64 {
		d.fault("notify.secret", "is not a secret of Standard Webhooks",
			"make one with: echo whsec_$(openssl rand -base64 32)")
	}
}

// Reports returns whether the webhook gets a report about a run with this status, such as PAUSED.
func (n Notify) Reports(status string) bool {
	for _, on := range n.On {
		if strings.EqualFold(on, status) {
			return n.URL != ""
		}
	}
	return false
}
