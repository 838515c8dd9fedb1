package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/freeport"
)

// MasterName is what the sentinels of [StartSentinels] call the master.
const MasterName = "main"

// Sentinels is a master with two replicas, watched by three sentinels.
type Sentinels struct {
	Servers   []*Server // the master first, as started
	Sentinels []*Server
}

// StartSentinels starts servers and sentinels, and waits until they know each other.
// All of them use the password, if it is not empty.
func StartSentinels(t testing.TB, password string) *Sentinels {
	t.Helper()
	s := &Sentinels{}
	master := Start(t, Config{Password: password})
	s.Servers = append(s.Servers, master)
	for range 2 {
		s.Servers = append(s.Servers, Start(t, Config{Password: password, Args: []string{
			"--replicaof", "127.0.0.1", strconv.Itoa(master.conf.port), "--repl-diskless-sync-delay", "0",
		}}))
	}
	for _, replica := range s.Servers[1:] {
		Eventually(t, "a replica is in step", func() bool { return replica.Info("master_link_status") == "up" })
	}
	for range 3 {
		s.Sentinels = append(s.Sentinels, startSentinel(t, master.conf.port, password))
	}
	for _, sentinel := range s.Sentinels {
		Eventually(t, "a sentinel knows the others and the replicas", func() bool {
			status := sentinel.Info("master0")
			return strings.Contains(status, "slaves=2") && strings.Contains(status, "sentinels=3")
		})
	}
	return s
}

func startSentinel(t testing.TB, masterPort int, password string) *Server {
	t.Helper()
	dir := t.TempDir()
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", MasterName, masterPort),
		fmt.Sprintf("sentinel down-after-milliseconds %s 500", MasterName),
		fmt.Sprintf("sentinel failover-timeout %s 3000", MasterName),
	}
	if password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", MasterName, password), "sentinel sentinel-pass "+password)
	}
	path := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Start(t, Config{Dir: dir, Password: password, sentinel: path})
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinels) Addrs() []string { return addrs(s.Sentinels) }

// Master returns the server that the sentinels consider the master.
func (s *Sentinels) Master() *Server {
	found := s.Sentinels[0].Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName)
	at, err := found.AsStrSlice()
	if err != nil {
		s.Sentinels[0].t.Fatal(err)
	}
	for _, server := range s.Servers {
		if strconv.Itoa(server.conf.port) == at[1] {
			return server
		}
	}
	s.Sentinels[0].t.Fatalf("no server at %v", at)
	return nil
}

func addrs(servers []*Server) (list []string) {
	for _, s := range servers {
		list = append(list, s.Addr)
	}
	return list
}

// Cluster is three masters with a replica each.
type Cluster struct {
	Masters, Replicas []*Server
	ids               map[*Server]string
	t                 testing.TB
}

const slots = 16384

// StartCluster starts a cluster and waits until all of its nodes agree.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: map[*Server]string{}}
	start := func() *Server {
		bus := freeport.ForTest(t).Number
		s := Start(t, Config{busPort: bus, Args: []string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
			"--cluster-port", strconv.Itoa(bus), "--repl-diskless-sync-delay", "0",
		}})
		c.ids[s] = s.Text("CLUSTER", "MYID")
		return s
	}
	for range 3 {
		c.Masters = append(c.Masters, start())
	}
	for range 3 {
		c.Replicas = append(c.Replicas, start())
	}
	for i, m := range c.Masters {
		from, to := i*slots/len(c.Masters), (i+1)*slots/len(c.Masters)-1
		m.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to))
	}
	first := c.Masters[0]
	for _, s := range c.all()[1:] {
		first.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(s.conf.port), strconv.Itoa(s.conf.busPort))
	}
	for _, s := range c.all() {
		Eventually(t, "all nodes know each other", func() bool {
			return strings.Count(s.Text("CLUSTER", "NODES"), "connected") == len(c.all())
		})
	}
	for i, r := range c.Replicas {
		Eventually(t, "a replica may follow its master", func() bool {
			_, err := r.do("CLUSTER", "REPLICATE", c.ids[c.Masters[i]])
			return err == nil
		})
	}
	for i, r := range c.Replicas {
		Eventually(t, "a replica is in step", func() bool { return r.Info("master_link_status") == "up" })
		Eventually(t, "its master knows it", func() bool { return c.Masters[i].Info("connected_slaves") == "1" })
	}
	for _, s := range c.all() {
		Eventually(t, "the cluster is up", func() bool {
			return strings.Contains(s.Text("CLUSTER", "INFO"), "cluster_state:ok") && c.knowsReplicas(s)
		})
	}
	return c
}

