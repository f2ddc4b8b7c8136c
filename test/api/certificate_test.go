package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/perennial-pki/perennial/pki"
)

const certificate = `
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: default}
spec:
  secretName: web-tls
  dnsNames: [www.example.com]
  issuerRef: {name: ca}
`

func TestCertificatesNameSomething(t *testing.T) {
	nothing := refused(
		"spec",
		"the certificate must name something: set commonName, literalSubject with a CN, dnsNames, ipAddresses, uris, "+
			"emailAddresses or otherNames",
	)
	judge(t, certificates, certificate, []example{
		{"a certificate of nothing is refused", `spec: {dnsNames: null}`, nothing},
		{
			"a certificate of empty lists and strings is refused",
			`spec: {dnsNames: [], ipAddresses: [], commonName: ""}`,
			nothing,
		},
		{
			"a subject without a common name is not enough",
			`spec: {dnsNames: null, subject: {organizations: [Example]}}`,
			nothing,
		},
		{
			"a literal subject without a common name is not enough",
			`spec: {dnsNames: null, literalSubject: "O=CN,C=DE"}`,
			nothing,
		},
		{"a common name is enough", `spec: {dnsNames: null, commonName: web}`, accepted},
		{
			"a literal subject with a common name is enough",
			`spec: {dnsNames: null, literalSubject: "CN=web,O=Example"}`,
			accepted,
		},
		{
			"a literal subject with its common name last is enough",
			`spec: {dnsNames: null, literalSubject: "O=Example, cn = web"}`,
			accepted,
		},
		{
			"a literal subject with its common name by number is enough",
			`spec: {dnsNames: null, literalSubject: "O=Example+2.5.4.3=web"}`,
			accepted,
		},
		{"an IP address is enough", `spec: {dnsNames: null, ipAddresses: [10.0.0.1]}`, accepted},
		{"a URI is enough", `spec: {dnsNames: null, uris: ["spiffe://example.com/web"]}`, accepted},
		{"an email address is enough", `spec: {dnsNames: null, emailAddresses: [jane@example.com]}`, accepted},
		{
			"an other name is enough",
			`spec: {dnsNames: null, otherNames: [{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: jane@example.com}]}`,
			accepted,
		},
	})
}

func TestCertificatesHaveSubjectsThatCanBeIssued(t *testing.T) {
	exclusive := refused(
		"spec.literalSubject",
		"literalSubject is the whole subject: remove commonName and subject, or remove literalSubject",
	)
	tooLong := refused("spec.commonName", "commonName must be at most 64 bytes: put a longer name into dnsNames")
	judge(t, certificates, certificate, []example{
		{"a literal subject excludes a common name", `spec: {literalSubject: "CN=web", commonName: web}`, exclusive},
		{"a literal subject excludes a subject", `spec: {literalSubject: "CN=web", subject: {countries: [DE]}}`, exclusive},
		{
			"a literal subject excludes a serial number",
			`spec: {literalSubject: "CN=web", subject: {serialNumber: "1"}}`,
			exclusive,
		},
		{"a literal subject bears an empty subject", `spec: {literalSubject: "CN=web", subject: {}}`, accepted},
		{
			"a literal subject bears empty lists in the subject",
			`spec: {literalSubject: "CN=web", subject: {organizations: []}, commonName: ""}`,
			accepted,
		},
		{
			"an empty literal subject bears a common name",
			`spec: {literalSubject: "", commonName: web, subject: {organizations: [Example]}}`,
			accepted,
		},
		{"a common name of 64 bytes is accepted", `spec: {commonName: ` + strings.Repeat("a", 64) + `}`, accepted},
		{"a common name of 65 bytes is refused", `spec: {commonName: ` + strings.Repeat("a", 65) + `}`, tooLong},
		{
			"a common name of 33 letters with 66 bytes is refused",
			`spec: {commonName: ` + strings.Repeat("ä", 33) + `}`,
			tooLong,
		},
	})
}

