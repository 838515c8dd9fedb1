package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// A snapshot is a header, blocks of records, an end, and blocks of keys that have
// been forgotten since it was saved. Numbers are little-endian, and varints those of
// encoding/binary.
//
//	header  "ratelimit", a zero byte, and the version in 2 bytes; when it was saved,
//	        in microseconds since the epoch, in 8; CRC-32C of all that, in 4
//	block   length of its records in bytes and their CRC-32C, in 4 bytes each;
//	        then the records, whole
//	record  length of the key in bytes, room for the state in the record and
//	        length of the state in words, as varints; the key; the rank in 1
//	        byte; the expiry and the words of the state in 8 bytes each
//	end     a block of length 0, and the number of records in 8 bytes
//	forgotten  blocks as above, with records that are the length of the key in
//	        bytes, as a varint, and the key. They are added one by one, so a crash
//	        may cut the last one short: it is ignored then.
//
// The meaning of a state's words is up to its algorithm. A change there needs a new
// version, and so does a change of this format.
const (
	snapshotMagic   = "ratelimit\x00"
	snapshotVersion = 2
	versionEnd      = len(snapshotMagic) + 2
	savedEnd        = versionEnd + 8
	snapshotHeader  = savedEnd + 4
	blockHeader     = 8
	blockBytes      = 1 << 16 // a block ends with the record that reaches this size
	mostBlockBytes  = 1 << 26 // so a block is never longer than this
)

