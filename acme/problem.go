package acme

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Types of problems, section 6.7 and the documents named.
const (
	problemPrefix = "urn:ietf:params:acme:error:"

	ProblemAccountDoesNotExist     = problemPrefix + "accountDoesNotExist"
	ProblemAlreadyReplaced         = problemPrefix + "alreadyReplaced" // RFC 9773
	ProblemAlreadyRevoked          = problemPrefix + "alreadyRevoked"
	ProblemBadCSR                  = problemPrefix + "badCSR"
	ProblemBadNonce                = problemPrefix + "badNonce"
	ProblemBadPublicKey            = problemPrefix + "badPublicKey"
	ProblemBadRevocationReason     = problemPrefix + "badRevocationReason"
	ProblemBadSignatureAlgorithm   = problemPrefix + "badSignatureAlgorithm"
	ProblemCAA                     = problemPrefix + "caa"
	ProblemCompound                = problemPrefix + "compound"
	ProblemConflict                = problemPrefix + "conflict"
	ProblemConnection              = problemPrefix + "connection"
	ProblemDNS                     = problemPrefix + "dns"
	ProblemExternalAccountRequired = problemPrefix + "externalAccountRequired"
	ProblemIncorrectResponse       = problemPrefix + "incorrectResponse"
	ProblemInvalidContact          = problemPrefix + "invalidContact"
	ProblemInvalidProfile          = problemPrefix + "invalidProfile" // draft-ietf-acme-profiles
	ProblemMalformed               = problemPrefix + "malformed"
	ProblemOrderNotReady           = problemPrefix + "orderNotReady"
	ProblemRateLimited             = problemPrefix + "rateLimited"
	ProblemRejectedIdentifier      = problemPrefix + "rejectedIdentifier"
	ProblemServerInternal          = problemPrefix + "serverInternal"
	ProblemTLS                     = problemPrefix + "tls"
	ProblemUnauthorized            = problemPrefix + "unauthorized"
	ProblemUnsupportedContact      = problemPrefix + "unsupportedContact"
	ProblemUnsupportedIdentifier   = problemPrefix + "unsupportedIdentifier"
	ProblemUserActionRequired      = problemPrefix + "userActionRequired"
)

const (
	maxDetail      = 2048
	maxSubproblems = 100
)

// Problem says why a server refused a request or why a challenge failed, section 6.7 and RFC 9457.
// Its texts have no control characters and a limited length.
type Problem struct {
	// Type is one of the constants, or a URI of the server's own, or empty if the reply was not a
	// problem document.
	Type string
	// Title and Detail are for people.
	Title, Detail string
	// Status is the HTTP status, or 0 if the problem is not that of a request.
	Status int
	// Instance is a page about this occurrence, for example for userActionRequired.
	Instance string
	// Identifier is the identifier of a subproblem.
	Identifier *Identifier
	// Subproblems give details for each identifier, section 6.7.1.
	Subproblems []Problem
	// RetryAfter is when the request may be repeated, or zero if the server did not say.
	RetryAfter time.Time
	// TermsOfService is the URL of new terms that require agreement, section 7.3.3.
	TermsOfService string
	// Action is the requested resource, as in Exchange. It is empty in the errors of challenges and
	// orders.
	Action string
}

// Error returns the requested resource and the server's message, with details for each identifier.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Action != "" {
		b.WriteString(p.Action + ": ")
	}
	b.WriteString(p.text())
	return b.String()
}

// text is the problem in one line: the identifier, the HTTP status, the full type and the detail,
// then the same for each subproblem. Users search for the status and the type.
func (p *Problem) text() string {
	detail := p.Detail
	if detail == "" {
		detail = p.Title
	}
	if detail == "" {
		detail = http.StatusText(p.Status)
	}
	text := detail
	switch {
	case p.Type != "" && p.Status != 0:
		text = fmt.Sprintf("%d %s: %s", p.Status, p.Type, detail)
	case p.Type != "":
		text = p.Type + ": " + detail
	case p.Status != 0:
		text = fmt.Sprintf("%s (HTTP status %d)", detail, p.Status)
	}
	if p.Identifier != nil {
		text = p.Identifier.Value + ": " + text
	}
	for i := range p.Subproblems {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		text += separator + p.Subproblems[i].text()
	}
	return text
}

// IsProblem reports whether err is, or wraps, a Problem of one of the types.
func IsProblem(err error, types ...string) bool {
	var p *Problem
	return errors.As(err, &p) && slices.Contains(types, p.Type)
}

// UnmarshalJSON reads a problem document. Fields of a wrong type are ignored: a failing server may
// send invalid documents.
func (p *Problem) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	*p = Problem{}
	text := func(name string, limit int) string {
		var s string
		if json.Unmarshal(fields[name], &s) != nil {
			return ""
		}
		return clean(s, limit)
	}
	p.Type, p.Title, p.Detail, p.Instance = text(
		"type",
		200,
	), text(
		"title",
		200,
	), text(
		"detail",
		maxDetail,
	), text(
		"instance",
		maxURL,
	)
	if json.Unmarshal(fields["status"], &p.Status) != nil || p.Status < 100 || p.Status > 599 {
		p.Status = 0
	}
	var id Identifier
	if len(fields["identifier"]) > 0 && json.Unmarshal(fields["identifier"], &id) == nil && id.Value != "" {
		p.Identifier = &Identifier{Type: clean(id.Type, 20), Value: clean(id.Value, 255)}
	}
	var subs []json.RawMessage
	if json.Unmarshal(fields["subproblems"], &subs) == nil {
		for _, raw := range subs[:min(len(subs), maxSubproblems)] {
			var sub Problem
			if json.Unmarshal(raw, &sub) == nil {
				sub.Subproblems = nil // section 6.7.1 defines one level
				p.Subproblems = append(p.Subproblems, sub)
			}
		}
	}
	return nil
}

// parseProblem reads the body of a reply with an error status.
func parseProblem(status int, media string, body []byte, links []Link) *Problem {
	p := &Problem{}
	if media == "application/problem+json" || media == "application/json" {
		if json.Unmarshal(body, p) != nil {
			*p = Problem{}
		}
	}
	p.Status = status
	for _, l := range links {
		if l.Rel == "terms-of-service" {
			p.TermsOfService = l.URL
		}
	}
	return p
}

// clean makes untrusted text safe to display: it removes control characters and limits the size in
// bytes.
func clean(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == unicode.ReplacementChar:
			return -1
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if cut {
		s += "…"
	}
	return s
}
