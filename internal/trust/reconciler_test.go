package trust

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func day(n int) time.Time { return start.AddDate(0, 0, n) }

// newCA makes a CA that expires some days after start.
func newCA(t testing.TB, name string, days int, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: day(-100), NotAfter: day(days),
	}
	for _, c := range change {
		c(template)
	}
	cert, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestResolve(t *testing.T) {
	const (
		secret  = "Secret ca, ca.crt"
		issuer  = "ClusterIssuer internal"
		literal = "inLine"
	)
	one, two, three, old := newCA(t, "one", 100), newCA(t, "two", 200), newCA(t, "three", 300), newCA(t, "old", 20)
	expired := newCA(t, "expired", -1)
	spec := &api.TrustBundleSpec{Sources: []api.TrustSource{
		{
			Secret: &api.TrustObjectSource{Name: "ca"},
		},
		{Issuer: &api.TrustIssuerSource{Kind: "ClusterIssuer", Name: "internal"}},
		{InLine: "..."},
	}}
	with := func(change func(*api.TrustBundleSpec)) *api.TrustBundleSpec {
		s := spec.DeepCopy()
		change(s)
		return s
	}
	keepFor := func(d time.Duration) *api.TrustBundleSpec {
		return with(func(s *api.TrustBundleSpec) { s.KeepReplacedFor = &metav1.Duration{Duration: d} })
	}
	was := func(cert *x509.Certificate, source string, retained *api.TrustRetention) api.TrustedCertificate {
		return api.TrustedCertificate{
			Subject:     cert.Subject.String(),
			Fingerprint: pki.Fingerprint(cert),
			NotAfter:    metav1.NewTime(cert.NotAfter),
			Source:      source,
			Certificate: string(pki.EncodeCertificatePEM(cert)),
			Retained:    retained,
		}
	}
	since := func(t time.Time, until time.Time) *api.TrustRetention {
		return &api.TrustRetention{Since: metav1.NewTime(t), Until: metav1.NewTime(until), Reason: "because"}
	}
	list := func(entries ...api.TrustedCertificate) []api.TrustedCertificate { return entries }
	inUse := func(until time.Time) func(*x509.Certificate, []*x509.Certificate) (time.Time, string) {
		return func(*x509.Certificate, []*x509.Certificate) (time.Time, string) { return until, "shop/tls" }
	}
	unused := inUse(time.Time{})
	var unasked func(*x509.Certificate, []*x509.Certificate) (time.Time, string) // to ask panics
	read := map[string]bool{issuer: true}

	for _, test := range []struct {
		name    string
		spec    *api.TrustBundleSpec // spec if nil
		found   []found
		settled map[string]bool
		before  []api.TrustedCertificate
		alive   func(*x509.Certificate, []*x509.Certificate) (time.Time, string)
		want    []string // name, and until when it is retained
		again   time.Time
	}{
		{name: "what the sources have is in the bundle, in their order", found: []found{{two, secret, false}, {one, literal, true}}, want: []string{"two", "one"}, again: day(100)},
		{name: "a certificate of two sources is in it once", found: []found{{one, secret, false}, {one, literal, true}}, want: []string{"one"}, again: day(100)},
		{name: "nothing is nothing"},
		{name: "a CA that its Secret no longer has stays for 90 days, if nothing else is said",
			found:  []found{{two, secret, false}},
			before: list(was(one, secret, nil)), want: []string{"two", "one until day 90"}, again: day(90)},
		{name: "it stays for as long as is said", spec: keepFor(48 * time.Hour), found: []found{{two, secret, false}},
			before: list(was(one, secret, nil)), want: []string{"two", "one until day 2"}, again: day(2)},
		{name: "it does not stay longer than it is valid", found: []found{{two, secret, false}},
			before: list(was(old, secret, nil)), want: []string{"two", "old until day 20"}, again: day(20)},
		{name: "it leaves when its time is over and no certificate of it is known", spec: keepFor(48 * time.Hour),
			found:  []found{{two, secret, false}},
			before: list(was(one, secret, since(day(-2), start))), alive: unused, want: []string{"two"}, again: day(200)},
		{name: "it stays until the last certificate of it expires", spec: keepFor(48 * time.Hour),
			found:  []found{{two, secret, false}},
			before: list(was(one, secret, since(day(-2), start))), alive: inUse(day(60)),
			want: []string{"two", "one until day 60 for shop/tls"}, again: day(60)},
		{name: "it stays until itself expires, if that is before", spec: keepFor(48 * time.Hour),
			found:  []found{{two, secret, false}},
			before: list(was(old, secret, since(day(-2), start))), alive: inUse(day(60)),
			want: []string{"two", "old until day 20 for shop/tls"}, again: day(20)},
		{name: "it is not looked for certificates again before the last one found expires",
			spec: keepFor(48 * time.Hour), found: []found{{two, secret, false}},
			before: list(
				was(
					one, secret,
					&api.TrustRetention{Since: metav1.NewTime(day(-9)), Until: metav1.NewTime(day(60)), UsedBy: "shop/tls"},
				),
			),
			alive: unasked, want: []string{"two", "one until day 60 for shop/tls"}, again: day(60)},
		{name: "a shorter time that is said now counts for what is retained already", spec: keepFor(48 * time.Hour),
			found:  []found{{two, secret, false}},
			before: list(was(one, secret, since(day(-3), day(87)))), alive: unused, want: []string{"two"}, again: day(200)},
		{name: "with no time at all it leaves at once", spec: keepFor(0), found: []found{{two, secret, false}},
			before: list(was(one, secret, nil)), alive: unused, want: []string{"two"}, again: day(200)},
		{name: "with no time at all it stays for a certificate that is known", spec: keepFor(0),
			found:  []found{{two, secret, false}},
			before: list(was(one, secret, nil)), alive: inUse(day(7)),
			want: []string{"two", "one until day 7 for shop/tls"}, again: day(7)},
		{name: "a CA that comes back is no longer retained", found: []found{{one, secret, false}},
			before: list(was(one, secret, since(day(-2), day(88)))), want: []string{"one"}, again: day(100)},
		{name: "a whole source that is lost is retained", before: list(was(one, secret, nil), was(two, secret, nil)),
			want: []string{"one until day 90", "two until day 90"}, again: day(90)},
		{name: "a CA that its issuer forgot leaves after an hour", found: []found{{two, issuer, false}}, settled: read,
			before: list(was(one, issuer, nil)), want: []string{"two", "one until 1h0m0s"}, again: start.Add(time.Hour)},
		{name: "after that hour it is gone", found: []found{{two, issuer, false}}, settled: read,
			before: list(was(one, issuer, since(start.Add(-time.Hour), start))), alive: unused, want: []string{"two"},
			again: day(200)},
		{name: "a CA whose issuer was deleted is retained like that of a Secret",
			before: list(was(one, issuer, nil)), want: []string{"one until day 90"}, again: day(90)},
		{name: "a certificate that stood in the spec leaves at once", found: []found{{two, secret, false}},
			before: list(api.TrustedCertificate{Fingerprint: pki.Fingerprint(one), Source: literal}), want: []string{"two"},
			again: day(200)},
		{name: "a certificate whose source was taken out of the spec leaves at once", found: []found{{two, secret, false}},
			before: list(was(one, "Secret other, ca.crt", nil)), want: []string{"two"}, again: day(200)},
		{name: "an expired one leaves at once", found: []found{{two, secret, false}}, before: list(was(expired, secret, nil)), want: []string{"two"}, again: day(200)},
		{name: "a distrusted one is left out, wherever it comes from",
			spec: with(func(s *api.TrustBundleSpec) {
				s.Distrust = []api.TrustFingerprint{
					api.TrustFingerprint(strings.ToUpper(pki.Fingerprint(one))), colons(pki.Fingerprint(three)),
				}
			}),
			found:  []found{{one, secret, false}, {two, secret, false}},
			before: list(was(three, secret, since(day(-2), day(88)))), want: []string{"two"}, again: day(200)},
		{name: "of several retained the one lost last goes first", found: []found{{two, secret, false}},
			before: list(was(one, secret, since(day(-5), day(85))), was(three, secret, nil)),
			want:   []string{"two", "three until day 90", "one until day 85"}, again: day(85)},
		{name: "what cannot be read of the status is nothing", found: []found{{two, secret, false}},
			before: list(api.TrustedCertificate{Fingerprint: "00", Source: secret, Certificate: "no PEM"}),
			want:   []string{"two"}, again: day(200)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := facts{
				spec:     test.spec,
				gathered: &gathered{found: test.found, settled: test.settled},
				before:   test.before,
				alive:    test.alive,
				now:      start,
			}
			if f.spec == nil {
				f.spec = spec
			}
			certs, status, again := resolve(f)
			got := retainedNames(t, certs, status)
			if !slices.Equal(got, test.want) || len(certs) != len(status) {
				t.Errorf("got %q with %d certificates, expected %q", got, len(certs), test.want)
			}
			if !again.Equal(test.again) {
				t.Errorf("to be looked at again at %s, expected %s", again, test.again)
			}
			// The next pass, with the stored status, has the same result.
			f.before = stored(t, status)
			if _, second, _ := resolve(f); !slices.EqualFunc(stored(t, second), f.before, sameEntry) {
				t.Errorf("the next pass makes of it:\n%v\nand not:\n%v", second, status)
			}
		})
	}
}