// The reasons to refuse a snapshot; errors of Load wrap these.
var (
	ErrSnapshotDamaged = errors.New("the snapshot is damaged or cut short")
	ErrSnapshotVersion = errors.New("another version of this program wrote the snapshot")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes a snapshot of the keys that have not expired. Requests go on
// meanwhile: each key is saved as it was at some moment during the call.
func (s *Store) Save(w io.Writer) error {
	out := snapshotWriter{w: w}
	header := binary.LittleEndian.AppendUint16([]byte(snapshotMagic), snapshotVersion)
	header = binary.LittleEndian.AppendUint64(header, uint64(s.clock()))
	header = binary.LittleEndian.AppendUint32(header, crc32.Checksum(header, castagnoli))
	if _, err := w.Write(header); err != nil {
		return err
	}
	var log algo.State
	var err error
	s.walk(func(shard *shard, r record) bool {
		var state algo.State
		if r.isElsewhere() {
			log = shard.copyState(log[:0], r)
			state = log
		} else {
			state = r.state()
		}
		if len(state) > 0 {
			err = out.add(r, state)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return out.end()
}

type snapshotWriter struct {
	w     io.Writer
	block []byte // with room for its header
	count uint64
}

func (w *snapshotWriter) add(r record, state algo.State) error {
	b := binary.AppendUvarint(w.begin(), uint64(r.keyLen()))
	b = binary.AppendUvarint(b, uint64(r.room()))
	b = binary.AppendUvarint(b, uint64(len(state)))
	b = append(b, r.key()...)
	b = append(b, byte(r.rank()))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.expiry()))
	for _, word := range state {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	w.count++
	return w.put(b)
}

// forget adds a forgotten key.
func (w *snapshotWriter) forget(key []byte) error {
	return w.put(append(binary.AppendUvarint(w.begin(), uint64(len(key))), key...))
}

// begin returns the block, to which the caller adds a record.
func (w *snapshotWriter) begin() []byte {
	if len(w.block) == 0 {
		w.block = append(w.block, make([]byte, blockHeader)...)
	}
	return w.block
}

// put takes the block back with the record added.
func (w *snapshotWriter) put(block []byte) error {
	w.block = block
	if len(block) < blockBytes {
		return nil
	}
	return w.flush()
}

func (w *snapshotWriter) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	records := w.block[blockHeader:]
	binary.LittleEndian.PutUint32(w.block, uint32(len(records)))
	binary.LittleEndian.PutUint32(w.block[4:], crc32.Checksum(records, castagnoli))
	_, err := w.w.Write(w.block)
	w.block = w.block[:0]
	return err
}

func (w *snapshotWriter) end() error {
	if err := w.flush(); err != nil {
		return err
	}
	end := make([]byte, blockHeader, blockHeader+8)
	_, err := w.w.Write(binary.LittleEndian.AppendUint64(end, w.count))
	return err
}

// Load takes over the keys of a snapshot, except those that have expired or were
// forgotten since, and returns how many it keeps. The store must not have been used:
// it is an error if it has keys. After any error the store is unchanged.
func (s *Store) Load(r io.Reader) (keys int, err error) {
	loaded, _, err := s.load(r)
	return loaded.Keys, err
}

// load is Load; end is the number of valid bytes.
func (s *Store) load(r io.Reader) (_ Loaded, end int64, err error) {
	loaded := &Store{clock: s.clock, seed: s.seed, shift: s.shift, shards: newShards(len(s.shards), s.shards[0].bounds)}
	in := snapshotReader{r: r}
	saved, err := in.header()
	if err != nil {
		return Loaded{}, 0, err
	}
	for {
		records, err := in.next()
		if err != nil {
			return Loaded{}, 0, err
		}
		if records == nil {
			break
		}
		for len(records) > 0 {
			k, rest, ok := parseRecord(records)
			if !ok {
				return Loaded{}, 0, in.damaged("a record that makes no sense")
			}
			loaded.restore(k)
			records = rest
			in.count++
		}
	}
	if err := in.end(); err != nil {
		return Loaded{}, 0, err
	}
	forgotten, end, err := in.forgotten(func(key []byte) { loaded.forget(key) })
	if err != nil {
		return Loaded{}, 0, err
	}
	if err := s.takeOver(loaded); err != nil {
		return Loaded{}, 0, err
	}
	return Loaded{Keys: loaded.Len(), Forgotten: forgotten, Saved: time.UnixMicro(saved)}, end, nil
}

type snapshotReader struct {
	r     io.Reader
	at    int64 // bytes read
	block []byte
	count uint64 // records seen
}

func (r *snapshotReader) damaged(what string) error {
	return fmt.Errorf("loading a snapshot: %w: %s before byte %d; remove it to start with unused limits", ErrSnapshotDamaged, what, r.at)
}

// read returns the next n bytes, valid until the next call.
func (r *snapshotReader) read(n int) ([]byte, error) {
	if cap(r.block) < n {
		r.block = make([]byte, n)
	}
	got, err := io.ReadFull(r.r, r.block[:n])
	r.at += int64(got)
	switch {
	case err == nil:
		return r.block[:n], nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, r.damaged("it ends")
	}
	return nil, fmt.Errorf("loading a snapshot: %w", err)
}

// header returns when the snapshot was saved.
func (r *snapshotReader) header() (saved int64, err error) {
	b, err := r.read(versionEnd)
	if err != nil {
		return 0, err
	}
	if !isSnapshot(b) {
		return 0, r.damaged("not the start of a snapshot")
	}
	if v := binary.LittleEndian.Uint16(b[len(snapshotMagic):]); v != snapshotVersion {
		return 0, fmt.Errorf("loading a snapshot: %w: its format is %d, and this version knows %d; remove it to start with unused limits", ErrSnapshotVersion, v, snapshotVersion)
	}
	sum := crc32.Checksum(b, castagnoli)
	if b, err = r.read(snapshotHeader - versionEnd); err != nil {
		return 0, err
	}
	at := savedEnd - versionEnd
	if crc32.Update(sum, castagnoli, b[:at]) != binary.LittleEndian.Uint32(b[at:]) {
		return 0, r.damaged("a header with a wrong checksum")
	}
	return int64(binary.LittleEndian.Uint64(b)), nil
}

// isSnapshot reports whether a file with this head is a snapshot, of any version.
func isSnapshot(head []byte) bool { return bytes.HasPrefix(head, []byte(snapshotMagic)) }

// forgotten calls forget for each key that was forgotten after the save. It returns
// their number, and where the last of them ends.
func (r *snapshotReader) forgotten(forget func(key []byte)) (n int, end int64, err error) {
	for {
		end = r.at
		keys, err := r.next()
		switch {
		case errors.Is(err, ErrSnapshotDamaged): // the end, or a block that a crash has cut short
			return n, end, nil
		case err != nil:
			return n, end, err
		}
		if keys == nil { // zeros
			return n, end, nil
		}
		for len(keys) > 0 {
			length, size := binary.Uvarint(keys)
			if size <= 0 || length > uint64(len(keys)-size) {
				return n, end, r.damaged("a key that makes no sense")
			}
			key := keys[size:][:length]
			forget(key)
			n++
			keys = keys[size+len(key):]
		}
	}
}

// next returns the records of the next block, nil at the end.
func (r *snapshotReader) next() ([]byte, error) {
	b, err := r.read(blockHeader)
	if err != nil {
		return nil, err
	}
	n, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	switch {
	case n == 0 && sum == 0:
		return nil, nil
	case n == 0 || n > mostBlockBytes:
		return nil, r.damaged("a block of an impossible length")
	}
	if b, err = r.read(int(n)); err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != sum {
		return nil, r.damaged("a block with a wrong checksum")
	}
	return b, nil
}

func (r *snapshotReader) end() error {
	b, err := r.read(8)
	if err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint64(b); n != r.count {
		return r.damaged(fmt.Sprintf("%d records instead of %d", r.count, n))
	}
	return nil
}

// savedKey is a record of a snapshot.
type savedKey struct {
	key    []byte
	room   int
	rank   rank
	expiry int64
	state  []byte
}

func (k savedKey) words() int { return roundWords(headWords + k.room + keyWords(len(k.key))) }

// parseRecord parses the first record. ok is false if the bytes hold no valid record.
func parseRecord(b []byte) (k savedKey, rest []byte, ok bool) {
	var lengths [3]uint64
	for i := range lengths {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > mostBlockBytes {
			return k, nil, false
		}
		lengths[i], b = n, b[size:]
	}
	keyLen, room, words := int(lengths[0]), int(lengths[1]), int(lengths[2])
	if keyLen > maxKey || room == 0 || room >= elsewhere || words == 0 || words > room && words > algo.MaxLogLimit+3 {
		return k, nil, false
	}
	if len(b) < keyLen+1+8+8*words {
		return k, nil, false
	}
	k.room = room
	k.key, b = b[:keyLen], b[keyLen:]
	k.rank, b = rank(b[0]), b[1:]
	k.expiry, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	k.state, b = b[:8*words], b[8*words:]
	return k, b, k.expiry >= 0 && k.expiry < 1<<(64-rankBits)
}

// restore keeps the key, unless it has expired. The store is not in use yet.
func (s *Store) restore(k savedKey) {
	now := s.clock()
	hash := s.hash(k.key)
	shard := s.shard(hash)
	if k.expiry <= now || shard.findIn(k.words(), hash, k.key).kept() {
		return
	}
	shard.scratch = shard.scratch[:0]
	for i := 0; i < len(k.state); i += 8 {
		shard.scratch = append(shard.scratch, binary.LittleEndian.Uint64(k.state[i:]))
	}
	shard.makeRoom(now)
	if e := shard.add(k.words(), hash, k.key); e.kept() {
		shard.layouts |= layoutsOf(len(shard.scratch))
		shard.setState(e, shard.scratch)
		e.record().mark(k.expiry, k.rank)
		shard.trim(e, hash, k.key, now)
	}
}

// layoutsOf returns the bits of shard.layouts for the layouts that a state of that
// many words may have. The limit of the state is not known.
func layoutsOf(words int) (bits uint64) {
	for _, base := range [...]int{algo.WindowWords, algo.HybridWords} {
		if n := words - base; n >= 1 && n <= algo.Layouts {
			bits |= 1 << n
		}
	}
	return bits
}

// takeOver takes over the keys of a store that is not in use.
func (s *Store) takeOver(from *Store) error {
	for i := range s.shards {
		s.shards[i].mu.Lock()
		defer s.shards[i].mu.Unlock()
		if s.shards[i].count > 0 {
			return errors.New("loading a snapshot: there are keys in the store: load before the first request")
		}
	}
	for i := range s.shards {
		to, from := &s.shards[i].shard, &from.shards[i].shard
		to.byLength, to.tables, to.logs, to.count, to.tabled = from.byLength, from.tables, from.logs, from.count, from.tabled
		to.turns, to.layouts = from.turns, from.layouts
		to.evicted += from.evicted
	}
	return nil
}
