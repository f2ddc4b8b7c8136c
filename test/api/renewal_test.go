package api_test

import (
	"strings"
	"testing"
)

func TestCertificatesAreRehearsedElsewhere(t *testing.T) {
	same := refused(
		"spec.rehearsalIssuerRef",
		"rehearsalIssuerRef must not be the issuer itself: name a staging issuer, or remove it",
	)
	judge(t, certificates, certificate, []example{
		{"another Issuer is accepted", `spec: {rehearsalIssuerRef: {name: staging}}`, accepted},
		{
			"a ClusterIssuer of the same name is accepted",
			`spec: {rehearsalIssuerRef: {name: ca, kind: ClusterIssuer}}`,
			accepted,
		},
		{
			"an external issuer of the same name is accepted",
			`spec: {rehearsalIssuerRef: {name: ca, group: issuers.example.com}}`,
			accepted,
		},
		{"the issuer itself is refused", `spec: {rehearsalIssuerRef: {name: ca}}`, same},
		{
			"the issuer itself, written out, is refused",
			`spec: {rehearsalIssuerRef: {name: ca, kind: Issuer, group: cert-manager.io}}`,
			same,
		},
		{
			"the issuer itself, with empty kind and group, is refused",
			`spec: {rehearsalIssuerRef: {name: ca, kind: "", group: ""}}`,
			same,
		},
		{
			"an issuer without a name is refused",
			`spec: {rehearsalIssuerRef: {name: ""}}`,
			refused("spec.rehearsalIssuerRef.name", "name must be the name of the issuer"),
		},
	})
}

func TestCertificatesAreRevokedForAReason(t *testing.T) {
	judge(t, certificates, certificate, []example{
		{"no reason is accepted", `spec: {revocation: {onDelete: true}}`, accepted},
		{"a compromised key is accepted", `spec: {revocation: {onDelete: true, reason: keyCompromise}}`, accepted},
		{
			"a reason that only CAs may give is refused",
			`spec: {revocation: {onDelete: true, reason: cACompromise}}`,
			refused(
				"spec.revocation.reason",
				`supported values: "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"`,
			),
		},
	})
}

func TestCertificatesLiveAtLeastAMinute(t *testing.T) {
	bad := refused(
		"spec.duration",
		"duration must be at least 1m, and a number with the unit h, m or s, such as 2160h for 90 days",
	)
	judge(t, certificates, certificate, []example{
		{"90 days are accepted", `spec: {duration: 2160h}`, accepted},
		{"90 days as Go writes them are accepted", `spec: {duration: 2160h0m0s}`, accepted},
		{"a minute is accepted", `spec: {duration: 1m}`, accepted},
		{"60.5 seconds are accepted", `spec: {duration: 60.5s}`, accepted},
		{"ten years are accepted", `spec: {duration: 87600h}`, accepted},
		{"59 seconds are refused", `spec: {duration: 59s}`, bad},
		{"nothing is refused", `spec: {duration: 0s}`, bad},
		{"an empty string is refused", `spec: {duration: ""}`, bad},
		{"less than nothing is refused", `spec: {duration: -2160h}`, bad},
		{"days are refused", `spec: {duration: 90d}`, bad},
		{"a number without a unit is refused", `spec: {duration: "3600"}`, bad},
	})
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	format := refused("spec.renewBefore", "renewBefore must be a number with the unit h, m or s, such as 720h for 30 days")
	judge(t, certificates, certificate, []example{
		{"a third of the lifetime is accepted", `spec: {duration: 2160h, renewBefore: 720h}`, accepted},
		{"five minutes of an hour are accepted", `spec: {duration: 1h, renewBefore: 5m}`, accepted},
		{"ten seconds of a minute are accepted", `spec: {duration: 1m, renewBefore: 10s}`, accepted},
		{"less than five minutes of an hour are accepted", `spec: {duration: 1h, renewBefore: 299s}`, accepted},
		{"less than five minutes of the default lifetime are accepted", `spec: {renewBefore: 4m}`, accepted},
		{"less than ten seconds are accepted", `spec: {duration: 1m, renewBefore: 9s}`, accepted},
		{"the whole lifetime is accepted", `spec: {duration: 24h, renewBefore: 24h}`, accepted},
		{"the whole of a short lifetime is accepted", `spec: {duration: 2m, renewBefore: 2m}`, accepted},
		{"the whole default lifetime is accepted", `spec: {renewBefore: 2160h}`, accepted},
		{"all but an hour of the default lifetime is accepted", `spec: {renewBefore: 2159h}`, accepted},
		{"days are refused", `spec: {renewBefore: 30d}`, format},
		{"less than nothing is accepted", `spec: {renewBefore: -720h}`, accepted},
		{"nothing is accepted", `spec: {renewBefore: 0s}`, accepted},

		{"a percentage of the default lifetime is accepted", `spec: {renewBeforePercentage: 1}`, accepted},
		{"99 per cent are accepted", `spec: {renewBeforePercentage: 99}`, accepted},
		{"a percentage that comes to five minutes is accepted", `spec: {duration: 100m, renewBeforePercentage: 5}`, accepted},
		{"a percentage that comes to less is accepted", `spec: {duration: 100m, renewBeforePercentage: 4}`, accepted},
		{
			"95 per cent of an hour come to 57 minutes and are accepted",
			`spec: {duration: 1h, renewBeforePercentage: 95}`,
			accepted,
		},
		{"5 per cent of an hour come to 3 minutes and are accepted", `spec: {duration: 1h, renewBeforePercentage: 5}`,
			accepted},
		{
			"20 per cent of a minute come to 12 seconds and are accepted",
			`spec: {duration: 1m, renewBeforePercentage: 20}`,
			accepted,
		},
		{"10 per cent of a minute come to 6 seconds and are accepted", `spec: {duration: 1m, renewBeforePercentage: 10}`,
			accepted},
		{"no per cent are accepted", `spec: {renewBeforePercentage: 0}`, accepted},
		{"100 per cent are accepted", `spec: {renewBeforePercentage: 100}`, accepted},

		{"more per cent than there are are accepted", `spec: {renewBeforePercentage: 1000}`, accepted},
		{"less than no per cent are accepted", `spec: {renewBeforePercentage: -5}`, accepted},

		{"an instant and a percentage are accepted", `spec: {renewBefore: 720h, renewBeforePercentage: 33}`, accepted},
	})
}

