package pki

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tool runs a program of those that open keystores, with a password in a file.
func tool(t *testing.T, password string, data []byte, name string, args ...string) error {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string][]byte{"password": []byte(password), "store": data} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(name, args...) //nolint:gosec // of this file
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%s: %s", name, out)
	}
	return err
}

// javaOpens reports what keytool says when it reads all of a keystore, the private key too.
func javaOpens(t *testing.T, password, storeType string, data []byte) error {
	t.Helper()
	return tool(t, password, data, "keytool", "-J-Dfile.encoding=UTF-8", "-importkeystore", "-noprompt", "-srckeystore",
		"store", "-srcstoretype", storeType,
		"-srcstorepass:file", "password", "-destkeystore", "copy", "-deststoretype", "PKCS12", "-deststorepass", "changeit")
}

func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is not installed: what it opens is what is tested", program)
	}
}

func TestJavaOpensJKS(t *testing.T) {
	t.Parallel()
	needs(t, "keytool")
	parts := newStoreParts(t, ecKey())
	for _, password := range []string{"pässwörd", "日本語パスワード😀"} { // within and beyond what one UTF-16 unit holds
		t.Run(password, func(t *testing.T) {
			o := JKSOptions{Password: password, Alias: "Schlüssel"}
			store, err := EncodeJKS(o, parts.key, parts.chain, parts.cas)
			if err != nil {
				t.Fatal(err)
			}
			if err := javaOpens(t, password, "JKS", store); err != nil {
				t.Errorf("Java does not open the keystore: %v", err)
			}
			if err := CheckJKS(store, o, parts.chain[0]); err != nil {
				t.Error(err)
			}
		})
	}
	trust, err := EncodeJKSTruststore(JKSOptions{Password: "пароль"}, parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	if err := javaOpens(t, "пароль", "JKS", trust); err != nil {
		t.Errorf("Java does not open the truststore: %v", err)
	}
	var wrong *PasswordError
	if _, err := EncodeJKS(JKSOptions{Password: "\xff"}, parts.key, parts.chain, nil); !errors.As(err, &wrong) {
		t.Errorf("a password that is no text: %v", err)
	}
}

func TestOpenSSLOpensPKCS12(t *testing.T) {
	t.Parallel()
	needs(t, "openssl")
	parts := newStoreParts(t, ecKey())
	for _, profile := range []PKCS12Profile{LegacyRC2, LegacyDES, Modern2023} {
		for _, password := range []string{"changeit", "pässwörd", "日本語", "with blank  "} {
			t.Run(string(profile)+" "+password, func(t *testing.T) {
				data, err := EncodePKCS12(profile, password, parts.key, parts.chain, parts.cas)
				if err != nil {
					t.Fatal(err)
				}
				if err := tool(t, password, data, "openssl", "pkcs12", "-legacy", "-in", "store", "-passin", "file:password",
					"-nodes"); err != nil {
					t.Errorf("OpenSSL does not open it: %v", err)
				}
			})
		}
	}
	for _, password := range []string{"😀", "\xff", "a\x00b"} {
		var wrong *PasswordError
		if _, err := EncodePKCS12(Modern2023, password, parts.key, parts.chain, nil); !errors.As(err, &wrong) {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestJavaOpensPKCS12WithASCIIAlone(t *testing.T) {
	t.Parallel()
	needs(t, "keytool")
	parts := newStoreParts(t, ecKey())
	for password, opens := range map[string]bool{"with blank!~": true, "pässwörd": false} {
		data, err := EncodePKCS12(Modern2023, password, parts.key, parts.chain, parts.cas)
		if err != nil {
			t.Fatal(err)
		}
		if err := javaOpens(t, password, "PKCS12", data); (err == nil) != opens ||
			JavaTakesPKCS12Password(password) != opens {
			t.Errorf("%q: Java opens it: %v", password, err)
		}
	}
}