// retainedNames returns the name of each certificate of a bundle, and until when it is retained. It
// checks that the entries of the status are about the certificates.
func retainedNames(t *testing.T, certs []*x509.Certificate, status []api.TrustedCertificate) []string {
	t.Helper()
	var got []string
	for i, entry := range status {
		line := certs[i].Subject.CommonName
		if entry.Fingerprint != pki.Fingerprint(certs[i]) {
			t.Errorf("entry %d is not about %s", i, line)
		}
		if (entry.Certificate == "") != (entry.Source == "inLine") {
			t.Errorf("entry %d, of %s, has the certificate %q", i, entry.Source, entry.Certificate)
		}
		if r := entry.Retained; r != nil {
			if d := r.Until.Sub(start); d%(24*time.Hour) == 0 {
				line += fmt.Sprintf(" until day %d", d/(24*time.Hour))
			} else {
				line += " until " + d.String()
			}
			if r.UsedBy != "" {
				line += " for " + r.UsedBy
			}
		}
		got = append(got, line)
	}
	return got
}

func colons(fingerprint string) api.TrustFingerprint {
	var pairs []string
	for pair := range slices.Chunk([]byte(fingerprint), 2) {
		pairs = append(pairs, string(pair))
	}
	return api.TrustFingerprint(strings.Join(pairs, ":"))
}

