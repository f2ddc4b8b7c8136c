package pki

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// encoding/pem skips blocks that it cannot parse: of three certificates, the second damaged, it
// returns two and no error. Here each line that begins or ends a block belongs to a valid block, or
// causes an error that names the line.

var errNoPEM = errors.New("no PEM block found")

var (
	beginMark = []byte("-----BEGIN ")
	endMark   = []byte("-----END ")
	dashes    = []byte("-----")
	byteOrder = []byte("\xef\xbb\xbf") // that some editors write before UTF-8
)

// SplitPEM returns all PEM blocks in data, at least one, without the text between them. Of data,
// errors contain only labels of blocks.
func SplitPEM(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for r := newPEMReader(data); ; {
		block, err := r.next()
		switch {
		case err != nil:
			return nil, err
		case block == nil && blocks == nil:
			return nil, notPEM(data)
		case block == nil:
			return blocks, nil
		}
		blocks = append(blocks, block)
	}
}

// PEMForAll returns data, which must be valid PEM blocks, in a form that all clients can read: it
// adds missing line breaks between blocks, which SplitPEM does not need.
func PEMForAll(data []byte) []byte {
	return bytes.ReplaceAll(data, append(bytes.Clone(dashes), beginMark...), append(append(bytes.Clone(dashes), '\n'),
		beginMark...))
}

// firstPEM returns the first block in data and its part of data. It ignores the rest.
func firstPEM(data []byte) (block *pem.Block, size int, err error) {
	r := newPEMReader(data)
	block, err = r.next()
	if err == nil && block == nil {
		err = notPEM(data)
	}
	return block, len(data) - len(r.rest), err
}

// pemReader reads one block after the other.
type pemReader struct {
	rest  []byte
	line  int // of the line that was read last
	block int // of the block that was read last
	begin int // the line in which it begins
}

func newPEMReader(data []byte) *pemReader { return &pemReader{rest: data} }

func (r *pemReader) errorf(format string, args ...any) error {
	return fmt.Errorf("PEM block %d (line %d): %w", r.block, r.begin, fmt.Errorf(format, args...))
}

// readLine returns the next line without trailing blanks.
func (r *pemReader) readLine() []byte {
	line, rest, _ := bytes.Cut(r.rest, []byte("\n"))
	r.rest = rest
	r.line++
	return bytes.TrimRight(line, " \t\r")
}

// next returns the next block, or nil at the end.
func (r *pemReader) next() (*pem.Block, error) {
	for len(r.rest) > 0 {
		start := r.rest
		line := r.readLine()
		if !likeMark(line) {
			continue
		}
		r.block, r.begin = r.block+1, r.line
		switch {
		case bytes.HasPrefix(line, endMark):
			return nil, r.errorf("it ends, but does not begin: its BEGIN line is missing or spoiled")
		case !bytes.HasPrefix(line, beginMark):
			return nil, r.errorf("its first line does not begin with \"-----BEGIN \": %w", spoiledMark(line))
		}
		return r.body(start, line)
	}
	return nil, nil
}

// body reads a block that begins with the line first, at start.
func (r *pemReader) body(start, first []byte) (*pem.Block, error) {
	label, ok := bytes.CutSuffix(first[len(beginMark):], dashes)
	switch {
	case bytes.Contains(first, []byte(`\n`)):
		return nil, r.errorf("it has the two characters \\n instead of line breaks: write line breaks")
	case bytes.Contains(first, endMark):
		return nil, r.errorf("its line breaks are missing: its first and last lines must be lines of their own")
	case !ok || bytes.Contains(label, dashes):
		return nil, r.errorf("its first line does not end with \"-----\"")
	}
	for len(r.rest) > 0 {
		at := len(start) - len(r.rest)
		line := r.readLine()
		if !likeMark(line) {
			continue
		}
		if !bytes.HasPrefix(line, endMark) {
			r.rest, r.line = start[at:], r.line-1 // another block begins
			break
		}
		end, rest, found := bytes.Cut(line[len(endMark):], dashes)
		switch {
		case !found:
			return nil, r.errorf("its last line, %d, does not end with \"-----\"", r.line)
		case !bytes.Equal(end, label):
			return nil, r.errorf("it begins as %s, but ends, in line %d, as %s", quoteLabel(string(label)), r.line,
				quoteLabel(string(end)))
		case bytes.HasPrefix(rest, beginMark):
			// The line break between two blocks is missing.
			r.rest = start[at+len(endMark)+len(end)+len(dashes):]
			r.line--
		case len(rest) > 0:
			return nil, r.errorf("there is text after its last line, %d", r.line)
		}
		text := start[:at+len(endMark)+len(end)+len(dashes)]
		block, _ := pem.Decode(append(bytes.Clone(text), '\n'))
		if block == nil {
			return nil, r.errorf("%w", r.spoiled(text))
		}
		return block, nil
	}
	return nil, r.errorf("it has no line \"-----END %.40s-----\" of its own: it is cut off, or its end is spoiled", label)
}

