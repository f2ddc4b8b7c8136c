package shim

import (
	"encoding/json"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ingress returns an Ingress that wants the Secret tls for www.example.com from the ClusterIssuer
// ca, with additional annotations.
func ingress(annotations map[string]string) *networkingv1.Ingress {
	o := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   "shop",
			Name:        "web",
			UID:         "1",
			Annotations: map[string]string{"cert-manager.io/cluster-issuer": "ca"},
		},
		Spec: networkingv1.IngressSpec{
			TLS: []networkingv1.IngressTLS{{Hosts: []string{"www.example.com"}, SecretName: "tls"}},
		},
	}
	for k, v := range annotations {
		if v == "(none)" {
			delete(o.Annotations, k)
		} else {
			o.Annotations[k] = v
		}
	}
	return o
}

func TestAnnotations(t *testing.T) {
	for key, test := range map[string]struct {
		value string
		want  string // JSON that the spec must contain
		wrong string // a value that is refused
		says  string // of the mistake
	}{
		"cert-manager.io/common-name":                 {"www.example.com", `"commonName":"www.example.com"`, "", ""},
		"cert-manager.io/alt-names":                   {"a.example.com, b.example.com", `"dnsNames":["www.example.com","a.example.com","b.example.com"]`, "", ""},
		"cert-manager.io/ip-sans":                     {"192.0.2.1", `"ipAddresses":["192.0.2.1"]`, "", ""},
		"cert-manager.io/uri-sans":                    {"spiffe://a/b", `"uris":["spiffe://a/b"]`, "", ""},
		"cert-manager.io/email-sans":                  {"a@example.com", `"emailAddresses":["a@example.com"]`, "", ""},
		"cert-manager.io/subject-organizations":       {`"A, Inc.",B`, `"organizations":["A, Inc.","B"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-organizationalunits": {"A", `"organizationalUnits":["A"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-countries":           {"DE", `"countries":["DE"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-provinces":           {"A", `"provinces":["A"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-localities":          {"A", `"localities":["A"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-postalcodes":         {"A", `"postalCodes":["A"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-streetaddresses":     {"A", `"streetAddresses":["A"]`, `"A`, "separated by commas"},
		"cert-manager.io/subject-serialnumber":        {"7", `"serialNumber":"7"`, "", ""},
		"cert-manager.io/duration":                    {"240h", `"duration":"240h0m0s"`, "10 days", "such as 2160h"},
		"cert-manager.io/renew-before":                {"24h", `"renewBefore":"24h0m0s"`, "soon", "such as 2160h"},
		"cert-manager.io/renew-before-percentage": {"30", `"renewBeforePercentage":30`, "a third", "is not a number " +
			"from"},
		"cert-manager.io/usages":                      {"server auth, client auth", `"usages":["server auth","client auth"]`, "serve", "server auth"},
		"cert-manager.io/revision-history-limit":      {"3", `"revisionHistoryLimit":3`, "0", "from 1"},
		"cert-manager.io/private-key-algorithm":       {"ECDSA", `"algorithm":"ECDSA"`, "DSA", "RSA, ECDSA, Ed25519"},
		"cert-manager.io/private-key-encoding":        {"PKCS8", `"encoding":"PKCS8"`, "PEM", "PKCS1, PKCS8"},
		"cert-manager.io/private-key-size":            {"4096", `"size":4096`, "1024", "from 2048 to 8192"},
		"cert-manager.io/private-key-rotation-policy": {"Never", `"rotationPolicy":"Never"`, "Sometimes", "Always, Never"},
		"perennial.dev/acme-profile":                  {"shortlived", `"acmeProfile":"shortlived"`, "", ""},
		"perennial.dev/deletion-policy":               {"Delete", `"deletionPolicy":"Delete"`, "Keep", "Retain, Delete"},
		"perennial.dev/rehearsal-issuer":              {"ClusterIssuer/staging", `"rehearsalIssuerRef":{"name":"staging","kind":"ClusterIssuer","group":"cert-manager.io"}`, "staging", "ClusterIssuer/NAME"},
		"perennial.dev/revoke-on-delete":              {"true", `"revocation":{"onDelete":true}`, "yes", "true, false"},
		"perennial.dev/revocation-reason":             {"superseded", `"revocation":{"reason":"superseded"}`, "bored", "cessationOfOperation"},
		"cert-manager.io/secret-template":             {`{"labels":{"a":"b"}}`, `"secretTemplate":{"labels":{"a":"b"}}`, `{"label":{}}`, "labels"},
	} {
		t.Run(key, func(t *testing.T) {
			d := desiredBy(ofIngress(ingress(map[string]string{key: test.value})), Settings{})
			if len(d.mistakes) > 0 || len(d.certificates) != 1 {
				t.Fatalf("got %+v", d)
			}
			spec, err := json.Marshal(d.certificates[0].Spec)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(spec), test.want) {
				t.Errorf("the spec is %s", spec)
			}
			if test.wrong == "" {
				return
			}
			d = desiredBy(ofIngress(ingress(map[string]string{key: test.wrong})), Settings{})
			if !d.broken || len(d.certificates) > 0 || !strings.HasPrefix(text(d.mistakes), key+": ") ||
				!strings.Contains(text(d.mistakes), test.says) {
				t.Errorf("of %q: %+v", test.wrong, d)
			}
		})
	}
}

func TestWhichIssuer(t *testing.T) {
	fallback := Settings{
		DefaultIssuer: cmmeta.IssuerReference{Name: "standard", Kind: "ClusterIssuer", Group: "cert-manager.io"},
	}
	for name, test := range map[string]struct {
		annotations map[string]string
		settings    Settings
		want        string // of the reference, or of the mistake; empty if nothing is asked for
	}{
		"a ClusterIssuer":              {nil, Settings{}, "cert-manager.io/ClusterIssuer/ca"},
		"an Issuer":                    {map[string]string{"cert-manager.io/cluster-issuer": "(none)", "cert-manager.io/issuer": "x"}, Settings{}, "cert-manager.io/Issuer/x"},
		"an issuer of another project": {map[string]string{"cert-manager.io/cluster-issuer": "(none)", "cert-manager.io/issuer": "x", "cert-manager.io/issuer-kind": "K", "cert-manager.io/issuer-group": "g.example"}, Settings{}, "g.example/K/x"},
		"both": {map[string]string{"cert-manager.io/issuer": "x"}, Settings{}, "remove one of " +
			"the two"},
		"a kind beside ClusterIssuer": {map[string]string{"cert-manager.io/issuer-kind": "K"}, Settings{}, "leave it out"},
		"no annotation":               {map[string]string{"cert-manager.io/cluster-issuer": "(none)"}, fallback, ""},
		"tls-acme":                    {map[string]string{"cert-manager.io/cluster-issuer": "(none)", "kubernetes.io/tls-acme": "true"}, fallback, "cert-manager.io/ClusterIssuer/standard"},
		"tls-acme without a default":  {map[string]string{"cert-manager.io/cluster-issuer": "(none)", "kubernetes.io/tls-acme": "true"}, Settings{}, "--default-issuer-name"},
		"tls-acme that is false":      {map[string]string{"cert-manager.io/cluster-issuer": "(none)", "kubernetes.io/tls-acme": "false"}, fallback, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := desiredBy(ofIngress(ingress(test.annotations)), test.settings)
			got := text(d.mistakes)
			if len(d.certificates) > 0 {
				ref := d.certificates[0].Spec.IssuerRef
				got = ref.Group + "/" + ref.Kind + "/" + ref.Name
			}
			if d.asks != (test.want != "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestWhatIsPassedOn(t *testing.T) {
	d := desiredBy(ofIngress(ingress(map[string]string{
		"acme.cert-manager.io/http01-edit-in-place": "true",
		"acme.cert-manager.io/http01-ingress-class": "nginx",
		"team":                                 "shop",
		"other":                                "x",
		"venafi.cert-manager.io/custom-fields": "[]",
	})), Settings{ExtraAnnotations: []string{"team"}})
	got := d.certificates[0].Annotations
	for k, v := range map[string]string{
		"acme.cert-manager.io/http01-override-ingress-name": "web", "acme.cert-manager.io/http01-override-ingress-class": "nginx",
		"cert-manager.io/issue-temporary-certificate": "true", "team": "shop", "venafi.cert-manager.io/custom-fields": "[]",
	} {
		if got[k] != v {
			t.Errorf("%s is %q", k, got[k])
		}
	}
	if _, found := got["other"]; found {
		t.Error("an unrelated annotation is passed on")
	}
}

func TestMistakesInTheTLSOfAnIngressNameTheirField(t *testing.T) {
	o := ingress(nil)
	o.Spec.TLS = append(
		o.Spec.TLS,
		networkingv1.IngressTLS{Hosts: []string{"a"}},
		networkingv1.IngressTLS{SecretName: "b"},
		o.Spec.TLS[0],
	)
	d := desiredBy(ofIngress(o), Settings{})
	if len(d.certificates) != 1 || d.broken {
		t.Errorf("one entry is right, and got %d certificates", len(d.certificates))
	}
	for _, field := range []string{
		"spec.tls[1].secretName: is missing", "spec.tls[2].hosts: is empty",
		"spec.tls[3].secretName: \"tls\" is in an earlier entry",
	} {
		if !strings.Contains(text(d.mistakes), field) {
			t.Errorf("%q is not in %s", field, text(d.mistakes))
		}
	}
}

func FuzzAnnotations(f *testing.F) {
	for i := range setters {
		f.Add(i, "a, b")
		f.Add(i, `{"labels":{"a":"b"}}`)
		f.Add(i, "12h")
	}
	f.Fuzz(func(t *testing.T, i int, value string) {
		if i < 0 {
			i = -(i + 1)
		}
		crt := &cmapi.Certificate{}
		if err := setters[i%len(setters)].set(crt, value); err != nil && len(err.Error()) > 2000 {
			t.Errorf("a message of %d bytes", len(err.Error()))
		}
		if len(crt.Spec.DNSNames) > maxItems {
			t.Error("a list without end")
		}
	})
}
