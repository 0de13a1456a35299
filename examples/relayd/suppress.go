package main

// Addresses to which nothing is sent, because a host said for good that there is nobody.

import (
	"context"
	"net/http"
	"strconv"

	"github.com/emersion/go-smtp"

	"github.com/sortie-mail/sortie/queue"
)

// suppressed refuses a recipient that is on the suppression list, with what was said of it. Where the list cannot be read, the mail
// is taken: the queue looks again.
func (f *front) suppressed(to string) *smtp.SMTPError {
	s, ok, err := queue.Suppressed(context.Background(), f.queue, to)
	if err != nil {
		f.log.Error("the suppression list cannot be read", "error", err)
	}
	if !ok || err != nil {
		return nil
	}
	return reply(550, s.Status, "<%s>: no mail is taken for this address: %s", shown(to), shownWords(s.String()))
}

// shownWords is shown for what is longer.
func shownWords(s string) string {
	const most = 3 * 200
	text := ""
	for len(s) > 200 && len(text) < most {
		text, s = text+shown(s[:200]), s[200:]
	}
	return text + shown(s)
}

// serveSuppressed answers GET /suppressed with the addresses of the list, in order, and the cursor for the rest, "" at the end.
func (r *relay) serveSuppressed(w http.ResponseWriter, req *http.Request) {
	answer(w, func() (any, error) {
		if err := method(w, req, http.MethodGet); err != nil {
			return nil, err
		}
		form, err := formOf(w, req, "address", "cursor", "limit")
		if err != nil {
			return nil, err
		}
		limit, err := limitOf(form.Get("limit"))
		if err != nil {
			return nil, err
		}
		found := struct {
			Suppressed []queue.Suppression `json:"suppressed"`
			Next       string              `json:"next"`
		}{Suppressed: []queue.Suppression{}}
		if address := form.Get("address"); address != "" {
			s, ok, err := queue.Suppressed(req.Context(), r.queue, address)
			if ok {
				found.Suppressed = append(found.Suppressed, s)
			}
			return found, err
		}
		list, next, err := queue.Suppressions(req.Context(), r.queue, form.Get("cursor"), limit)
		found.Suppressed, found.Next = append(found.Suppressed, list...), next
		return found, err
	})
}

// serveLift takes the address of POST /suppressed/lift off the list.
func (r *relay) serveLift(w http.ResponseWriter, req *http.Request) {
	answer(w, func() (any, error) {
		if err := method(w, req, http.MethodPost); err != nil {
			return nil, err
		}
		if err := mayChange(req); err != nil {
			return nil, err
		}
		form, err := formOf(w, req, "address")
		if err != nil {
			return nil, err
		}
		address, ctx := form.Get("address"), context.WithoutCancel(req.Context())
		if address == "" {
			return nil, refusef(http.StatusBadRequest, "nothing says which address is meant: write address=A")
		}
		_, ok, err := queue.Suppressed(ctx, r.queue, address)
		if !ok || err != nil {
			return map[string]int{"changed": 0}, err
		}
		if err := queue.Lift(ctx, r.queue, address); err != nil {
			return nil, err
		}
		r.log.Info("an address was taken off the suppression list from the console", "address", shown(address))
		return map[string]int{"changed": 1}, nil
	})
}

// limitOf reads how many things an answer lists.
func limitOf(text string) (int, error) {
	if text == "" {
		return fewListed, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxListed {
		return 0, refusef(http.StatusBadRequest, "limit=%s: write 1 to %d", shown(text), maxListed)
	}
	return limit, nil
}
