package signer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DeferredAnnotation stands on a Certificate that another controller had made before this one, and
// names differences that are no reason to issue before the next renewal, as in
// "spec.uris@3": until the revision after 3.
const DeferredAnnotation = "perennial.dev/deferred"

// Deferral is the value of DeferredAnnotation.
type Deferral struct {
	Fields   []string // of the spec
	Revision int      // the last one for which they do not count
}

func (d Deferral) String() string {
	return fmt.Sprintf("%s@%d", strings.Join(d.Fields, ","), d.Revision)
}

// DeferralOf reads the annotation. What cannot be read defers nothing.
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
