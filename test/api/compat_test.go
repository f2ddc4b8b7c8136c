package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	upstreamacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	upstream "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	certmanagerv1 "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// kinds pairs each of our kinds with cert-manager's of the same name. withoutOurs empties
// the fields that cert-manager's type does not have.
var kinds = []struct {
	name           string
	ours, upstream func() any
	withoutOurs    func(any)
}{
	{
		name:     "Certificate",
		ours:     func() any { return new(certmanagerv1.Certificate) },
		upstream: func() any { return new(upstream.Certificate) },
		withoutOurs: func(o any) {
			crt := o.(*certmanagerv1.Certificate)
			crt.Spec.DeletionPolicy, crt.Spec.ACMEProfile, crt.Spec.RehearsalIssuerRef, crt.Spec.Revocation = "", "", nil, nil
			crt.Status.Revocable, crt.Status.KeystoreDigest, crt.Status.ObservedGeneration = nil, "", 0
			if crt.Status.ACME != nil && crt.Status.ACME.ARI != nil {
				crt.Status.ACME.ARI.Account, crt.Status.ACME.ARI.AtOnce = "", nil
			}
		},
	},
	{
		name:        "CertificateRequest",
		ours:        func() any { return new(certmanagerv1.CertificateRequest) },
		upstream:    func() any { return new(upstream.CertificateRequest) },
		withoutOurs: func(any) {},
	},
	{
		name:     "Issuer",
		ours:     func() any { return new(certmanagerv1.Issuer) },
		upstream: func() any { return new(upstream.Issuer) },
		withoutOurs: func(o any) {
			issuer := o.(*certmanagerv1.Issuer)
			issuerWithoutOurs(&issuer.Spec, &issuer.Status)
		},
	},
	{
		name:     "ClusterIssuer",
		ours:     func() any { return new(certmanagerv1.ClusterIssuer) },
		upstream: func() any { return new(upstream.ClusterIssuer) },
		withoutOurs: func(o any) {
			issuer := o.(*certmanagerv1.ClusterIssuer)
			issuerWithoutOurs(&issuer.Spec, &issuer.Status)
		},
	},
	{
		name:     "Order",
		ours:     func() any { return new(acmev1.Order) },
		upstream: func() any { return new(upstreamacme.Order) },
		withoutOurs: func(o any) {
			order := o.(*acmev1.Order)
			order.Status.UnreachableSince, order.Status.PausedUntil = nil, nil
			for _, z := range order.Status.Authorizations {
				for i := range z.Challenges {
					z.Challenges[i].IssuerDomainNames = nil
				}
			}
		},
	},
	{
		name:     "Challenge",
		ours:     func() any { return new(acmev1.Challenge) },
		upstream: func() any { return new(upstreamacme.Challenge) },
		withoutOurs: func(o any) {
			ch := o.(*acmev1.Challenge)
			solverWithoutOurs(&ch.Spec.Solver)
			ch.Spec.KeyAuthorization, ch.Spec.RecordName, ch.Status.UnreachableSince, ch.Status.EffectiveName = "", "", nil, ""
		},
	},
}

func issuerWithoutOurs(spec *certmanagerv1.IssuerSpec, status *certmanagerv1.IssuerStatus) {
	status.CA, status.ObservedGeneration = nil, 0
	if status.ACME != nil {
		status.ACME.Server = ""
	}
	if spec.ACME == nil {
		return
	}
	spec.ACME.RenewalInformationSource, spec.ACME.IncludeCA = "", ""
	spec.ACME.PrivateKeyAlgorithm, spec.ACME.RateLimits = "", nil
	for i := range spec.ACME.Solvers {
		solverWithoutOurs(&spec.ACME.Solvers[i])
	}
}

func solverWithoutOurs(solver *acmev1.ACMEChallengeSolver) {
	solver.TLSALPN01, solver.WaitForRecordToPropagate = nil, nil
	if solver.DNS01 != nil {
		solver.DNS01.Nameservers, solver.DNS01.Provider = nil, nil
		solver.DNS01.ChallengeType, solver.DNS01.PersistUntil = "", nil
	}
	if solver.HTTP01 != nil {
		solver.HTTP01.SolverMode = ""
	}
}

