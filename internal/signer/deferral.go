package signer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DeferredAnnotation on a Certificate from another controller names differences that are no reason
// to issue before the next renewal. For example, "spec.uris@3" ignores spec.uris up to revision 3.
const DeferredAnnotation = "perennial.dev/deferred"

// Deferral is the value of DeferredAnnotation.
type Deferral struct {
	Fields   []string // of the spec
	Revision int      // the last one for which they do not count
}

func (d Deferral) String() string {
	return fmt.Sprintf("%s@%d", strings.Join(d.Fields, ","), d.Revision)
}

// DeferralOf reads the annotation. An invalid one defers nothing.
func DeferralOf(annotations map[string]string) Deferral {
	fields, revision, _ := strings.Cut(annotations[DeferredAnnotation], "@")
	n, err := strconv.Atoi(revision)
	if err != nil || len(fields) > 1<<10 {
		return Deferral{}
	}
	return Deferral{Fields: strings.Split(fields, ","), Revision: n}
}

// Now returns the differences that count at a revision.
func (d Deferral) Now(differences []string, revision int) []string {
	if revision > d.Revision {
		return differences
	}
	return slices.DeleteFunc(slices.Clone(differences),
		func(field string) bool { return slices.Contains(d.Fields, field) })
}
