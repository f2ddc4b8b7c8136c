package inject

import (
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// source is where the CA certificates for a target come from.
type source struct {
	// annotation that names it. Empty: none does.
	annotation string
	// name of the Secret or Certificate.
	name types.NamespacedName
}

// none reports whether no source is named.
func (s source) none() bool { return s.annotation == "" }

// missing is the error of a source that does not exist.
func (s source) missing() error {
	return fault.Misconfiguredf("SourceNotFound", "%s, named by annotation %s, does not exist: create it, or correct "+
		"the annotation", s, s.annotation)
}

// String names the source in messages.
func (s source) String() string {
	switch s.annotation {
	case cmapi.WantInjectAnnotation:
		return "Certificate " + s.name.String()
	case cmapi.WantInjectFromSecretAnnotation:
		return "Secret " + s.name.String()
	case cmapi.WantInjectAPIServerCAAnnotation:
		return "the API server"
	}
	return "nothing"
}

// key is the value under which a target with this source is found in the index bySource.
func (s source) key() string { return s.annotation + "=" + s.name.String() }

// sourceOf says which source the annotations of a target name. If there are several the first
// counts, in the order that cert-manager has: Secret, Certificate, API server; it is returned
// together with an error that says so.
func sourceOf(annotations map[string]string) (source, error) {
	var found source
	var others []string
	for _, annotation := range []string{
		cmapi.WantInjectFromSecretAnnotation, cmapi.WantInjectAnnotation, cmapi.WantInjectAPIServerCAAnnotation,
	} {
		value, ok := annotations[annotation]
		if !ok || annotation == cmapi.WantInjectAPIServerCAAnnotation && value == "false" {
			continue
		}
		if !found.none() {
			others = append(others, annotation)
			continue
		}
		s, err := parse(annotation, value)
		if err != nil {
			return source{}, err
		}
		found = s
	}
	if len(others) > 0 {
		return found, fault.Misconfiguredf(
			"InvalidAnnotation",
			"of several annotations %s is followed; remove it or %s",
			found.annotation,
			strings.Join(others, " and "),
		)
	}
	return found, nil
}

// parse reads the value of one annotation.
func parse(annotation, value string) (source, error) {
	if annotation == cmapi.WantInjectAPIServerCAAnnotation {
		if value != "true" {
			return source{}, fault.Misconfiguredf(
				"InvalidAnnotation",
				`annotation %s is %q: it can be "true" or "false"`,
				annotation,
				value,
			)
		}
		return source{annotation: annotation}, nil
	}
	namespace, name, _ := strings.Cut(value, "/")
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return source{}, fault.Misconfiguredf(
			"InvalidAnnotation",
			"annotation %s is %.600q: write it as namespace/name",
			annotation,
			value,
		)
	}
	return source{annotation: annotation, name: types.NamespacedName{Namespace: namespace, Name: name}}, nil
}
