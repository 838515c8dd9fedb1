package reload

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// Failure is the error of the sources of one provider.
type Failure struct {
	Source config.Origin
	Err    error
}

// Failures is the error of a reload: one for each provider with bad sources, in
// the order of the providers. Never empty.
type Failures []Failure

// Error returns one line per problem.
func (f Failures) Error() string {
	lines := make([]string, len(f))
	for i, failure := range f {
		lines[i] = failure.Err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the error of each provider, for errors.Is and errors.As.
func (f Failures) Unwrap() []error {
	errs := make([]error, len(f))
	for i, failure := range f {
		errs[i] = failure.Err
	}
	return errs
}

// feed is a provider with its sources in force.
type feed struct {
	Provider
	inForce []rulefile.Source
	sum     digest // of inForce
	loaded  bool   // false: none of its sources was ever in force
	tried   digest // of the sources of the last attempt

	reading chan reading // gets the result of the read under way; nil: there is none
}

// reading is the result of a read.
type reading struct {
	sources []rulefile.Source
	err     error
}

// ErrNoAnswer is the error of a provider that takes too long to read its sources.
var ErrNoAnswer = errors.New("reading takes too long: does the disk or server answer?")

// noAnswer returns ErrNoAnswer with what is being read, if the provider tells.
func (f *feed) noAnswer() error {
	if r, tells := f.Provider.(Reader); tells && r.Reading() != "" {
		return fmt.Errorf("%s: %w", r.Reading(), ErrNoAnswer)
	}
	return ErrNoAnswer
}

// read returns the newest sources. A disk that does not answer may hold up a read for
// ever. So an attempt waits for the read that it begins for no longer than the patience,
// or than ctx. Until that read ends no other begins, and later attempts fail at once. The
// next one gets the result, which may be out of date by then: stale reports that.
func (f *feed) read(ctx context.Context, patience time.Duration) (sources []rulefile.Source, stale bool, err error) {
	if f.reading != nil {
		select {
		case r := <-f.reading:
			f.reading = nil
			return r.sources, true, r.err
		default:
			return nil, false, f.noAnswer()
		}
	}
	f.reading = make(chan reading, 1)
	go func(result chan<- reading) {
		sources, err := f.Sources(ctx)
		result <- reading{sources, err}
	}(f.reading)
	timeUp := time.NewTimer(patience)
	defer timeUp.Stop()
	select {
	case r := <-f.reading:
		f.reading = nil
		return r.sources, false, r.err
	case <-timeUp.C:
		return nil, false, f.noAnswer()
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// offer holds the newest sources of a provider in one attempt to load.
type offer struct {
	*feed
	sources []rulefile.Source
	sum     digest
	usable  bool // the sources could be read
	chosen  bool // the sources are part of the set that is tried
	err     error
}

func (o *offer) isNew() bool { return !o.loaded || o.sum != o.feed.sum }

// adopted notes that the sources are in force.
func (o *offer) adopted() { o.inForce, o.feed.sum, o.loaded = o.sources, o.sum, true }

// refused adds the reason why the sources are not in force to the provider's error.
func (o *offer) refused(why error) {
	if o.err == nil {
		o.err = why
	} else if why != nil {
		o.err = allOf(o.err, why)
	}
}

// status returns the state of the sources after an attempt, and whether it is new.
func (o *offer) status(now time.Time, before SourceStatus) (s SourceStatus, news bool) {
	s = SourceStatus{Source: before.Source, State: SourceGood, InForce: o.loaded, LastSuccess: before.LastSuccess, Failures: before.Failures}
	switch {
	case errors.Is(o.err, ErrWaiting):
		s.State = SourceWaiting
	case o.err != nil:
		s.State = SourceBad
		s.Failures++
		s.Problems, s.Omitted = problemTexts(o.err)
		_, partial := errors.AsType[*Partial](o.err)
		s.Partial = partial && o.loaded
	case o.loaded:
		s.LastSuccess = now
	}
	news = s.State != before.State || o.sum != o.tried || !slices.Equal(s.Problems, before.Problems)
	o.tried = o.sum
	return s, news
}

// failuresOf returns the errors of the offers; nil if there are none.
func failuresOf(offers []*offer) error {
	var failures Failures
	for _, o := range offers {
		if o.err != nil && !errors.Is(o.err, ErrWaiting) {
			failures = append(failures, Failure{o.Origin(), o.err})
		}
	}
	if failures == nil {
		return nil
	}
	return failures
}

// subsets returns all sets of the numbers below n as bits, the largest first, and
// of those the ones with the smallest numbers.
func subsets(n int) []uint {
	sets := make([]uint, 1<<n)
	for i := range sets {
		sets[i] = uint(i)
	}
	slices.SortStableFunc(sets, func(a, b uint) int { return cmp.Compare(bits.OnesCount(b), bits.OnesCount(a)) })
	return sets
}

// sumOfSources returns a digest of names and contents.
func sumOfSources(sources []rulefile.Source) (sum digest) {
	task := background.New()
	defer task.Close()
	h := sha256.New()
	write := func(s []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		task.Hash(h, s)
	}
	for _, s := range sources {
		write([]byte(s.Name))
		write(s.Data)
	}
	h.Sum(sum[:0])
	return sum
}

// hashOf returns a digest of all sources in force.
func hashOf(offers []*offer) string {
	h := sha256.New()
	for _, o := range offers {
		h.Write(o.feed.sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// digest is a checksum of sources.
type digest [sha256.Size]byte
