package image

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// document is an SPDX 2.3 document, as far as it is used here.
type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []component    `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

// component is a package in the words of SPDX.
type component struct {
	Name             string        `json:"name"`
	SPDXID           string        `json:"SPDXID"`
	VersionInfo      string        `json:"versionInfo"`
	PackageFileName  string        `json:"packageFileName,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	ExternalRefs     []externalRef `json:"externalRefs"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	documentID  = "SPDXRef-DOCUMENT"
	noAssertion = "NOASSERTION"
)

// noID matches what must not be in an SPDX identifier.
var noID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// SBOM returns the SBOM of a program, an SPDX document in JSON: the program, named as the file that
// it is installed as, the modules and the version of Go that are linked into it, and what comes
// with it, by name and version.
func SBOM(s Source, p v1.Platform, file string, binary []byte, beside map[string]string) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("build information of the program: %w", err)
	}
	digest := sha256.Sum256(binary)
	main := componentOf(modulePath, s.Version)
	main.PackageFileName, main.LicenseDeclared = file, licenses
	main.Checksums = []checksum{{"SHA256", hex.EncodeToString(digest[:])}}
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID,
		Name: fmt.Sprintf("%s %s %s", path.Base(file), s.Version, p),
		// Unique to the document, and the same for each build of it.
		DocumentNamespace: fmt.Sprintf("https://%s/spdx/%s-%x", modulePath, s.Version, digest),
		CreationInfo: creationInfo{
			Created:  s.Time.UTC().Format(time.RFC3339),
			Creators: []string{"Organization: Perennial", "Tool: perennial-image"},
		},
		Packages:      []component{main},
		Relationships: []relationship{{documentID, "DESCRIBES", main.SPDXID}},
	}
	for _, m := range components(info, beside) {
		d.Packages = append(d.Packages, m)
		d.Relationships = append(d.Relationships, relationship{main.SPDXID, "CONTAINS", m.SPDXID})
	}
	return json.MarshalIndent(d, "", " ")
}

// components returns those of a program, and of what comes with it.
func components(info *debug.BuildInfo, beside map[string]string) []component {
	all := []component{
		// The name and the form of the version by which scanners find vulnerabilities of Go.
		componentOf("stdlib", strings.TrimPrefix(info.GoVersion, "go")),
	}
	for _, name := range slices.Sorted(maps.Keys(beside)) {
		all = append(all, componentOf(name, beside[name]))
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, componentOf(m.Path, m.Version))
	}
	return all
}

// componentOf returns the component of a Go module.
func componentOf(path, version string) component {
	purl := "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
	return component{
		Name: path, VersionInfo: version,
		SPDXID:           "SPDXRef-" + noID.ReplaceAllString(path+"-"+version, "-"),
		DownloadLocation: noAssertion, LicenseConcluded: noAssertion, LicenseDeclared: noAssertion,
		CopyrightText: noAssertion,
		ExternalRefs:  []externalRef{{"PACKAGE-MANAGER", "purl", purl}},
	}
}
