package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

func TestPEMThatIsSpoiledIsNotSkipped(t *testing.T) {
	one := string(EncodeCertificatePEM(newRoot(t, "one", ecKey()).cert))
	two := string(EncodeCertificatePEM(newRoot(t, "two", ecKey()).cert))
	three := string(EncodeCertificatePEM(newRoot(t, "three", ecKey()).cert))
	lines := strings.SplitAfter(two, "\n")
	n := strings.Count(one, "\n")
	spoil := func(old, with string) string { return one + strings.Replace(two, old, with, 1) + three }
	for name, test := range map[string]struct {
		data string
		n    int    // how many certificates there are
		says string // else
	}{
		"three":                    {one + two + three, 3, ""},
		"text between":             {"one\n" + one + "# two\n" + two + "\n\n" + three + "the end", 3, ""},
		"lines that end in CR LF":  {strings.ReplaceAll(one+two, "\n", "\r\n"), 2, ""},
		"no line break between":    {strings.TrimSuffix(one, "\n") + strings.TrimSuffix(two, "\n") + three, 3, ""},
		"no line break at the end": {strings.TrimSuffix(one+two, "\n"), 2, ""},
		"a comment that speaks of a block": {
			"# put what is between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE----- here\n" + one, 1, ""},
		"letters that are no base64": {spoil(lines[2][:4], "!!!!"), 0, "PEM block 2 (line "},
		"the line is named": {
			strings.Replace(two, lines[2][:4], "!!!!", 1), 0, "line 3 has characters that are not base64"},
		"base64 that is not complete": {spoil(lines[2][:3], ""), 0, "PEM block 2"},
		"a line is lost":              {spoil(lines[2], ""), 0, "PEM block 2"},
		"cut off": {
			one + two[:len(two)/2], 0, "PEM block 2 (line " + itoa(n+1) +
				"): it has no line \"-----END CERTIFICATE-----\" of its own: it is cut off"},
		"no end before the next": {spoil("-----END CERTIFICATE-----\n", ""), 0, "PEM block 2"},
		"no beginning": {
			spoil("-----BEGIN CERTIFICATE-----\n", ""), 0, "PEM block 2 (line " + itoa(2*n-1) +
				"): it ends, but does not begin"},
		"four dashes before BEGIN": {spoil("-----BEGIN", "----BEGIN"), 0, "must have five dashes"},
		"four dashes after BEGIN": {
			spoil("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"), 0, `its first line does not end with "-----"`},
		"four dashes after END":     {spoil("END CERTIFICATE-----", "END CERTIFICATE----"), 0, `does not end with "-----"`},
		"another end":               {spoil("END CERTIFICATE", "END PRIVATE KEY"), 0, `begins as "CERTIFICATE", but ends`},
		"indented":                  {spoil("-----BEGIN", "  -----BEGIN"), 0, "it is indented"},
		"a byte order mark":         {"\xef\xbb\xbf" + one, 0, "a byte order mark stands before it"},
		"a byte order mark between": {one + "\xef\xbb\xbf" + two, 0, "PEM block 2"},
		"all in one line":           {strings.ReplaceAll(one, "\n", " "), 0, "its line breaks are missing"},
		"backslash and n":           {strings.ReplaceAll(one, "\n", `\n`), 0, "write line breaks"},
		"base64 twice":              {base64.StdEncoding.EncodeToString([]byte(one)), 0, "encoded twice"},
		"base64 three times": {
			base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(one)))), 0, "base64 of base64"},
		"base64 without its lines": {strings.Join(lines[1:len(lines)-2], ""), 0, "it is base64 without its lines"},
		"DER":                      {string(ecRootDER(t)), 0, "openssl x509 -inform DER"},
		"UTF-16":                   {string(utf16le(one)), 0, "it is UTF-16"},
		"nothing":                  {" \n", 0, "no PEM block found: it is empty"},
		"something else":           {"/etc/ssl/ca.pem", 0, "no PEM block found"},
		"certificates that are no DER": {
			one + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0, "PEM block 2"},
		"a private key among them": {
			one + string(mustKeyPEM(t)), 0, `PEM block 2 (line ` + itoa(n+1) + `): it is a "PRIVATE KEY", not a certificate`},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := DecodeBundlePEM([]byte(test.data))
			if test.says != "" {
				wantError(t, err, test.says)
				return
			}
			if err != nil || len(certs) != test.n {
				t.Errorf("%d certificates, %v", len(certs), err)
			}
			if data := PEMForAll([]byte(test.data)); !slices.EqualFunc(simply(data), certs, (*x509.Certificate).Equal) {
				t.Error("other clients read other certificates")
			}
		})
	}
	if certs := (Limits{}).ReadableCertificates([]byte(spoil("-----END CERTIFICATE-----\n", ""))); len(certs) != 2 {
		t.Errorf("%d certificates are kept of two that can be read", len(certs))
	}
}

// simply reads what encoding/pem finds.
func simply(data []byte) (certs []*x509.Certificate) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, cert)
		}
	}
	return certs
}

func itoa(n int) string { return strconv.Itoa(n) }

func ecRootDER(t *testing.T) []byte { return newRoot(t, "one", ecKey()).cert.Raw }

func mustKeyPEM(t *testing.T) []byte {
	t.Helper()
	data, err := EncodeKeyPEM(ecKey(), PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func utf16le(s string) []byte {
	data := []byte{0xff, 0xfe}
	for _, c := range utf16.Encode([]rune(s)) {
		data = append(data, byte(c), byte(c>>8))
	}
	return data
}

// FuzzSplitPEM compares SplitPEM with encoding/pem: SplitPEM returns every block that encoding/pem
// finds, or an error.
func FuzzSplitPEM(f *testing.F) {
	block := string(EncodeCertificatePEM(&x509.Certificate{Raw: []byte("any bytes")}))
	f.Add([]byte(block + block))
	f.Add([]byte(strings.TrimSpace(block) + block))
	f.Add([]byte("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA\n-----END A-----\n"))
	f.Add([]byte("-----BEGIN A-----\n-----END A-----\n"))
	f.Add([]byte("\xef\xbb\xbf-----BEGIN A-----\nAAAA\n"))
	f.Add([]byte("QUFBQQ=="))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := SplitPEM(data)
		if (err == nil) != (len(blocks) > 0) {
			t.Fatalf("%d blocks and %v", len(blocks), err)
		}
		if err != nil {
			return
		}
		var theirs []*pem.Block
		for block, rest := pem.Decode(PEMForAll(data)); block != nil; block, rest = pem.Decode(rest) {
			theirs = append(theirs, block)
		}
		same := func(a, b *pem.Block) bool { return a.Type == b.Type && bytes.Equal(a.Bytes, b.Bytes) }
		if !slices.EqualFunc(blocks, theirs, same) {
			t.Fatalf("%d blocks were read, encoding/pem finds %d", len(blocks), len(theirs))
		}
	})
}