func stored(t *testing.T, status []api.TrustedCertificate) []api.TrustedCertificate {
	t.Helper()
	data, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	var out []api.TrustedCertificate
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func sameEntry(a, b api.TrustedCertificate) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func TestNoMoreThan32AreRetained(t *testing.T) {
	var before []api.TrustedCertificate
	for i := range maxRetained + 5 {
		cert := newCA(t, "ca", 500)
		before = append(before, api.TrustedCertificate{
			Fingerprint: pki.Fingerprint(cert), Source: "Secret ca, ca.crt", Certificate: string(pki.EncodeCertificatePEM(cert)),
			Retained: &api.TrustRetention{Since: metav1.NewTime(day(-i)), Until: metav1.NewTime(day(90 - i))},
		})
	}
	_, status, _ := resolve(facts{
		spec:     &api.TrustBundleSpec{Sources: []api.TrustSource{{Secret: &api.TrustObjectSource{Name: "ca"}}}},
		gathered: &gathered{}, before: before, now: start,
	})
	if len(status) != maxRetained {
		t.Fatalf("%d are retained", len(status))
	}
	if got, want := status[maxRetained-1].Fingerprint, before[maxRetained-1].Fingerprint; got != want {
		t.Error("those retained for the shortest time are not the ones that stay")
	}
}

func TestUsable(t *testing.T) {
	ca := newCA(t, "ca", 10)
	leaf := newCA(t, "leaf", 10, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	signsNothing := newCA(t, "crl", 10, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	expired := newCA(t, "expired", -1)
	future := newCA(t, "future", 20, func(c *x509.Certificate) { c.NotBefore = day(1) })
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	large := newCA(t, "large", 10, func(c *x509.Certificate) {
		for i := range 3000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("name-%d.example.com", i))
		}
	})
	for _, test := range []struct {
		name    string
		data    []byte
		want    []*x509.Certificate
		problem string // contained in what is said
	}{
		{name: "a CA is usable", data: pki.EncodeCertificatePEM(ca), want: []*x509.Certificate{ca}},
		{name: "a CA whose time has not come is usable", data: pki.EncodeCertificatePEM(future), want: []*x509.Certificate{future}},
		{name: "what is not a CA is left out, the rest is not", data: pki.EncodeCertificatePEM(leaf, ca),
			want:    []*x509.Certificate{ca},
			problem: "certificate 1 (CN=leaf) is not that of a CA"},
		{name: "a CA that may not sign is left out", data: pki.EncodeCertificatePEM(ca, signsNothing),
			want:    []*x509.Certificate{ca},
			problem: "certificate 2 (CN=crl) is of a CA that must not sign certificates"},
		{name: "an expired one is left out", data: pki.EncodeCertificatePEM(expired), problem: "certificate 1 " +
			"(CN=expired) expired at 2026-10-31T00:00:00Z"},
		{name: "a certificate that is too large is left out", data: pki.EncodeCertificatePEM(large, ca), want: []*x509.Certificate{ca}, problem: "certificate 1 (CN=large): "},
		{name: "an oversize bundle is refused", data: bytes.Repeat(pki.EncodeCertificatePEM(ca), 1000), problem: "330000"},
		{name: "a private key is refused", data: append(pki.EncodeCertificatePEM(ca), keyPEM...), problem: "PRIVATE KEY"},
		{name: "a block that is spoiled is no text between blocks", problem: "PEM block 2 (line ", data: bytes.Join([][]byte{
			pki.EncodeCertificatePEM(ca), bytes.Replace(pki.EncodeCertificatePEM(future), []byte("MIIB"), []byte("!!!!"), 1),
			pki.EncodeCertificatePEM(ca),
		}, nil)},
		{name: "what is not PEM is refused", data: []byte("ca"), problem: "PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var problems []string
			got, err := usable(test.data, pki.Limits{}, start, func(err error) { problems = append(problems, err.Error()) })
			if err != nil {
				problems = append(problems, err.Error())
			}
			if !slices.EqualFunc(got, test.want, (*x509.Certificate).Equal) {
				t.Errorf("got %d certificates, expected %d", len(got), len(test.want))
			}
			if said := strings.Join(
				problems,
				"\n",
			); test.problem == "" && said != "" || !strings.Contains(said, test.problem) ||
				len(problems) > 1 {
				t.Errorf("says %q, expected %q", problems, test.problem)
			}
			if key := string(keyPEM); len(problems) > 0 && strings.Contains(problems[0], key[40:60]) {
				t.Error("the private key is in the message")
			}
		})
	}
}

