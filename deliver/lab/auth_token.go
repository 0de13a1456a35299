package lab

import "strings"

// What a server says of a token that it does not take, before the refusal: RFC 7628, section 3.2.2, and as Google does.
const (
	bearerRefusal  = `{"status":"invalid_token","schemes":"bearer","scope":"mail.send"}`
	xoauth2Refusal = `{"status":"400","schemes":"Bearer","scope":"https://mail.example/"}`
)

// oauthBearer is RFC 7628.
func (x *exchange) oauthBearer() (string, error) {
	text, err := x.first("")
	if err != nil {
		return "", err
	}
	user, token, err := parseBearer(text)
	if err != nil {
		return "", err
	}
	return x.token(user, token, bearerRefusal, "\x01")
}

// parseBearer reads "n,a=user,^Ahost=…^Aport=…^Aauth=Bearer token^A^A" (RFC 7628, section 3.1).
func parseBearer(text string) (user, token string, err error) {
	header, pairs, found := strings.Cut(text, ",\x01")
	user, named := strings.CutPrefix(header, "n,a=")
	if !found || !named || user == "" || strings.Contains(user, ",") || !strings.HasSuffix(pairs, "\x01\x01") {
		return "", "", errMalformed
	}
	for _, pair := range strings.Split(strings.TrimSuffix(pairs, "\x01\x01"), "\x01") {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "auth":
			token, err = bearer(value)
		case "host", "port":
			if value == "" {
				err = errMalformed
			}
		default:
			err = errMalformed
		}
		if err != nil {
			return "", "", err
		}
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user), token, nil
}

// xoauth2 is what Google and Microsoft had before RFC 7628: "user=…^Aauth=Bearer token^A^A".
func (x *exchange) xoauth2() (string, error) {
	text, err := x.first("")
	if err != nil {
		return "", err
	}
	f := strings.Split(text, "\x01")
	if len(f) != 4 || !strings.HasPrefix(f[0], "user=") || !strings.HasPrefix(f[1], "auth=") || f[2]+f[3] != "" {
		return "", errMalformed
	}
	token, err := bearer(f[1][len("auth="):])
	if err != nil {
		return "", err
	}
	return x.token(f[0][len("user="):], token, xoauth2Refusal, "")
}

func bearer(credentials string) (string, error) {
	scheme, token, _ := strings.Cut(credentials, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errMalformed
	}
	return token, nil
}

// token verifies a token. A refusal is explained in a challenge, to which the client has nothing to say but dummy.
func (x *exchange) token(user, token, refusal, dummy string) (string, error) {
	user, err := verify(x.s.offer.Tokens, user, token)
	if err == nil {
		return user, nil
	}
	answer, failed := x.ask(refusal)
	switch {
	case failed != nil:
		return "", failed
	case answer != dummy:
		return "", errMalformed
	}
	return "", err
}