// warnings of the API server.
type warnings []string

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) { *w = append(*w, text) }

func TestARenewalTimeThatIsNotFollowedIsWarnedAbout(t *testing.T) {
	for spec, says := range map[string]string{
		`{}`:                               "",
		`{renewBefore: 720h}`:              "",
		`{duration: 1h, renewBefore: 54m}`: "",
		`{renewBeforePercentage: 90}`:      "",
		`{duration: 1h, renewBefore: 59m59s}`: "spec.renewBefore 59m59s is more than nine tenths of duration (1h): the " +
			"certificate is not renewed before a tenth of its life has passed",
		`{renewBefore: 2160h}`: "spec.renewBefore 2160h is not between 0 and duration (2160h), and does " +
			"not count",
		`{duration: 24h, renewBefore: 720h}`:             "spec.renewBefore 720h is not between 0 and duration (24h)",
		`{renewBefore: -5m}`:                             "spec.renewBefore -5m is not between 0 and",
		`{renewBefore: 0s}`:                              "spec.renewBefore 0s is not between 0 and",
		`{renewBefore: 720h, renewBeforePercentage: 33}`: "both set, of which one counts (renewBefore): remove the other",
		`{duration: 24h, renewBefore: 720h, renewBeforePercentage: 33}`: "counts (renewBeforePercentage, as renewBefore is " +
			"not less than duration)",
		`{renewBeforePercentage: 91}`: "spec.renewBeforePercentage 91 is more than 90: the certificate is not " +
			"renewed before a tenth",
		`{renewBeforePercentage: 100}`: "spec.renewBeforePercentage 100 is not from 1 to 90",
		`{renewBeforePercentage: 0}`:   "spec.renewBeforePercentage 0 is not from 1 to 90",
	} {
		var got warnings
		config := adminConfig(t)
		config.WarningHandler = &got
		accepted.check(t, dryRun(t, clientFor(t, config), certificates, object(t, certificate, "spec: "+spec)))
		if all := strings.Join(got, "\n"); (all != "") != (says != "") || !strings.Contains(all, says) {
			t.Errorf("%s: the warnings are %q, want %q", spec, all, says)
		}
	}
}

func TestCertificatesAreRenewedInWindowsThatMakeSense(t *testing.T) {
	window := `{cron: "0 2 * * 6", windowDuration: 4h30m}`
	judge(t, certificates, certificate, []example{
		{
			"windows are accepted",
			`spec: {renewal: {policy: RenewBefore, windows: [` + window + `, {cron: "0 2 * * *", windowDuration: 1h, timezone: Europe/Berlin}]}}`,
			accepted,
		},
		{"renewal can be disabled", `spec: {renewal: {policy: Disabled}}`, accepted},
		{
			"renewal can be disabled with an empty list of windows",
			`spec: {renewal: {policy: Disabled, windows: []}}`,
			accepted,
		},
		{
			"windows without a policy are refused",
			`spec: {renewal: {windows: [` + window + `]}}`,
			refused("spec.renewal.policy", "policy must be RenewBefore or Disabled"),
		},
		{
			"windows of no renewal are refused",
			`spec: {renewal: {policy: Disabled, windows: [` + window + `]}}`,
			refused(
				"spec.renewal.windows",
				"windows have no meaning with the policy Disabled: remove them, or set policy to RenewBefore",
			),
		},
		{
			"a window without an end is refused",
			`spec: {renewal: {policy: RenewBefore, windows: [{cron: "0 2 * * 6"}]}}`,
			refused("spec.renewal.windows[0].windowDuration", "Required value"),
		},
		{
			"a window without a begin is refused",
			`spec: {renewal: {policy: RenewBefore, windows: [{windowDuration: 1h}]}}`,
			refused("spec.renewal.windows[0].cron", "Required value"),
		},
		{
			"a window of days is refused",
			`spec: {renewal: {policy: RenewBefore, windows: [{cron: "0 2 * * 6", windowDuration: 1d}]}}`,
			refused(
				"spec.renewal.windows[0].windowDuration",
				"spec.renewal.windows[0].windowDuration in body should match '^([0-9]+(\\.[0-9]+)?(s|m|h))+$'",
			),
		},
	})
}