// StartClusterOfOne starts a node that is a cluster by itself: it has all slots, and
// refuses the calls that a cluster refuses. It works with servers before 7.0 too, in
// which the port of the bus cannot be set and ADDSLOTSRANGE does not exist.
func StartClusterOfOne(t testing.TB, c Config) *Server {
	t.Helper()
	c.Args = append([]string{"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freeport.ForTest(t).Number)}, c.Args...)
	s := Start(t, c)
	s.Do("CLUSTER", "ADDSLOTSRANGE", "0", strconv.Itoa(slots-1))
	Eventually(t, "the cluster is up", func() bool { return strings.Contains(s.Text("CLUSTER", "INFO"), "cluster_state:ok") })
	return s
}

// knowsReplicas reports whether the node knows all replicas.
func (c *Cluster) knowsReplicas(s *Server) bool {
	return strings.Count(s.Text("CLUSTER", "NODES"), "slave ") == len(c.Replicas)
}

func (c *Cluster) all() []*Server { return append(append([]*Server(nil), c.Masters...), c.Replicas...) }

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.all()) }

// Healthy reports whether every running node serves all slots.
func (c *Cluster) Healthy() bool {
	for _, s := range c.running() {
		if !strings.Contains(s.try("CLUSTER", "INFO"), "cluster_state:ok") {
			return false
		}
	}
	return true
}

func (c *Cluster) running() (list []*Server) {
	for _, s := range c.all() {
		if s.runs() {
			list = append(list, s)
		}
	}
	return list
}

// member is a node as another node sees it: its role and its slots.
type member struct{ role, slots string }

// view returns all nodes as s sees them, by id; none if s does not answer.
func (c *Cluster) view(s *Server) map[string]member {
	all := map[string]member{}
	for line := range strings.Lines(strings.TrimPrefix(s.try("CLUSTER", "NODES"), "txt:")) { // the prefix of a RESP3 text
		if f := strings.Fields(line); len(f) >= 8 {
			all[f[0]] = member{strings.TrimPrefix(f[2], "myself,"), strings.Join(f[8:], " ")}
		}
	}
	return all
}

// agreed reports whether all running nodes see each other alike, and see exactly one
// master in each pair of master and replica.
func (c *Cluster) agreed() bool {
	running := c.running()
	of := map[string]member{} // as each sees itself
	for _, s := range running {
		of[c.ids[s]] = c.view(s)[c.ids[s]]
	}
	for _, s := range running {
		view := c.view(s)
		for id, self := range of {
			if view[id] != self || self.role != "master" && self.role != "slave" {
				return false
			}
		}
	}
	for i := range c.Masters {
		if (of[c.ids[c.Masters[i]]].role == "master") == (of[c.ids[c.Replicas[i]]].role == "master") {
			return false
		}
	}
	return c.Healthy()
}

// Settle waits until all running nodes agree with each other, and updates Masters and
// Replicas: where a replica has replaced its master, the two swap positions. It returns
// the positions that were swapped.
func (c *Cluster) Settle() (swapped []int) {
	c.t.Helper()
	Eventually(c.t, "the nodes of the cluster agree", c.agreed)
	for i, r := range c.Replicas {
		if c.view(r)[c.ids[r]].role == "master" {
			c.Masters[i], c.Replicas[i] = r, c.Masters[i]
			swapped = append(swapped, i)
		}
	}
	return swapped
}

// Failover makes the i-th replica take over from its master, without losing anything.
func (c *Cluster) Failover(i int) {
	c.t.Helper()
	r := c.Replicas[i]
	r.Do("CLUSTER", "FAILOVER")
	Eventually(c.t, "the replica has taken over", func() bool { return c.view(r)[c.ids[r]].role == "master" })
	c.Settle()
}

// Follow starts the i-th replica again if it does not run, and waits until it is in
// sync with its master.
func (c *Cluster) Follow(i int) {
	c.t.Helper()
	r := c.Replicas[i]
	if !r.runs() {
		r.Restart()
	}
	Eventually(c.t, "the replica is in step", func() bool {
		return r.Info("role") == "slave" && r.Info("master_link_status") == "up" && c.Masters[i].Info("connected_slaves") == "1"
	})
	c.Settle()
}

// Used returns the number of keys in each slot of a node that holds any.
func (c *Cluster) Used(node *Server) map[int]int {
	c.t.Helper()
	found := node.Do("KEYS", "*")
	keys, err := found.AsStrSlice()
	if err != nil {
		c.t.Fatal(err)
	}
	used := map[int]int{}
	for _, key := range keys {
		slot, err := strconv.Atoi(node.Text("CLUSTER", "KEYSLOT", key))
		if err != nil {
			c.t.Fatal(err)
		}
		used[slot]++
	}
	return used
}

// Move moves a slot with its keys from one master to another, as a resharding
// does: key by key, while clients use them.
func (c *Cluster) Move(slot int, from, to *Server) {
	c.t.Helper()
	n := strconv.Itoa(slot)
	to.Do("CLUSTER", "SETSLOT", n, "IMPORTING", c.ids[from])
	from.Do("CLUSTER", "SETSLOT", n, "MIGRATING", c.ids[to])
	for {
		found := from.Do("CLUSTER", "GETKEYSINSLOT", n, "10")
		keys, err := found.AsStrSlice()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.conf.port), "", "0", "5000", "KEYS"}
		from.Do(append(args, keys...)...)
	}
	for _, s := range []*Server{to, from} {
		s.Do("CLUSTER", "SETSLOT", n, "NODE", c.ids[to])
	}
}
