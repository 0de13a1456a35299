package memory

// reasons are texts of which many entries have the same few. The zero value is ready; number 0 is "".
type reasons struct {
	numbers map[string]uint32
	all     []reason // from number 1 on
	free    []uint32
}

type reason struct {
	text string
	uses int
}

// take gives the number of a text, for one use more.
func (r *reasons) take(text string) uint32 {
	if text == "" {
		return 0
	}
	n, ok := r.numbers[text]
	if !ok {
		n = r.new(text)
	}
	r.all[n-1].uses++
	return n
}

func (r *reasons) new(text string) (n uint32) {
	if r.numbers == nil {
		r.numbers = map[string]uint32{}
	}
	if last := len(r.free) - 1; last >= 0 {
		n = r.free[last]
		r.free = r.free[:last]
	} else {
		r.all = append(r.all, reason{})
		n = uint32(len(r.all))
	}
	r.all[n-1].text = text
	r.numbers[text] = n
	return n
}

// drop ends a use.
func (r *reasons) drop(n uint32) {
	if n == 0 {
		return
	}
	if why := &r.all[n-1]; why.uses == 1 {
		delete(r.numbers, why.text)
		*why = reason{}
		r.free = append(r.free, n)
	} else {
		why.uses--
	}
}

func (r *reasons) text(n uint32) string {
	if n == 0 {
		return ""
	}
	return r.all[n-1].text
}