// spoiled returns an error that names the line of a block that is not base64.
func (r *pemReader) spoiled(text []byte) error {
	line := r.begin
	for l := range bytes.Lines(text) {
		if l = bytes.TrimSpace(l); !bytes.HasPrefix(l, dashes) && bytes.ContainsFunc(l, notBase64) {
			return fmt.Errorf("it cannot be read: line %d has characters that are not base64", line)
		}
		line++
	}
	return errors.New("it cannot be read: its base64 is not complete")
}

func notBase64(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' ||
		c == ' ' || c == '\t')
}

// likeMark reports whether a line begins or ends a block, or looks like such a line.
func likeMark(line []byte) bool {
	line = bytes.TrimLeft(bytes.TrimPrefix(line, byteOrder), " \t\r")
	bare := bytes.TrimLeft(line, "-")
	if len(bare) == len(line) {
		return false
	}
	bare = bytes.TrimLeft(bare, " ")
	return bytes.HasPrefix(bare, []byte("BEGIN ")) || bytes.HasPrefix(bare, []byte("END "))
}

// spoiledMark says what is wrong with a line that looks like the begin of a block.
func spoiledMark(line []byte) error {
	switch {
	case bytes.HasPrefix(line, byteOrder):
		return errors.New("a byte order mark stands before it: save it as UTF-8 without one")
	case line[0] != '-':
		return errors.New("it is indented: remove what is blank before it")
	}
	return errors.New("it must have five dashes, and no blank after them")
}

// notPEM says what data without a PEM block looks like, and how to fix it.
func notPEM(data []byte) error {
	text := bytes.TrimSpace(data)
	what := ""
	switch {
	case len(text) == 0:
		what = "it is empty"
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		what = "it is UTF-16: save it as UTF-8 or ASCII"
	case bytes.Contains(text, beginMark):
		what = "\"-----BEGIN \" does not stand at the beginning of a line"
	case data[0] == 0x30:
		what = likeDER(data)
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		what = "it is a Java keystore: export what is needed of it with keytool -exportcert -rfc, or openssl pkcs12"
	default:
		what = likeBase64(text)
	}
	if what == "" {
		return errNoPEM
	}
	return fmt.Errorf("%w: %s", errNoPEM, what)
}

// likeDER names the kind of a structure in DER, which is binary.
func likeDER(data []byte) string {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(data, &outer); err != nil {
		return ""
	}
	var first asn1.RawValue
	_, err := asn1.Unmarshal(outer.Bytes, &first)
	switch {
	case err == nil && first.Tag == asn1.TagInteger && bytes.Equal(first.Bytes, []byte{3}):
		return "it is PKCS #12: convert it with openssl pkcs12 -in FILE -nodes"
	case err == nil && first.Tag == asn1.TagInteger:
		return "it is a private key in DER: convert it with openssl pkey -inform DER -in FILE"
	case err == nil && first.Tag == asn1.TagOID:
		return "it is PKCS #7 in DER: convert it with openssl pkcs7 -inform DER -in FILE -print_certs"
	}
	return "it is DER: convert it to PEM, a certificate with openssl x509 -inform DER -in FILE"
}

// likeBase64 says what text decodes to, if it is base64.
func likeBase64(text []byte) string {
	if bytes.ContainsFunc(text, func(c rune) bool { return c != '\n' && c != '\r' && notBase64(c) }) {
		return ""
	}
	bare := bytes.Join(bytes.Fields(text), nil)
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(bare)))
	n, err := base64.StdEncoding.Decode(decoded, bare)
	decoded = decoded[:n]
	switch {
	case err != nil || n == 0:
		return ""
	case bytes.Contains(decoded, beginMark):
		return "it is PEM in base64, so that it was encoded twice: encode it once in data, or write the PEM itself into " +
			"stringData"
	case decoded[0] == 0x30:
		return "it is base64 without its lines \"-----BEGIN ...-----\" and \"-----END ...-----\": add them"
	case likeBase64Text(decoded):
		return "it is base64 of base64: encode the PEM once"
	}
	return ""
}

// likeBase64Text reports whether data is base64 of PEM or DER.
func likeBase64Text(data []byte) bool {
	return bytes.HasPrefix(data, []byte("LS0tLS1CRUdJTi")) || bytes.HasPrefix(data, []byte("MII"))
}
