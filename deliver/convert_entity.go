package deliver

import (
	"bytes"
	"mime"
	"strings"
)

// An entity is a message or a part of one: a header and a body.
type entity struct {
	parent *entity
	index  int // in the order of their headers

	hasFields   bool
	hasVersion  bool   // MIME-Version
	hasType     bool   // Content-Type
	mediaType   string // in lower case, without parameters
	hasEncoding bool   // Content-Transfer-Encoding
	encoding    string // in lower case

	kind     kind
	why      string // a sealed one is
	boundary string
	filled   bool // what stands before its parts cannot stay as it is
}

// A kind is what the body of an entity is to a conversion.
type kind uint8

const (
	kindLeaf      kind = iota // content
	kindMultipart             // parts
	kindMessage               // a message
	kindFields                // fields, as in a delivery status
	kindSealed                // must stay as it is
)

// isMessage reports whether the header is one of a message, not of a part.
func (e *entity) isMessage() bool { return e.parent == nil || e.parent.kind == kindMessage }

// learn looks at a header field. Of several with one name the first counts.
func (e *entity) learn(raw []byte) {
	e.hasFields = true
	switch name, value := splitField(raw); fieldName(name) {
	case "mime-version":
		e.hasVersion = true
	case "content-transfer-encoding":
		if !e.hasEncoding {
			e.hasEncoding, e.encoding = true, strings.ToLower(bare(value))
		}
	case "content-type":
		if !e.hasType {
			e.hasType = true
			e.learnType(value)
		}
	}
}

func (e *entity) learnType(value string) {
	parts := splitParameters(value)
	e.mediaType = strings.ToLower(bare(parts[0]))
	for _, p := range parts[1:] {
		name, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(bare(name), "boundary") {
			e.boundary = bareValue(v)
			return
		}
	}
	if _, params, err := mime.ParseMediaType(value); err == nil {
		e.boundary = params["boundary"] // in pieces (RFC 2231)
	}
}

// decide says what the body is, once the header is over.
func (e *entity) decide(depth int) {
	t := e.mediaType
	if !e.hasType && e.parent != nil && e.parent.mediaType == "multipart/digest" {
		t = "message/rfc822" // RFC 2046, section 5.1.5
	}
	major, _, _ := strings.Cut(t, "/")
	switch {
	case major == "multipart":
		e.kind = kindMultipart
	case messageTypes[t] && e.isIdentity():
		e.kind = kindMessage
	case reportTypes[t] && e.isIdentity():
		e.kind = kindFields
	}
	if e.why = e.sealed(t, depth); e.why != "" {
		e.kind = kindSealed
	}
}

// messageTypes have a message as their body, and no encoding of their own (RFC 2046, section 5.2). Those of RFC 6532,
// message/global and what goes with it, are not among them: they may be encoded as a whole, and must be, for a message
// with UTF-8 in its header has no other form.
var messageTypes = map[string]bool{"message/rfc822": true, "message/news": true, "message/external-body": true}

// reportTypes have fields as their body, and no encoding either (RFC 3464, section 2.1; RFC 8098, section 3; RFC 5965,
// section 3).
var reportTypes = map[string]bool{
	"message/delivery-status": true, "message/disposition-notification": true, "message/feedback-report": true,
}

// sealedTypes must stay as they are.
var sealedTypes = map[string]string{
	"multipart/signed":          "it is signed", // RFC 1847, section 2.1
	"application/pkcs7-mime":    "it is signed or encrypted",
	"application/x-pkcs7-mime":  "it is signed or encrypted",
	"application/pgp-encrypted": "it is encrypted",
	"message/partial":           "it is a piece of a message", // RFC 2046, section 5.2.2.1
}

// sealed says why the body must stay as it is; "" is that it need not.
func (e *entity) sealed(t string, depth int) string {
	switch {
	case sealedTypes[t] != "":
		return sealedTypes[t]
	case depth >= maxDepth:
		return "it lies in too many others"
	case e.kind == kindMultipart && e.boundary == "":
		return "it is a multipart without a boundary"
	case e.kind == kindMultipart && (len(e.boundary) > maxBoundary || !isASCII(e.boundary)):
		return "it is a multipart with a bad boundary"
	case e.kind == kindLeaf && strings.HasPrefix(e.encoding, "x-"):
		return "it has an encoding of its own"
	}
	return ""
}

// isIdentity reports whether the body is not encoded. What is labelled with a word that nobody knows, "8-bit" or "utf-8" for
// instance, is not.
func (e *entity) isIdentity() bool { return e.encoding != "quoted-printable" && e.encoding != "base64" }

// splitField cuts a field at its colon. Line ends become nothing, as they mean nothing (RFC 5322, section 2.2.3). A line
// that is no field has no name.
func splitField(raw []byte) (name, value string) {
	raw = bytes.TrimRight(raw, "\r\n")
	if !isField(raw) {
		return "", unfold(raw)
	}
	before, after, _ := bytes.Cut(raw, colon)
	return string(before), unfold(after)
}

var noLineEnds = strings.NewReplacer("\r", "", "\n", "")

func unfold(value []byte) string { return noLineEnds.Replace(string(value)) }

// fieldName is the name of a field in lower case.
func fieldName(name string) string { return strings.ToLower(strings.TrimRight(name, " \t")) }
