package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// KeyID names a public key: the first 8 bytes of its SHA-256, in hexadecimal.
func KeyID(public ed25519.PublicKey) string {
	h := sha256.Sum256(public)
	return hex.EncodeToString(h[:8])
}

// Signer signs heads. A nil one leaves them as they are.
type Signer struct {
	private ed25519.PrivateKey
	id      string
}

// NewSigner signs with the key given.
func NewSigner(private ed25519.PrivateKey) *Signer {
	return &Signer{private: private, id: KeyID(private.Public().(ed25519.PublicKey))} //nolint:forcetypeassert // it is, by its documentation
}

// LoadSigner reads the private key in a file: Ed25519, PKCS #8, PEM, as GenerateKey and openssl genpkey write it. No path: nil.
func LoadSigner(path string) (*Signer, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nobody signs
	}
	block, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	private, ok := key.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("signing key %s: must be an Ed25519 private key (PKCS #8): exactly ledger keygen makes one", path), err)
	}
	return NewSigner(private), nil
}

// Public is the key that verifies.
func (s *Signer) Public() ed25519.PublicKey {
	return s.private.Public().(ed25519.PublicKey) //nolint:forcetypeassert // it is, by its documentation
}

// Sign signs the head.
func (s *Signer) Sign(h *Head) {
	if s == nil {
		return
	}
	h.Sig = ed25519.Sign(s.private, h.signed())
	h.Key = s.id
}

// Signature says whether the head was signed by one of the keys given.
func (h *Head) Signature(keys []ed25519.PublicKey) error {
	if len(h.Sig) == 0 {
		return errors.New("is not signed")
	}
	for _, k := range keys {
		if KeyID(k) != h.Key {
			continue
		}
		if ed25519.Verify(k, h.signed(), h.Sig) {
			return nil
		}
		return fmt.Errorf("is not what key %s signed", h.Key)
	}
	return fmt.Errorf("is signed by key %s, which is none of those given", h.Key)
}

// LoadPublic reads a public key: Ed25519, PKIX, PEM.
func LoadPublic(path string) (ed25519.PublicKey, error) {
	block, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(block)
	public, ok := key.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("public key %s: must be an Ed25519 public key", path), err)
	}
	return public, nil
}

// GenerateKey writes a new private key to path, for its owner only to read, and its public key to path.pub. Neither may exist yet.
func GenerateKey(path string) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	priv, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	if err := writePEM(path, "PRIVATE KEY", priv, 0o600); err != nil {
		return nil, err
	}
	return public, writePEM(path+".pub", "PUBLIC KEY", pub, 0o644)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Sync(), f.Close())
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}
