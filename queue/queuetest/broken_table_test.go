package queuetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// altersMail changes what is enqueued.
func altersMail(alter func(env *queue.Envelope, body []byte) []byte) func(*broken) {
	return func(b *broken) {
		b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
			text, err := io.ReadAll(body)
			if err != nil {
				return "", err
			}
			return b.Queue.Enqueue(ctx, env, bytes.NewReader(alter(&env, text)))
		}
	}
}

// altersLeases changes what leases say.
func altersLeases(alter func(l *queue.Lease)) func(*broken) {
	return func(b *broken) {
		b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
			leases, next, err := b.Queue.Lease(ctx, req)
			for i := range leases {
				alter(&leases[i])
			}
			return leases, next, err
		}
	}
}

// altersRequests changes what is asked for.
func altersRequests(alter func(req *queue.LeaseRequest)) func(*broken) {
	return func(b *broken) {
		b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
			alter(&req)
			return b.Queue.Lease(ctx, req)
		}
	}
}

// altersRooms changes the answers of the caller's Room.
func altersRooms(alter func(ask queue.Ask, room func(queue.Ask) queue.Grant) queue.Grant) func(*broken) {
	return altersRequests(func(req *queue.LeaseRequest) {
		if room := req.Room; room != nil {
			req.Room = func(ask queue.Ask) queue.Grant { return alter(ask, room) }
		}
	})
}

// altersSettlements changes what leases are settled with.
func altersSettlements(alter func(s *queue.Settlement)) func(*broken) {
	return func(b *broken) {
		b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
			alter(&s)
			return b.Queue.Settle(ctx, l, s)
		}
	}
}

// altersNext changes when Lease says that there will be more.
func altersNext(alter func() time.Time) func(*broken) {
	return func(b *broken) {
		b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
			leases, _, err := b.Queue.Lease(ctx, req)
			return leases, alter(), err
		}
	}
}

