package descriptor_test

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func TestEntries(t *testing.T) {
	for _, tt := range []struct {
		text string
		want descriptor.Entries
		err  string
	}{
		{text: "user=alice", want: descriptor.Entries{{Key: "user", Value: "alice"}}},
		{text: "user=alice,path=/x", want: descriptor.Entries{{Key: "user", Value: "alice"}, {Key: "path", Value: "/x"}}},
		{text: "user", want: descriptor.Entries{{Key: "user"}}},
		{text: "user=", want: descriptor.Entries{{Key: "user"}}},
		{text: "q=a=b", want: descriptor.Entries{{Key: "q", Value: "a=b"}}},
		{text: `list=a\,b,back=\\`, want: descriptor.Entries{{Key: "list", Value: "a,b"}, {Key: "back", Value: `\`}}},
		{text: `a\=b=c`, want: descriptor.Entries{{Key: "a=b", Value: "c"}}},
		{text: "", err: "entry 1"},
		{text: "a=b,", err: "entry 2"},
		{text: "a=b,=c", err: "entry 2"},
		{text: `a=\`, err: "escapes nothing"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var got descriptor.Entries
			err := got.UnmarshalText([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, error %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestEntriesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune(`ab,=\ '"`+"\n")), 1, -1, -1)
		want := descriptor.Entries(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) descriptor.Entry {
			return descriptor.Entry{Key: text.Draw(t, "key"), Value: rapid.OneOf(text, rapid.Just("")).Draw(t, "value")}
		}), 1, 4).Draw(t, "entries"))
		var got descriptor.Entries
		if err := got.UnmarshalText([]byte(want.String())); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q, error %v", want.String(), got, err)
		}
	})
}