// fieldsNotInUpstream lists what our schemas have and those of the release of cert-manager that
// this module compares with have not. spec.….renewalInformationSource and nameservers are in
// cert-manager's main branch.
var fieldsNotInUpstream = map[string][]string{
	"issuers.cert-manager.io":        issuerFieldsNotInUpstream,
	"clusterissuers.cert-manager.io": issuerFieldsNotInUpstream,
	"challenges.acme.cert-manager.io": {
		"spec.keyAuthorization", "spec.recordName", "spec.solver.dns01.challengeType", "spec.solver.dns01.nameservers",
		"spec.solver.dns01.persistUntil", "spec.solver.dns01.provider", "spec.solver.http01.solverMode",
		"spec.solver.tlsALPN01", "spec.solver.waitForRecordToPropagate", "status.effectiveName", "status.unreachableSince"},
	"orders.acme.cert-manager.io": {
		"status.authorizations[].challenges[].issuerDomainNames", "status.pausedUntil", "status.unreachableSince"},
	"certificates.cert-manager.io": {
		"spec.acmeProfile", "spec.deletionPolicy", "spec.rehearsalIssuerRef", "spec.revocation", "status.acme.ari.account",
		"status.acme.ari.atOnce", "status.keystoreDigest", "status.observedGeneration", "status.revocable"},
	"certificaterequests.cert-manager.io": nil,
}

var issuerFieldsNotInUpstream = []string{
	"spec.acme.includeCA",
	"spec.acme.privateKeyAlgorithm",
	"spec.acme.rateLimits",
	"spec.acme.renewalInformationSource",
	"spec.acme.solvers[].dns01.challengeType",
	"spec.acme.solvers[].dns01.nameservers",
	"spec.acme.solvers[].dns01.persistUntil",
	"spec.acme.solvers[].dns01.provider",
	"spec.acme.solvers[].http01.solverMode",
	"spec.acme.solvers[].tlsALPN01",
	"spec.acme.solvers[].waitForRecordToPropagate",
	"status.acme.server", "status.ca", "status.observedGeneration",
}

// valuesNotInUpstream are values of fields that cert-manager does not know, by path.
var valuesNotInUpstream = map[string][]string{"spec.type": {`"TLS-ALPN-01"`}}

const roundTrips = 1000

func TestObjectsOfCertManagerSurviveOurTypes(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fill := filler(1)
			for i := range roundTrips {
				object := kind.upstream()
				fill.Fill(object)
				roundTrip(t, i, object, kind.ours(), kind.upstream())
			}
		})
	}
}

func TestOurObjectsSurviveCertManagersTypes(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fill := filler(2)
			for i := range roundTrips {
				object := kind.ours()
				fill.Fill(object)
				kind.withoutOurs(object)
				roundTrip(t, i, object, kind.upstream(), kind.ours())
			}
		})
	}
}

// roundTrip marshals from, reads that into to, marshals it again, and expects the same JSON. Then
// it reads that into again, a value of from's type, and expects the same object as from.
func roundTrip(t *testing.T, i int, from, to, again any) {
	t.Helper()
	first := marshal(t, from)
	unmarshalStrict(t, first, to)
	second := marshal(t, to)
	if diff := cmp.Diff(generic(t, first), generic(t, second)); diff != "" {
		t.Fatalf("object %d is not the same JSON after %T (-before +after):\n%s", i, to, diff)
	}
	unmarshalStrict(t, second, again)
	if third := marshal(t, again); !bytes.Equal(first, third) {
		t.Fatalf("object %d is not the same after %T and back:\n%s\n%s", i, to, first, third)
	}
}

func marshal(t *testing.T, object any) []byte {
	t.Helper()
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatalf("marshal %T: %v", object, err)
	}
	return b
}

func unmarshalStrict(t *testing.T, b []byte, object any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(object); err != nil {
		t.Fatalf("unmarshal into %T: %v\n%s", object, err, b)
	}
}

func generic(t *testing.T, b []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	var out any
	if err := decoder.Decode(&out); err != nil {
		t.Fatalf("unmarshal: %v\n%s", err, b)
	}
	return out
}

// filler fills objects with random values that JSON can carry.
func filler(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(0.3).NumElements(1, 3).MaxDepth(30).Funcs(
		func(o *metav1.Time, c randfill.Continue) {
			*o = metav1.NewTime(time.Unix(c.Int63n(4e9), 0).UTC())
		},
		func(o *metav1.Duration, c randfill.Continue) {
			o.Duration = time.Duration(c.Int63())
		},
		func(o *metav1.FieldsV1, c randfill.Continue) {
			o.SetRawBytes([]byte(`{"f:spec":{}}`))
		},
		func(o *apiextensionsv1.JSON, c randfill.Continue) {
			o.Raw = fmt.Appendf(nil, `{"key":%d}`, c.Intn(100))
		},
		func(o *resource.Quantity, c randfill.Continue) {
			*o = *resource.NewMilliQuantity(c.Int63n(1e9), resource.DecimalSI)
			_ = o.String() // fills the cached form, as reading it from JSON does
		},
		func(o *string, c randfill.Continue) {
			*o = randomString(c.Rand)
		},
	)
}

// randomString returns a short string that is sometimes empty and sometimes not ASCII.
func randomString(r *rand.Rand) string {
	alphabet := []rune("abcXYZ019-./:*@ \"<ä€")
	out := make([]rune, r.Intn(8))
	for i := range out {
		out[i] = alphabet[r.Intn(len(alphabet))]
	}
	return string(out)
}