func FuzzUsable(f *testing.F) {
	ca := pki.EncodeCertificatePEM(newCA(f, "ca", 10))
	f.Add(ca)
	f.Add(append(pki.EncodeCertificatePEM(newCA(f, "leaf", 10, func(c *x509.Certificate) { c.IsCA = false })), ca...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := usable(data, pki.Limits{}, start, func(error) {})
		if err != nil && certs != nil {
			t.Error("certificates of what could not be read")
		}
		for _, cert := range certs {
			if !cert.IsCA || !start.Before(cert.NotAfter) {
				t.Error("not a CA, or expired")
			}
			if subject := subjectOf(cert); subject == "" || len(subject) > 1024 {
				t.Errorf("the subject has %d bytes, the status takes 1 to 1024", len(subject))
			}
		}
	})
}

func FuzzNameOf(f *testing.F) {
	f.Add("Secret", "ca", "tls.crt", "app", "trust", false)
	f.Add("Issuer", "shop", "internal", "", "", true)
	f.Fuzz(func(t *testing.T, kind, name, key, label, value string, all bool) {
		o := &api.TrustObjectSource{Name: name, Key: key, AllKeys: all}
		if label != "" {
			o.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
		}
		s := api.TrustSource{ConfigMap: o}
		switch kind {
		case "Secret":
			s = api.TrustSource{Secret: o}
		case "Issuer":
			s = api.TrustSource{Issuer: &api.TrustIssuerSource{Kind: "Issuer", Namespace: name, Name: key}}
		}
		if got := nameOf(&s); got == "" || got != nameOf(s.DeepCopy()) {
			t.Errorf("the name is %q", got)
		} else if len(name)+len(key) <= 506 && len(got) > 8192 {
			t.Errorf("the name has %d bytes, the status takes 8192", len(got))
		}
	})
}