func TestCertificatesHaveAlternativeNamesThatParse(t *testing.T) {
	ip := func(path string) verdict {
		return refused(path, "must be an IP address such as 10.0.0.1 or 2001:db8::1")
	}
	email := refused("spec.emailAddresses[0]", "must be an email address alone, such as jane@example.com")
	oid := refused("spec.otherNames[0].oid", "oid must be an object identifier such as 1.3.6.1.4.1.311.20.2.3")
	judge(t, certificates, certificate, []example{
		{"IP addresses of both families are accepted", `spec: {ipAddresses: [10.0.0.1, "2001:db8::1", "::1"]}`, accepted},
		{"an IPv4 address in IPv6 form is accepted", `spec: {ipAddresses: ["::FFFF:10.0.0.1"]}`, accepted},
		{"a host name is no IP address", `spec: {ipAddresses: [10.0.0.1, example.com]}`, ip("spec.ipAddresses[1]")},
		{"a network is no IP address", `spec: {ipAddresses: [10.0.0.0/8]}`, ip("spec.ipAddresses[0]")},
		{"an address with a zone is no IP address", `spec: {ipAddresses: ["fe80::1%eth0"]}`, ip("spec.ipAddresses[0]")},

		{
			"usual email addresses are accepted",
			`spec: {emailAddresses: [jane@example.com, "jane.doe+tag@mail.example.com", "jürgen@exämple.com", jane@localhost, "jane@[10.0.0.1]"]}`,
			accepted,
		},
		{"an email address with a name is refused", `spec: {emailAddresses: ["Jane <jane@example.com>"]}`, email},
		{"an email address without a host is refused", `spec: {emailAddresses: [jane]}`, email},
		{"an email address with two dots in a row is refused", `spec: {emailAddresses: [jane..doe@example.com]}`, email},
		{"an email address that ends with a dot is refused", `spec: {emailAddresses: [jane@example.com.]}`, email},
		{"an email address with two hosts is refused", `spec: {emailAddresses: [jane@example.com@example.org]}`, email},
		{"an email address with a space is refused", `spec: {emailAddresses: ["jane doe@example.com"]}`, email},

		{
			"other names are accepted",
			`spec: {otherNames: [{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: jane@example.com}, {oid: "2.5", utf8Value: ä}]}`,
			accepted,
		},
		{"an other name without an identifier is refused", `spec: {otherNames: [{utf8Value: jane}]}`, oid},
		{"an other name with a word as identifier is refused", `spec: {otherNames: [{oid: upn, utf8Value: jane}]}`, oid},
		{"an other name with an impossible identifier is refused", `spec: {otherNames: [{oid: 1.3., utf8Value: jane}]}`, oid},
		{
			"an other name without a value is refused",
			`spec: {otherNames: [{oid: 1.3.6}]}`,
			refused("spec.otherNames[0].utf8Value", "utf8Value must not be empty"),
		},
		{
			"an other name with an empty value is refused",
			`spec: {otherNames: [{oid: 1.3.6, utf8Value: ""}]}`,
			refused("spec.otherNames[0].utf8Value", "utf8Value must not be empty"),
		},
	})
}

func TestCertificatesHaveDNSNames(t *testing.T) {
	for _, name := range []string{
		"www.example.com", "WWW.Example.com", "www.example.com.", "*.example.com", "_dmarc.example.com", "localhost",
		"bücher.example", "xn--bcher-kva.example",
		"999.0.0.1", "-", "a.*.example.com", strings.Repeat("a.", 126) + "a",
		"https://www.example.com/", "https://www.example.com:8443", "www.example.com/path", "10.0.0.0/8", "//a b:1..", "a b",
		"a.example.com, b.example.com", "a\tb", "a\n",
		"www.example.com:443", "2001:db8::1", "::ffff:10.0.0.1", "[::1]", "10.0.0.1:80", "10.0.0.1", "10.0.0.1.", "", ".",
		".example.com", "a..b", "a..",
	} {
		t.Run(name, func(t *testing.T) {
			want := accepted
			if err := pki.CheckDNSName(name); err != nil { // the controller's judgement of what the API server cannot see
				want = refused("spec.dnsNames[1]", err.Error())
			}
			want.check(t, dryRun(t, admin(t), certificates,
				object(t, certificate, fmt.Sprintf("spec: {dnsNames: [first.example.com, %q]}", name))))
		})
	}
}

func TestCertificatesAndRequestsHaveASpec(t *testing.T) {
	missing := refused("spec",
		"the spec is missing: write secretName, issuerRef and the names of the certificate below spec, indented")
	judge(t, certificates, certificate, []example{{"no spec", `spec: null`, missing}})
	judge(t, certificateRequests, certificateRequest, []example{
		{"no spec", `spec: null`, refused("spec", "the spec is missing: write request and issuerRef below spec, indented")},
	})
}

