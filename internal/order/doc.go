// Package order brings ACME Orders to their certificates. A pass reads the state at the server
// before it sends a request, so that an interrupted pass is simply repeated. Requests follow from
// the objects alone, so that a repeated request is the same.
//
// An Order creates a Challenge for each pending authorization; package challenge brings those to
// their end. Nothing waits in a worker: each pass makes a few exchanges, each with a deadline, and
// schedules the next one.
package order
