package lifecycle

import "strings"

// The message of the condition Issuing says why the certificate is issued, and after the separator
// what the issuance waits for. Only texts are made from the parts; decisions go by reasons.
const waitingFor = "Waiting: "

// waitMessage is a message with what the issuance waits for, which replaces what it had before.
func waitMessage(message, wait string) string {
	return strings.TrimSuffix(CauseOf(message), ".") + ". " + waitingFor + wait
}

// CauseOf returns the part of a message that says why the certificate is issued.
func CauseOf(message string) string {
	cause, _, _ := strings.Cut(message, ". "+waitingFor)
	return cause
}

// WaitOf returns the part of a message that says what the issuance waits for, empty if there is
// none.
func WaitOf(message string) string {
	_, wait, _ := strings.Cut(message, ". "+waitingFor)
	return wait
}