func TestEveryFieldIsFilled(t *testing.T) {
	// The two tests above prove nothing of a field that the filler never sets.
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fill := filler(3)
			seen := map[string]bool{}
			for range roundTrips {
				object := kind.upstream()
				fill.Fill(object)
				paths(generic(t, marshal(t, object)), "", seen)
			}
			crd := upstreamCRDs(t)[crdName(kind.name)]
			for _, path := range schemaPaths(schemaOf(t, crd)) {
				if !seen[path] && !strings.HasPrefix(path, "metadata") && !seen[path+"[]"] {
					t.Errorf("no object had %s", path)
				}
			}
		})
	}
}

// paths adds the path of every value in v to out, with [] for the elements of lists.
func paths(v any, path string, out map[string]bool) {
	if path != "" {
		out[path] = true
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			paths(value, join(path, key), out)
		}
	case []any:
		for _, value := range v {
			paths(value, path+"[]", out)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func TestGroupsAndVersionsAreThoseOfCertManager(t *testing.T) {
	if got, want := certmanagerv1.GroupVersion, upstream.SchemeGroupVersion; got != want {
		t.Errorf("certmanager: %s, cert-manager's %s", got, want)
	}
	if got, want := acmev1.GroupVersion, upstreamacme.SchemeGroupVersion; got != want {
		t.Errorf("acme: %s, cert-manager's %s", got, want)
	}
	if got, want := fmt.Sprint(certmanagerv1.DefaultKeyUsages()), fmt.Sprint(upstream.DefaultKeyUsages()); got != want {
		t.Errorf("default usages: %s, cert-manager's %s", got, want)
	}
}

// TestIdentifiersAreThoseOfCertManager compares the sources of both APIs, so that code for
// cert-manager's types compiles with ours: types, fields with their JSON names, constants with
// their values, functions.
func TestIdentifiersAreThoseOfCertManager(t *testing.T) {
	different := map[string]bool{
		"const MinimumCertificateDuration": true, // ours is shorter
	}
	for _, pkg := range []string{"meta/v1", "certmanager/v1", "acme/v1"} {
		t.Run(pkg, func(t *testing.T) {
			theirs := identifiers(t, filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "pkg", "apis", pkg))
			ours := identifiers(t, filepath.Join(moduleDir(t, "github.com/perennial-pki/perennial"), "api", pkg))
			for name, value := range theirs {
				// The group meta has no kinds to register.
				if pkg == "meta/v1" && strings.HasPrefix(name, "var ") || name == "func Resource" && pkg == "meta/v1" {
					continue
				}
				name = strings.Replace(name, "var RotationPolicy", "const RotationPolicy", 1)
				our, ok := ours[name]
				switch {
				case !ok:
					t.Errorf("%s is missing", name)
				case our != value && !different[name]:
					t.Errorf("%s is %s, cert-manager's %s", name, our, value)
				}
			}
		})
	}
}

// identifiers returns the exported identifiers of the package in dir, each with what must be equal
// of it: the JSON tag of a field, the value of a string constant.
func identifiers(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	out := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(filepath.Base(file), "zz_") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				addFunction(out, decl)
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					addSpec(out, decl.Tok, spec)
				}
			}
		}
	}
	return out
}

// addFunction adds an exported function, or a method of a pointer.
func addFunction(out map[string]string, decl *ast.FuncDecl) {
	name := "func "
	if decl.Recv != nil {
		star, ok := decl.Recv.List[0].Type.(*ast.StarExpr)
		if !ok {
			return
		}
		name += star.X.(*ast.Ident).Name + "."
	}
	if decl.Name.IsExported() {
		out[name+decl.Name.Name] = ""
	}
}

// addSpec adds a type with its fields and their tags, or constants and variables with their values.
func addSpec(out map[string]string, tok token.Token, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		out["type "+spec.Name.Name] = ""
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return
		}
		for _, field := range structure.Fields.List {
			for _, name := range field.Names {
				out["field "+spec.Name.Name+"."+name.Name] = field.Tag.Value
			}
		}
	case *ast.ValueSpec:
		for i, name := range spec.Names {
			if name.IsExported() {
				out[tok.String()+" "+name.Name] = valueOf(spec, i)
			}
		}
	}
}

// valueOf returns the i-th value of a declaration if it is a literal.
func valueOf(spec *ast.ValueSpec, i int) string {
	if i >= len(spec.Values) {
		return ""
	}
	literal, ok := spec.Values[i].(*ast.BasicLit)
	if !ok {
		return ""
	}
	return literal.Value
}

// moduleDir returns where the sources of a module are.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Stderr = os.Stderr
	dir, err := cmd.Output()
	if err != nil {
		t.Fatalf("find the sources of %s: %v", module, err)
	}
	return strings.TrimSpace(string(dir))
}
