// Package acme is a client of the ACME protocol, RFC 8555, for programs that keep their own state.
//
// Each call is one exchange: it sends one request, and returns what the server said, with the
// Location, Retry-After and links of the reply, so that the caller can store it and continue at the
// right time. No call waits, polls or stores a resource. In addition to its own request, a call
// does up to three things: it fetches the directory if it has none, it fetches a nonce if none is
// left, and if the server refuses the nonce, it repeats the request with the nonce of the refusal,
// a limited number of times (section 6.5).
//
// A Client belongs to a directory, that is, to a CA, and is used by many accounts at once: the
// Account is an argument of each call.
//
//	client := &acme.Client{Directory: "https://acme-staging-v02.api.letsencrypt.org/directory"}
//	account, err := client.NewAccount(ctx, acme.AccountRequest{Key: key, TermsOfServiceAgreed: true})
//	names := []acme.Identifier{acme.DNS("www.example.com")}
//	order, err := client.NewOrder(ctx, account, acme.OrderRequest{Identifiers: names})
//
// Then, for each URL of order.Authorizations: Authorization, fulfil one of its challenges
// (HTTP01Path, DNS01Name and DNS01Value, TLSALPN01Certificate), AcceptChallenge, and Authorization
// again until it is valid; then Finalize, Order until that is valid, and Certificate.
//
// Replies of a server are not trusted: replies are capped in size, URLs must be https and belong to
// an origin that the directory names, redirects are refused, text is cleaned before it is shown,
// times are kept within bounds.
//
// In addition to RFC 8555 it supports TLS-ALPN-01 (RFC 8737), IP identifiers (RFC 8738), renewal
// information (RFC 9773), and the drafts of profiles, dns-account-01 and dns-persist-01.
package acme