// breakages are what a backend may get wrong, each with tests that must notice.
var breakages = []breakage{
	{
		name: "cuts long bodies off", caught: []string{"a message is leased as it was enqueued"},
		breaks: altersMail(func(_ *queue.Envelope, body []byte) []byte { return body[:min(len(body), 64<<10)] }),
	},
	{
		name: "repairs line ends", caught: []string{"a message is leased as it was enqueued"},
		breaks: altersMail(func(_ *queue.Envelope, body []byte) []byte {
			return bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		}),
	},
	{
		name: "forgets REQUIRETLS", caught: []string{"what an envelope asks for is kept"},
		breaks: altersMail(func(env *queue.Envelope, body []byte) []byte { env.RequireTLS = false; return body }),
	},
	{
		name:   "forgets the priority",
		caught: []string{"what an envelope asks for is kept", "in a lane higher priority goes first", "lanes with higher priority go first"},
		breaks: altersMail(func(env *queue.Envelope, body []byte) []byte { env.Priority = 0; return body }),
	},
	{
		name: "lets priority starve others", caught: []string{"priority does not starve a lane's others"},
		breaks: altersMail(func(env *queue.Envelope, body []byte) []byte {
			env.Priority = max(env.Priority, 9*min(env.Priority, 1))
			return body
		}),
	},
	{
		name: "joins lanes", caught: []string{"a message has an entry a lane"},
		breaks: altersLeases(func(l *queue.Lease) { l.Lane = strings.ReplaceAll(l.Lane, "b.test", "a.test") }),
	},
	{
		name: "takes what cannot be delivered", caught: []string{"what cannot be delivered is refused"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				env.To = slices.DeleteFunc(slices.Clone(env.To), func(r queue.Recipient) bool { return queue.CheckAddress(r.Address) != nil })
				return b.Queue.Enqueue(ctx, env, body)
			}
		},
	},
	{
		name: "keeps the half of a message", caught: []string{"a body that fails leaves nothing"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				text, broken := io.ReadAll(body)
				id, err := b.Queue.Enqueue(ctx, env, bytes.NewReader(text))
				return id, errors.Join(broken, err)
			}
		},
	},
	{
		name: "takes any header", caught: []string{"a header section is bounded"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				id, err := b.Queue.Enqueue(ctx, env, body)
				if bad := new(queue.EnvelopeError); errors.As(err, &bad) && bad.Field == "message" {
					return b.Queue.Enqueue(ctx, env, strings.NewReader(text))
				}
				return id, err
			}
		},
	},
	{
		name: "does not count Received fields", caught: []string{"received fields are counted"},
		breaks: altersLeases(func(l *queue.Lease) { l.Hops = 0 }),
	},
	{
		name: "gives an id twice", caught: []string{"ids sort by age"},
		breaks: func(b *broken) {
			var n atomic.Int64
			var last atomic.Value
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				id, err := b.Queue.Enqueue(ctx, env, body)
				if n.Add(1)%10 == 0 && err == nil {
					return last.Load().(queue.ID), nil
				}
				last.Store(id)
				return id, err
			}
		},
	},
	{
		name: "works for who has gone", caught: []string{"a cancelled context changes nothing"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				if ctx.Err() != nil {
					ctx = context.WithoutCancel(ctx)
				}
				return b.Queue.Enqueue(ctx, env, body)
			}
		},
	},
	{
		name: "leases twice", caught: []string{"a leased entry is leased once", "many workers settle each entry once"},
		breaks: func(b *broken) {
			var before atomic.Pointer[[]queue.Lease]
			b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
				leases, next, err := b.Queue.Lease(ctx, req)
				if old := before.Swap(&leases); old != nil {
					return slices.Concat(leases, *old), next, err
				}
				return leases, next, err
			}
		},
	},
	{
		name: "leases more than it was asked for", caught: []string{"a leased entry is leased once", "lanes are served in turn"},
		breaks: altersRequests(func(req *queue.LeaseRequest) { req.Max++ }),
	},
	{
		name: "forgets that an attempt counts", caught: []string{"a lease that ends comes back and counts"},
		breaks: altersLeases(func(l *queue.Lease) { l.Attempts = 0 }),
	},
	{
		name: "never takes a lease back", caught: []string{"a lease that ends comes back and counts"},
		breaks: altersRequests(func(req *queue.LeaseRequest) { req.For = 1000 * time.Hour }),
	},
	{
		name: "takes leases back early", caught: []string{"a lease that ends comes back and counts"},
		breaks: altersRequests(func(req *queue.LeaseRequest) { req.For /= 2 }),
	},
	{
		name: "serves a lane until it is empty", caught: []string{"lanes are served in turn"},
		breaks: func(b *broken) {
			var mu sync.Mutex
			var hoard []queue.Lease
			b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
				all := req
				all.Max = 1000
				leases, next, err := b.Queue.Lease(ctx, all)
				mu.Lock()
				defer mu.Unlock()
				hoard = append(hoard, leases...)
				slices.SortStableFunc(hoard, func(a, b queue.Lease) int { return cmp.Compare(a.Lane, b.Lane) })
				n := min(req.Max, len(hoard))
				leases, hoard = hoard[:n:n], hoard[n:]
				return leases, next, err
			}
		},
	},
	{
		name: "lets a waiting lane delay the others", caught: []string{"a waiting lane delays no other"},
		breaks: func(b *broken) {
			b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
				first, _, err := b.Queue.List(ctx, queue.Filter{State: queue.Waiting}, "", 1)
				if err == nil && len(first) > 0 && first[0].Due.After(time.Now()) {
					return nil, first[0].Due, nil
				}
				return b.Queue.Lease(ctx, req)
			}
		},
	},
	{
		name: "lets a full lane delay the others", caught: []string{"a full lane delays no other"},
		breaks: func(b *broken) {
			b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
				first, _, err := b.Queue.List(ctx, queue.Filter{State: queue.Waiting}, "", 1)
				if err == nil && len(first) > 0 && req.Room != nil {
					leased, _, _ := b.Queue.List(ctx, queue.Filter{State: queue.Leased, Lane: first[0].Lane}, "", 0)
					if req.Room(queue.Ask{Lane: first[0].Lane, Leased: len(leased)}).N < 1 {
						return nil, time.Time{}, nil
					}
				}
				return b.Queue.Lease(ctx, req)
			}
		},
	},
	{
		name: "forgets what of a lane is leased", caught: []string{"a full lane is asked again"},
		breaks: altersRooms(func(ask queue.Ask, room func(queue.Ask) queue.Grant) queue.Grant {
			ask.Leased = 0
			return room(ask)
		}),
	},
	{
		name: "asks all the time whether there is room", caught: []string{"a lane is left alone until there is room"},
		breaks: altersRooms(func(ask queue.Ask, room func(queue.Ask) queue.Grant) queue.Grant {
			g := room(ask)
			g.Again = time.Time{}
			return g
		}),
	},
	{
		name: "knows no sites", caught: []string{"the lanes of a site share its room"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Site = "" }),
	},
	{
		name: "forgets what of a site is leased", caught: []string{"the lanes of a site share its room"},
		breaks: altersRooms(func(ask queue.Ask, room func(queue.Ask) queue.Grant) queue.Grant {
			ask.SiteLeased = 0
			return room(ask)
		}),
	},
	{
		name: "does not say when there will be more", caught: []string{"a waiting lane delays no other", "a lease that ends comes back and counts"},
		breaks: altersNext(func() time.Time { return time.Time{} }),
	},
	{
		name: "keeps its caller busy", caught: []string{"a waiting lane delays no other", "a lease that ends comes back and counts"},
		breaks: altersNext(time.Now),
	},
	{
		name: "tells nobody of a change", caught: []string{"changes are told"},
		breaks: func(b *broken) { b.changed = func() <-chan struct{} { return nil } },
	},
	{
		name: "tells of changes that are none", caught: []string{"changes are told"},
		breaks: func(b *broken) {
			always := make(chan struct{})
			close(always)
			b.changed = func() <-chan struct{} { return always }
		},
	},
	{
		name: "takes a settlement for another's lease", caught: []string{"a settlement after the lease's end is refused"},
		breaks: func(b *broken) {
			var newest sync.Map
			altersLeases(func(l *queue.Lease) { newest.Store(string(l.ID)+l.Lane, *l) })(b)
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				its, _ := newest.Load(string(l.ID) + l.Lane)
				return b.Queue.Settle(ctx, its.(queue.Lease), s)
			}
		},
	},
	{
		name:   "says that a lost lease was settled",
		caught: []string{"a settlement after the lease's end is refused", "delete takes a lease away", "a refused settlement enqueues no report"},
		breaks: func(b *broken) {
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				err := b.Queue.Settle(ctx, l, s)
				if errors.Is(err, queue.ErrLeaseLost) {
					return nil
				}
				return err
			}
		},
	},
	{
		name: "tries again at once", caught: []string{"settled recipients are gone, the others wait", "a waiting lane delays no other"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Next = time.Time{} }),
	},
	{
		name: "forgets who is settled", caught: []string{"settled recipients are gone, the others wait"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Done = s.Done[:len(s.Done)/2] }),
	},
	{
		name: "forgets who was warned", caught: []string{"settled recipients are gone, the others wait"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Warned = nil }),
	},
	{
		name: "loses reports", caught: []string{"reports come with the settlement"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Reports = nil }),
	},
	{
		name: "enqueues the reports of a refused settlement", caught: []string{"a refused settlement enqueues no report"},
		breaks: func(b *broken) {
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				err := b.Queue.Settle(ctx, l, s)
				if errors.Is(err, queue.ErrLeaseLost) {
					for _, r := range s.Reports {
						_, _ = b.Queue.Enqueue(ctx, r.Envelope, bytes.NewReader(r.Body))
					}
				}
				return err
			}
		},
	},
	{
		name: "settles in two steps", caught: []string{"a refused settlement enqueues no report"},
		breaks: func(b *broken) {
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				reports := s.Reports
				s.Reports = nil
				err := b.Queue.Settle(ctx, l, s)
				for i := 0; i < len(reports) && err == nil; i++ {
					_, err = b.Queue.Enqueue(ctx, reports[i].Envelope, bytes.NewReader(reports[i].Body))
				}
				return err
			}
		},
	},
	{
		name: "takes a lease that is put back for an attempt", caught: []string{"a lease that is put back is no attempt"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Attempt.Time = cmp.Or(s.Attempt.Time, time.Now()) }),
	},
	{
		name: "forgets the last attempt", caught: []string{"settled recipients are gone, the others wait"},
		breaks: altersLeases(func(l *queue.Lease) { l.Last = queue.Attempt{} }),
	},
	{
		name: "ignores a settlement's hold", caught: []string{"a settlement can hold"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Hold = "" }),
	},
	{
		name: "ignores a pause", caught: []string{"a pause keeps a lane, a wake frees it", "a pause outlives the lane's last entry"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Pause = 0 }),
	},
	{
		name: "forgets a pause with the lane", caught: []string{"a pause outlives the lane's last entry"},
		breaks: func(b *broken) {
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				if rest, _, _ := b.Queue.List(ctx, queue.Filter{Lane: l.Lane}, "", 2); len(rest) < 2 {
					s.Pause = 0
				}
				return b.Queue.Settle(ctx, l, s)
			}
		},
	},
	{
		name: "ignores a wake", caught: []string{"a wake makes due what is unreached", "a wake does so after a settlement that could not be reached"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Wake = false }),
	},
	{
		name: "wakes only the lane itself", caught: []string{"a settlement wakes other lanes"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.WakeLanes = nil }),
	},
	{
		name: "wakes what waits for its own reasons", caught: []string{"a wake makes due what is unreached"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Unreached = true }),
	},
	{
		name: "does not know who waits for the destination", caught: []string{"a wake makes due what is unreached"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Unreached = false }),
	},
	{
		name: "drops a body that another lane needs", caught: []string{"a settled message is gone", "delete"},
		breaks: func(b *broken) {
			b.open = func(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
				if d, err := b.Queue.Show(ctx, id); err == nil && len(d.Entries) < len(d.Envelope.To) {
					return nil, queue.ErrNotFound
				}
				return b.Queue.Open(ctx, id)
			}
		},
	},
	{
		name: "keeps the bodies of what is settled", caught: []string{"a settled message is gone", "delete"},
		breaks: func(b *broken) {
			b.open = func(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
				r, err := b.Queue.Open(ctx, id)
				if errors.Is(err, queue.ErrNotFound) {
					return io.NopCloser(strings.NewReader(text)), nil
				}
				return r, err
			}
		},
	},
	{
		name: "holds nothing", caught: []string{"hold and release", "a person's decision ends being unreached"},
		breaks: func(b *broken) {
			b.hold = func(ctx context.Context, f queue.Filter, _ string) (int, error) {
				entries, _, err := b.Queue.List(ctx, f, "", 0)
				return len(entries), errors.Join(f.CheckChange(), err)
			}
		},
	},
	{
		name: "keeps the first reason of a hold", caught: []string{"hold and release", "each change is made to what each filter chooses"},
		breaks: func(b *broken) {
			b.hold = func(ctx context.Context, f queue.Filter, _ string) (int, error) {
				return b.Queue.Hold(ctx, f, "why not")
			}
		},
	},
	{
		name: "does not hold what is leased", caught: []string{"hold takes hold of a leased entry"},
		breaks: func(b *broken) {
			b.hold = func(ctx context.Context, f queue.Filter, why string) (int, error) {
				leased := f
				leased.State = queue.Leased
				entries, _, _ := b.Queue.List(ctx, leased, "", 0)
				f.State = queue.Waiting
				n, err := b.Queue.Hold(ctx, f, why)
				return n + len(entries), err
			}
		},
	},
	{
		name: "forgets a hold with the lease", caught: []string{"hold takes hold of a leased entry"},
		breaks: func(b *broken) {
			b.lease = func(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
				leased, _, err := b.Queue.List(ctx, queue.Filter{State: queue.Leased}, "", 0)
				if err != nil {
					return nil, time.Time{}, err
				}
				none := req
				none.Max = 0
				if _, _, err := b.Queue.Lease(ctx, none); err != nil {
					return nil, time.Time{}, err
				}
				for _, e := range leased {
					_, _ = b.Queue.Release(ctx, queue.Filter{ID: e.ID, Lane: e.Lane, State: queue.Held})
				}
				return b.Queue.Lease(ctx, req)
			}
		},
	},
	{
		name: "releases what it is to try again", caught: []string{"retry"},
		breaks: func(b *broken) {
			b.retry = func(ctx context.Context, f queue.Filter) (int, error) {
				_, _ = b.Queue.Release(ctx, f)
				return b.Queue.Retry(ctx, f)
			}
		},
	},
	{
		name: "retries nothing", caught: []string{"retry"},
		breaks: func(b *broken) {
			b.retry = func(ctx context.Context, f queue.Filter) (int, error) { return 1, f.CheckChange() }
		},
	},
	{
		name: "does not say why mail is to fail", caught: []string{"fail"},
		breaks: altersLeases(func(l *queue.Lease) { l.FailWhy = "" }),
	},
	{
		name: "deletes nothing that is leased", caught: []string{"delete takes a lease away"},
		breaks: func(b *broken) {
			b.remove = func(ctx context.Context, f queue.Filter) (int, error) {
				if err := f.CheckChange(); err != nil {
					return 0, err
				}
				leased := f
				leased.State = cmp.Or(f.State, queue.Leased)
				entries, _, _ := b.Queue.List(ctx, leased, "", 0)
				f.State = queue.Waiting
				n, err := b.Queue.Delete(ctx, f)
				return n + len(entries), err
			}
		},
	},
	{
		name: "changes everything without being told to", caught: []string{"a change of everything must say so"},
		breaks: func(b *broken) {
			b.remove = func(ctx context.Context, f queue.Filter) (int, error) {
				f.All = true
				return b.Queue.Delete(ctx, f)
			}
		},
	},
	{
		name: "knows no age", caught: []string{"filters"},
		breaks: func(b *broken) {
			b.list = func(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error) {
				f.OlderThan = 0
				return b.Queue.List(ctx, f, cursor, limit)
			}
		},
	},
	{
		name: "lists one page", caught: []string{"list pages", "pages of some"},
		breaks: func(b *broken) {
			b.list = func(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error) {
				entries, _, err := b.Queue.List(ctx, f, cursor, limit)
				return entries, "", err
			}
		},
	},
	{
		name: "lists an entry twice", caught: []string{"list pages", "pages of some"},
		breaks: func(b *broken) {
			before := "" // of a single caller
			b.list = func(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error) {
				from := cursor
				if cursor != "" && before != "" {
					from = before
				}
				entries, next, err := b.Queue.List(ctx, f, from, limit)
				before = cursor
				return entries, next, err
			}
		},
	},
	{
		name: "shows what is left of an envelope", caught: []string{"state survives", "show"},
		breaks: func(b *broken) {
			b.show = func(ctx context.Context, id queue.ID) (queue.Detail, error) {
				d, err := b.Queue.Show(ctx, id)
				if err == nil {
					d.Envelope.To = d.Entries[0].To
				}
				return d, err
			}
		},
		kept: true,
	},
	{
		name: "keeps a history without end", caught: []string{"the history is kept and bounded"},
		breaks: func(b *broken) {
			b.show = func(ctx context.Context, id queue.ID) (queue.Detail, error) {
				d, err := b.Queue.Show(ctx, id)
				for i := range d.Entries {
					d.Entries[i].Attempts = append(d.Entries[i].Attempts, queue.Attempt{})
				}
				return d, err
			}
		},
	},
	{
		name: "counts the octets of every lane", caught: []string{"stats", "a message to thousands is one message"},
		breaks: func(b *broken) {
			b.stats = func(ctx context.Context) (queue.Stats, error) {
				st, err := b.Queue.Stats(ctx)
				st.Bytes = int64(st.Waiting+st.Leased+st.Held) * int64(len(text))
				return st, err
			}
		},
	},
	{
		name: "forgets that it is closed", caught: []string{"a closed queue says so"},
		breaks: func(b *broken) {
			b.settle = func(ctx context.Context, l queue.Lease, s queue.Settlement) error {
				err := b.Queue.Settle(ctx, l, s)
				if errors.Is(err, queue.ErrClosed) {
					return nil
				}
				return err
			}
		},
	},
	{
		name: "keeps mail of which it said that it has it not", caught: []string{"close waits for calls under way"},
		breaks: func(b *broken) {
			var n atomic.Int64
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				id, err := b.Queue.Enqueue(ctx, env, body)
				if n.Add(1) >= 50 && err == nil {
					return "", fmt.Errorf("%w: too late", queue.ErrClosed)
				}
				return id, err
			}
		},
		kept: true,
	},
	{
		name: "keeps a sender from closing", caught: []string{"a slow sender does not keep a queue from closing"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				id, err := b.Queue.Enqueue(ctx, env, body)
				if errors.Is(err, queue.ErrClosed) {
					return "queued", nil
				}
				return id, err
			}
		},
	},
	{
		name: "keeps no notes", caught: []string{"notes are kept", "notes end by themselves", "notes are listed by key"},
		breaks: func(b *broken) { b.note = func(context.Context, ...queue.Note) error { return nil } },
	},
	{
		name: "takes any note", caught: []string{"what is no note is refused"},
		breaks: func(b *broken) {
			b.note = func(ctx context.Context, notes ...queue.Note) error {
				if err := b.Queue.Note(ctx, notes...); errors.Is(err, queue.ErrClosed) {
					return err
				}
				return nil
			}
		},
	},
	{
		name: "writes the first of several notes", caught: []string{"notes that are written at once stay together"},
		breaks: func(b *broken) {
			b.note = func(ctx context.Context, notes ...queue.Note) error { return b.Queue.Note(ctx, notes[:1]...) }
		},
	},
	{
		name: "loses notes of settlements", caught: []string{"notes come with the settlement"},
		breaks: altersSettlements(func(s *queue.Settlement) { s.Notes = nil }),
	},
	{
		name: "forgets keys",
		caught: []string{
			"a key is enqueued once", "a key is remembered while its message is there", "of those who enqueue a key at once, one does",
			"what is refused has used no key",
		},
		breaks: altersMail(func(env *queue.Envelope, body []byte) []byte { env.Key = ""; return body }),
	},
	{
		name: "takes a report for the message that has its key", caught: []string{"a report needs no key"},
		breaks: altersSettlements(func(s *queue.Settlement) {
			s.Reports = slices.DeleteFunc(s.Reports, func(r queue.Submission) bool { return r.Envelope.Key != "" })
		}),
	},
	{
		name:   "loses all when it is opened again",
		caught: []string{"mail survives", "notes survive", "keys survive", "close waits for calls under way"},
		kept:   true, folder: func(t testing.TB, _ *broken) string { return t.TempDir() },
	},
	{
		name: "loses what became of mail", caught: []string{"settlements and their reports survive", "changes by people survive", "state survives"},
		breaks: func(b *broken) {
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				id, err := b.Queue.Enqueue(ctx, env, body)
				if b.saved = b.dir + ".saved"; err == nil {
					_ = os.RemoveAll(b.saved)
					err = os.CopyFS(b.saved, os.DirFS(b.dir))
				}
				return id, err
			}
		},
		kept: true, folder: func(_ testing.TB, old *broken) string { return old.saved },
	},
	{
		name: "gives ids again", caught: []string{"ids are not given twice"},
		breaks: func(b *broken) {
			n := 0
			b.enqueue = func(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
				_, err := b.Queue.Enqueue(ctx, env, body)
				n++
				return queue.ID(fmt.Sprintf("%09d", n)), err
			}
		},
		kept: true,
	},
	{
		name: "keeps leases of a life before", caught: []string{"a lease does not survive", "what a wake made due is due after an opening"},
		breaks: func(b *broken) {
			altersLeases(func(l *queue.Lease) { b.leased = append(b.leased, *l) })(b)
		},
		kept: true, reopened: func(old, now *broken) {
			for range old.leased {
				leases, _, _ := now.Queue.Lease(context.Background(), queue.LeaseRequest{Max: 1, For: time.Hour})
				now.leased = append(now.leased, leases...)
			}
		},
	},
	{
		name: "tries all at once when it is opened again", caught: []string{"state survives", "a wake makes due what was unreached before"},
		kept: true, reopened: func(_, now *broken) { _, _ = now.Queue.Retry(context.Background(), queue.Filter{All: true}) },
	},
	{
		name: "releases what was held when it is opened again", caught: []string{"changes by people survive"},
		kept: true, reopened: func(_, now *broken) { _, _ = now.Queue.Release(context.Background(), queue.Filter{All: true}) },
	},
	{
		name: "forgets REQUIRETLS when it is opened again", caught: []string{"what an envelope asks for survives"},
		kept: true, reopened: func(_, now *broken) { altersLeases(func(l *queue.Lease) { l.Envelope.RequireTLS = false })(now) },
	},
	{
		name: "forgets who waits for the destination when it is opened again", caught: []string{"a wake makes due what was unreached before"},
		kept: true, reopened: func(_, now *broken) { altersSettlements(func(s *queue.Settlement) { s.Wake = false })(now) },
	},
}
