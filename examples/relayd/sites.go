package main

// How much each site gets at once and in a time.

import (
	"fmt"
	"net/http"

	"github.com/sortie-mail/sortie/deliver/shape"
)

// readShaping reads the rules of -shaping; without it the embedded ones hold.
func (o *options) readShaping() (err error) {
	if o.shapingFile == "" {
		return nil
	}
	if o.sites, err = shape.ReadFile(o.shapingFile); err != nil {
		return fmt.Errorf("the rules cannot be used: %w", err)
	}
	return nil
}

// serveSites answers GET /sites with what each site gets now and why, in order of their names, or with one: ?site=google.
func (r *relay) serveSites(w http.ResponseWriter, req *http.Request) {
	answer(w, func() (any, error) {
		if err := method(w, req, http.MethodGet); err != nil {
			return nil, err
		}
		form, err := formOf(w, req, "site", "limit")
		if err != nil {
			return nil, err
		}
		limit, err := limitOf(form.Get("limit"))
		if err != nil {
			return nil, err
		}
		found := struct {
			Sites []shape.State `json:"sites"`
			More  int           `json:"more"` // that are not shown
		}{Sites: []shape.State{}}
		for _, s := range r.runner.Sites() {
			switch {
			case form.Get("site") != "" && form.Get("site") != s.Site:
			case len(found.Sites) == limit:
				found.More++
			default:
				found.Sites = append(found.Sites, s)
			}
		}
		return found, nil
	})
}