func TestContents(t *testing.T) {
	certs := []*x509.Certificate{newCA(t, "one", 10), newCA(t, "two", 20)}
	bundle := &api.TrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "company", UID: "1"}}
	bundle.Spec.Target.ConfigMap = &api.TrustTargetObject{
		PEM:    &api.TrustPEM{Key: "ca.crt"},
		PKCS12: &api.TrustPKCS12{Key: "trust.p12", Profile: "Modern2023"},
		JKS:    &api.TrustJKS{Key: "trust.jks"},
		Labels: map[string]string{"app": "a"},
	}
	bundle.Spec.Target.Secret = &api.TrustTargetObject{Name: "other"}
	made := func(last []*content) []*content {
		t.Helper()
		all, err := contents(bundle, certs, last)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := made(nil)
	if len(all) != 2 || all[0].kind != configMapKind || all[0].name != "company" || all[1].kind != secretKind ||
		all[1].name != "other" {
		t.Fatalf("got %+v", all)
	}
	again := made(all)
	for i := range all[0].entries {
		if !bytes.Equal(all[0].entries[i].data, again[0].entries[i].data) {
			t.Errorf("%s is made anew though nothing changed", all[0].entries[i].key)
		}
	}

	// An object as another process wrote it, with other salts.
	object := func() *live {
		other := made(nil)[0]
		data, err := other.patch("shop", "")
		if err != nil {
			t.Fatal(err)
		}
		var c corev1.ConfigMap
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatal(err)
		}
		return &live{c.ObjectMeta, dataOf(&c)}
	}
	for _, test := range []struct {
		name   string
		change func(*live)
		want   bool
	}{
		{"an object that another process wrote is right", func(*live) {}, true},
		{"what others added does not matter", func(o *live) { o.data["mine"] = nil; o.Labels["mine"], o.Annotations["mine"] = "x", "x" }, true},
		{"other PEM is wrong", func(o *live) { o.data["ca.crt"] = pki.EncodeCertificatePEM(certs[0]) }, false},
		{"a truststore of other certificates is wrong", func(o *live) {
			data, err := pki.EncodePKCS12Truststore(pki.Modern2023, "changeit", certs[:1])
			if err != nil {
				t.Fatal(err)
			}
			o.data["trust.p12"] = data
		}, false},
		{"a truststore with another password is wrong", func(o *live) {
			data, err := pki.EncodeJKSTruststore(pki.JKSOptions{Password: "other!"}, certs)
			if err != nil {
				t.Fatal(err)
			}
			o.data["trust.jks"] = data
		}, false},
		{"a missing entry is wrong", func(o *live) { delete(o.data, "trust.jks") }, false},
		{"another label is wrong", func(o *live) { o.Labels["app"] = "b" }, false},
		{"another hash is wrong", func(o *live) { o.Annotations[api.TrustHashAnnotationKey] = "0" }, false},
		{"an object without owner is wrong", func(o *live) { o.OwnerReferences = nil }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := object()
			test.change(o)
			if got := made(nil)[0].matches(o); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}

	hashes := map[string]string{all[0].hash: "as it was"}
	for name, change := range map[string]func(*api.TrustTargetObject){
		"a label":   func(o *api.TrustTargetObject) { o.Labels = map[string]string{"app": "b"} },
		"a key":     func(o *api.TrustTargetObject) { o.PEM = &api.TrustPEM{Key: "roots.pem"} },
		"a profile": func(o *api.TrustTargetObject) { o.PKCS12 = &api.TrustPKCS12{Key: "trust.p12", Profile: "LegacyDES"} },
		"a password": func(o *api.TrustTargetObject) {
			o.JKS = &api.TrustJKS{Key: "trust.jks", Password: new(api.TrustPassword("geheim"))}
		},
		"a format": func(o *api.TrustTargetObject) { o.JKS = nil },
	} {
		before := bundle.Spec.Target.ConfigMap.DeepCopy()
		change(bundle.Spec.Target.ConfigMap)
		hash := made(nil)[0].hash
		if other, ok := hashes[hash]; ok {
			t.Errorf("with another %s the hash is %s", name, other)
		}
		hashes[hash] = "that of " + name
		bundle.Spec.Target.ConfigMap = before
	}
	certs = certs[:1]
	if _, ok := hashes[made(nil)[0].hash]; ok {
		t.Error("with fewer certificates the hash is the same")
	}
	certs = nil
	if empty := made(nil)[0]; len(empty.entries) != 3 || !maps.Equal(empty.labels, all[0].labels) {
		t.Errorf("a bundle that became empty is %+v", empty)
	}
}

func TestSourceKeys(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "trust"}}
	bundle := &api.TrustBundle{Spec: api.TrustBundleSpec{Sources: []api.TrustSource{
		{InLine: "..."},
		{
			Secret: &api.TrustObjectSource{Name: "a"},
		},
		{Secret: &api.TrustObjectSource{Name: "a", Key: "tls.crt"}},
		{Secret: &api.TrustObjectSource{Selector: selector}},
		{ConfigMap: &api.TrustObjectSource{Name: "a"}},
		{ConfigMap: &api.TrustObjectSource{Selector: selector}},
		{
			Issuer: &api.TrustIssuerSource{Kind: "Issuer", Namespace: "shop", Name: "a"},
		},
		{Issuer: &api.TrustIssuerSource{Name: "a"}},
	}}}
	want := []string{"ClusterIssuer a", "ConfigMap", "ConfigMap a", "Issuer shop/a", "Secret", "Secret a"}
	if got := sourceKeys(bundle); !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
}