// TestWhatAnEarlierSchemaTookCanBeUpdated stores objects under a schema without the rules, like
// that of an earlier version, and checks that users and the controller can still write them.
func TestWhatAnEarlierSchemaTookCanBeUpdated(t *testing.T) {
	client := admin(t)
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1",
		Resource: "customresourcedefinitions"})
	const name = "certificates.cert-manager.io"
	now, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	schemaOf := func(crd *unstructured.Unstructured) map[string]any {
		versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		if err != nil || len(versions) != 1 {
			t.Fatalf("%d versions, error %v", len(versions), err)
		}
		return versions[0].(map[string]any)
	}
	replace := func(version map[string]any) {
		t.Helper()
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"versions": []any{version}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := definitions.Patch(context.Background(), name, types.MergePatchType, patch,
			metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	current, earlier := schemaOf(now.DeepCopy()), schemaOf(now.DeepCopy())
	top := []string{"schema", "openAPIV3Schema"}
	unstructured.RemoveNestedField(earlier, append(top, "x-kubernetes-validations")...)
	dns := []string{"schema", "openAPIV3Schema", "properties", "spec", "properties", "dnsNames"}
	for _, field := range [][]string{{"maxItems"}, {"items", "maxLength"}, {"items", "x-kubernetes-validations"}} {
		unstructured.RemoveNestedField(earlier, append(slices.Clone(dns), field...)...)
	}
	replace(earlier)
	t.Cleanup(func() { replace(current) })

	bad := object(
		t,
		certificate,
		`{metadata: {name: earlier-names}, spec: {dnsNames: ["https://www.example.com/", "www.example.com:443", 10.0.0.1, a b, a..b]}}`,
	)
	bare := object(t, certificate, `{metadata: {name: earlier-spec}, spec: null}`)
	judged := func(taken bool) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true,
			func(context.Context) (bool, error) {
				return dryRun(t, client, certificates, bad) == nil == taken && dryRun(t, client, certificates,
						bare) == nil == taken,
					nil
			})
		if err != nil {
			t.Fatalf("the API server has not read the schema: %v", err)
		}
	}
	judged(true)
	create(t, client, certificates, bad)
	create(t, client, certificates, bare)
	replace(current)
	judged(false)

	resource := client.Resource(certificates).Namespace("default")
	for _, o := range []*unstructured.Unstructured{bad, bare} {
		for _, change := range []struct {
			patch       string
			subresource []string
		}{
			{`{"metadata": {"labels": {"a": "b"}, "finalizers": ["perennial.dev/test"]}}`, nil},
			{`{"status": {"revision": 1}}`, []string{"status"}},
			{`{"metadata": {"finalizers": null}}`, nil},
		} {
			if _, err := resource.Patch(t.Context(), o.GetName(), types.MergePatchType, []byte(change.patch),
				metav1.PatchOptions{}, change.subresource...); err != nil {
				t.Errorf("%s: %s: %v", o.GetName(), change.patch, err)
			}
		}
	}
	if _, err := resource.Patch(t.Context(), bad.GetName(), types.MergePatchType,
		[]byte(`{"spec": {"duration": "2160h"}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("another field of the spec cannot be changed: %v", err)
	}
	_, err = resource.Patch(t.Context(), bad.GetName(), types.MergePatchType,
		[]byte(`{"spec": {"dnsNames": ["https://www.example.org/"]}}`), metav1.PatchOptions{})
	refused("spec.dnsNames[0]", pki.CheckDNSName("https://www.example.org/").Error()).check(t, err)
}

func TestCertificatesOfManyNamesAreAccepted(t *testing.T) {
	judge(t, certificates, certificate, []example{
		{"3000 DNS names", `spec: {dnsNames: ` + list(3000, "host-%d.example.com") + `}`, accepted},
		{"3000 IP addresses", `spec: {ipAddresses: ` + list(3000, `"2001:db8::%x"`) + `}`, accepted},
		{"3000 URIs", `spec: {uris: ` + list(3000, "spiffe://example.com/ns/default/sa/%d") + `}`, accepted},
		{"1500 email addresses", `spec: {emailAddresses: ` + list(1500, "user-%d@example.com") + `}`, accepted},
		{
			"1000 other names",
			`spec: {otherNames: ` + list(1000, "{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: user-%d@example.com}") + `}`,
			accepted,
		},
		{
			"a CA of 1500 networks",
			`spec: {isCA: true, nameConstraints: {permitted: {ipRanges: ` + list(1500, `"2001:db8:%x::/48"`) + `}}}`,
			accepted,
		},
	})
}

func TestCertificatesNameASecret(t *testing.T) {
	bad := refused(
		"spec.secretName",
		"secretName must be the name of a Secret: lower-case letters, digits, '-' and '.', beginning and ending with a "+
			"letter or digit",
	)
	judge(t, certificates, certificate, []example{
		{"a name with dots is accepted", `spec: {secretName: web.example.com-tls}`, accepted},
		{"a missing name is refused", `spec: {secretName: null}`, refused("spec.secretName", "Required value")},
		{"an empty name is refused", `spec: {secretName: ""}`, bad},
		{"a name with capitals is refused", `spec: {secretName: WebTLS}`, bad},
		{"a name with an underscore is refused", `spec: {secretName: web_tls}`, bad},
		{"a path is refused", `spec: {secretName: default/web}`, bad},
		{
			"a name that is too long is refused",
			`spec: {secretName: ` + strings.Repeat("a", 254) + `}`,
			refused("spec.secretName", "may not be more than 253 bytes"),
		},
	})
}

func TestCertificatesNameAnIssuer(t *testing.T) {
	kind := refused(
		"spec.issuerRef.kind",
		"kind must be Issuer or ClusterIssuer; for an external issuer also write its API group into issuerRef.group",
	)
	judge(t, certificates, certificate, []example{
		{"an Issuer is accepted", `spec: {issuerRef: {kind: Issuer, group: cert-manager.io}}`, accepted},
		{"a ClusterIssuer is accepted", `spec: {issuerRef: {kind: ClusterIssuer}}`, accepted},
		{"empty kind and group are accepted", `spec: {issuerRef: {kind: "", group: ""}}`, accepted},
		{
			"any kind of another group is accepted",
			`spec: {issuerRef: {kind: AWSPCAClusterIssuer, group: awspca.cert-manager.io}}`,
			accepted,
		},
		{
			"a missing name is refused",
			`spec: {issuerRef: {name: null, kind: Issuer}}`,
			refused("spec.issuerRef.name", "Required value"),
		},
		{
			"an empty name is refused",
			`spec: {issuerRef: {name: ""}}`,
			refused("spec.issuerRef.name", "name must be the name of the issuer"),
		},
		{"an external kind without its group is refused", `spec: {issuerRef: {kind: AWSPCAClusterIssuer}}`, kind},
		{
			"an unknown kind of cert-manager.io is refused",
			`spec: {issuerRef: {kind: Certificate, group: cert-manager.io}}`,
			kind,
		},
		{"a missing issuer is refused", `spec: {issuerRef: null}`, refused("spec.issuerRef", "Required value")},
	})
}

func TestCertificatesHaveKeysThatExist(t *testing.T) {
	rsa := refused("spec.privateKey.size", "size of an RSA key must be from 2048 to 8192")
	ecdsa := refused("spec.privateKey.size", "size of an ECDSA key must be 256, 384 or 521")
	signature := refused(
		"spec.signatureAlgorithm",
		"signatureAlgorithm must fit privateKey.algorithm: SHA256WithRSA, SHA384WithRSA or SHA512WithRSA for RSA (the "+
			"default), "+
			"ECDSAWithSHA256, ECDSAWithSHA384 or ECDSAWithSHA512 for ECDSA, PureEd25519 for Ed25519",
	)
	judge(t, certificates, certificate, []example{
		{"an RSA key of 2048 bits is accepted", `spec: {privateKey: {algorithm: RSA, size: 2048}}`, accepted},
		{"an RSA key of 8192 bits is accepted", `spec: {privateKey: {size: 8192}}`, accepted},
		{"an RSA key of 3000 bits is accepted", `spec: {privateKey: {size: 3000}}`, accepted},
		{"an RSA key of 1024 bits is refused", `spec: {privateKey: {algorithm: RSA, size: 1024}}`, rsa},
		{"an RSA key of 16384 bits is refused", `spec: {privateKey: {size: 16384}}`, rsa},
		{"an RSA key of the size of an ECDSA key is refused", `spec: {privateKey: {size: 256}}`, rsa},
		{"a key of less than nothing is refused", `spec: {privateKey: {size: -1}}`, rsa},
		{"the size 0 stands for the default", `spec: {privateKey: {algorithm: ECDSA, size: 0}}`, accepted},
		{"ECDSA keys of 521 bits are accepted", `spec: {privateKey: {algorithm: ECDSA, size: 521}}`, accepted},
		{"ECDSA keys of 512 bits are refused", `spec: {privateKey: {algorithm: ECDSA, size: 512}}`, ecdsa},
		{"the size of an Ed25519 key is not looked at", `spec: {privateKey: {algorithm: Ed25519, size: 1}}`, accepted},
		{
			"an unknown algorithm is refused",
			`spec: {privateKey: {algorithm: DSA}}`,
			refused("spec.privateKey.algorithm", `supported values: "RSA", "ECDSA", "Ed25519"`),
		},

		{"RSA signs with RSA", `spec: {signatureAlgorithm: SHA512WithRSA, privateKey: {algorithm: RSA}}`, accepted},
		{"the default key signs with RSA", `spec: {signatureAlgorithm: SHA256WithRSA}`, accepted},
		{"ECDSA signs with ECDSA", `spec: {signatureAlgorithm: ECDSAWithSHA384, privateKey: {algorithm: ECDSA}}`, accepted},
		{"Ed25519 signs with Ed25519", `spec: {signatureAlgorithm: PureEd25519, privateKey: {algorithm: Ed25519}}`, accepted},
		{"the default key does not sign with ECDSA", `spec: {signatureAlgorithm: ECDSAWithSHA256}`, signature},
		{
			"RSA does not sign with Ed25519",
			`spec: {signatureAlgorithm: PureEd25519, privateKey: {algorithm: RSA}}`,
			signature,
		},
		{
			"ECDSA does not sign with RSA",
			`spec: {signatureAlgorithm: SHA256WithRSA, privateKey: {algorithm: ECDSA}}`,
			signature,
		},
		{
			"Ed25519 does not sign with ECDSA",
			`spec: {signatureAlgorithm: ECDSAWithSHA256, privateKey: {algorithm: Ed25519}}`,
			signature,
		},
	})
}

func TestCertificatesHaveUsagesThatExist(t *testing.T) {
	judge(t, certificates, certificate, []example{
		{
			"all usages are accepted",
			`spec: {usages: [signing, digital signature, content commitment, key encipherment, key agreement, data encipherment,
			cert sign, crl sign, encipher only, decipher only, any, server auth, client auth, code signing, email protection, s/mime,
			ipsec end system, ipsec tunnel, ipsec user, timestamping, ocsp signing, microsoft sgc, netscape sgc]}`,
			accepted,
		},
		{"an unknown usage is refused", `spec: {usages: [serverAuth]}`, refused("spec.usages[0]", `"netscape sgc"`)},
	})
}

func TestCertificatesKeepAtLeastOneRevision(t *testing.T) {
	judge(t, certificates, certificate, []example{
		{"one revision is accepted", `spec: {revisionHistoryLimit: 1}`, accepted},
		{
			"no revision is refused",
			`spec: {revisionHistoryLimit: 0}`,
			refused("spec.revisionHistoryLimit", "should be greater than or equal to 1"),
		},
	})
}

func TestSecretTemplatesFitSecrets(t *testing.T) {
	annotations := refused(
		"spec.secretTemplate.annotations",
		"annotations of cert-manager.io are the controller's own: remove those whose name begins with cert-manager.io/, "+
			"except cert-manager.io/allow-direct-injection",
	)
	policy := func(message string) verdict {
		return refused(
			"",
			"ValidatingAdmissionPolicy 'perennial-secret-template' with binding "+
				"'perennial-secret-template' denied request: "+message,
		)
	}
	label := func(name string) verdict {
		return policy(
			"spec.secretTemplate.labels['" + name + "'] must be a label: a name such as example.com/team, and a value of " +
				"at most 63 letters, digits, '-', '_' and '.' that begins and ends with a letter or digit",
		)
	}
	judge(t, certificates, certificate, []example{
		{
			"labels and annotations are accepted",
			`spec: {secretTemplate: {labels: {team: web, example.com/tier: ""}, annotations: {example.com/Note: "any text: ä"}}}`,
			accepted,
		},
		{
			"the annotation that allows injection is accepted",
			`spec: {secretTemplate: {annotations: {cert-manager.io/allow-direct-injection: "true"}}}`,
			accepted,
		},
		{
			"annotations of the controller are refused",
			`spec: {secretTemplate: {annotations: {cert-manager.io/issuer-name: x}}}`,
			annotations,
		},
		{
			"annotations of others that begin alike are accepted",
			`spec: {secretTemplate: {annotations: {cert-manager.io.example.com/x: "yes"}}}`,
			accepted,
		},
		{
			"a value that no label can have is refused",
			`spec: {secretTemplate: {labels: {team: "the web team"}}}`,
			label("team"),
		},
		{
			"a value that is too long for a label is refused",
			`spec: {secretTemplate: {labels: {team: ` + strings.Repeat("a", 64) + `}}}`,
			label("team"),
		},
		{
			"a name that no label can have is refused",
			`spec: {secretTemplate: {labels: {"the team": web}}}`,
			label("the team"),
		},
		{"a name that no annotation can have is refused", `spec: {secretTemplate: {annotations: {"the team": web}}}`,
			policy("spec.secretTemplate.annotations['the team'] must have a name such as example.com/team")},
	})
}

func TestNameConstraintsAreOfCAs(t *testing.T) {
	network := refused(
		"spec.nameConstraints.excluded.ipRanges[0]",
		"must be an IP network such as 10.0.0.0/8 or 2001:db8::/32",
	)
	judge(t, certificates, certificate, []example{
		{
			"a CA with constraints is accepted",
			`spec: {isCA: true, nameConstraints: {critical: true, permitted: {dnsDomains: [example.com], ipRanges: [10.0.0.0/8], emailAddresses: [example.com], uriDomains: [.example.com]}, excluded: {ipRanges: ["2001:db8::/32"]}}}`,
			accepted,
		},
		{
			"a leaf with constraints is refused",
			`spec: {nameConstraints: {permitted: {dnsDomains: [example.com]}}}`,
			refused("spec.nameConstraints", "nameConstraints are for CAs: set isCA to true, or remove them"),
		},
		{
			"constraints of nothing are refused",
			`spec: {isCA: true, nameConstraints: {critical: true}}`,
			refused("spec.nameConstraints", "nameConstraints must have permitted, excluded or both"),
		},
		{"an address is no network", `spec: {isCA: true, nameConstraints: {excluded: {ipRanges: [10.0.0.1]}}}`, network},
		{"a word is no network", `spec: {isCA: true, nameConstraints: {excluded: {ipRanges: [all]}}}`, network},
	})
}

func TestAdditionalOutputFormatsAreNamedOnce(t *testing.T) {
	judge(t, certificates, certificate, []example{
		{"both formats are accepted", `spec: {additionalOutputFormats: [{type: DER}, {type: CombinedPEM}]}`, accepted},
		{
			"a format twice is refused",
			`spec: {additionalOutputFormats: [{type: DER}, {type: CombinedPEM}, {type: DER}]}`,
			refused("spec.additionalOutputFormats", "additionalOutputFormats must not name a type twice"),
		},
		{
			"an unknown format is refused",
			`spec: {additionalOutputFormats: [{type: PEM}]}`,
			refused("spec.additionalOutputFormats[0].type", `supported values: "DER", "CombinedPEM"`),
		},
	})
}

func TestKeystoresHaveOnePassword(t *testing.T) {
	for _, keystore := range []string{"jks", "pkcs12"} {
		exactlyOne := refused(
			"spec.keystores."+keystore+".password",
			"exactly one of password and passwordSecretRef must be set",
		)
		spec := func(fields string) string { return `spec: {keystores: {` + keystore + `: {` + fields + `}}}` }
		t.Run(keystore, func(t *testing.T) {
			judge(t, certificates, certificate, []example{
				{"a password is accepted", spec(`create: true, password: secret`), accepted},
				{
					"a password beside an empty reference is accepted",
					spec(`create: true, password: secret, passwordSecretRef: {name: ""}`),
					accepted,
				},
				{"a reference is accepted", spec(`create: true, passwordSecretRef: {name: keystore, key: password}`), accepted},
				{
					"both are refused",
					spec(`create: true, password: secret, passwordSecretRef: {name: keystore, key: password}`),
					exactlyOne,
				},
				{"none is refused", spec(`create: true`), exactlyOne},
				{
					"an empty password is refused",
					spec(`create: true, password: ""`),
					refused("spec.keystores."+keystore+".password", "password must not be empty"),
				},
			})
		})
	}
	judge(t, certificates, certificate, []example{
		{
			"the profiles of PKCS#12 are accepted",
			`spec: {keystores: {pkcs12: {create: true, password: secret, profile: Modern2026}}}`,
			accepted,
		},
		{
			"an unknown profile of PKCS#12 is refused",
			`spec: {keystores: {pkcs12: {create: true, password: secret, profile: Modern}}}`,
			refused("spec.keystores.pkcs12.profile", `supported values: "LegacyRC2", "LegacyDES", "Modern2023", "Modern2026"`),
		},
	})
}
