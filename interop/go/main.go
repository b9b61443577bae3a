// Asks an etcd v3 endpoint by etcd's own client and its package concurrency, and prints the answers.
//
// usage: main ENDPOINT VERSION
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"regexp"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

// What every store has of its own.
var masked = regexp.MustCompile(`(cluster_id|member_id|raft_term):\d+ ?`)

func tell(what string, answer interface{}, err error) {
	if err != nil {
		fmt.Printf("%s: %T %v\n", what, err, err)
		return
	}
	fmt.Printf("%s: %s\n", what, masked.ReplaceAllString(fmt.Sprintf("%v", answer), ""))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func keys(ctx context.Context, client *clientv3.Client) {
	put := func(key, value string, options ...clientv3.OpOption) {
		answer, err := client.Put(ctx, key, value, options...)
		tell("put "+key, answer, err)
	}
	get := func(what, key string, options ...clientv3.OpOption) {
		answer, err := client.Get(ctx, key, options...)
		tell("get "+what, answer, err)
	}
	put("a", "1")
	put("a", "2", clientv3.WithPrevKV())
	put("a", "", clientv3.WithIgnoreValue())
	put("none", "", clientv3.WithIgnoreValue())
	put("", "1")
	for i, value := range []string{"9", "8", "7"} {
		put(fmt.Sprintf("p/%d", i), value)
	}
	get("one", "a")
	get("prefix", "p/", clientv3.WithPrefix())
	get("from", "a", clientv3.WithFromKey(), clientv3.WithLimit(2))
	get("past", "a", clientv3.WithRev(2))
	get("future", "a", clientv3.WithRev(1000))
	get("first", "p/", clientv3.WithFirstCreate()...)
	get("last", "p/", clientv3.WithLastRev()...)
	get("count", "p/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	for _, target := range []clientv3.SortTarget{clientv3.SortByKey, clientv3.SortByVersion, clientv3.SortByCreateRevision, clientv3.SortByModRevision, clientv3.SortByValue} {
		for _, order := range []clientv3.SortOrder{clientv3.SortNone, clientv3.SortAscend, clientv3.SortDescend} {
			get(fmt.Sprintf("sorted %d %d", target, order), "p/", clientv3.WithPrefix(), clientv3.WithSort(target, order), clientv3.WithLimit(2))
		}
	}
	nested := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("t", "yes"), clientv3.OpGet("t")}, nil)
	done, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("a"), "=", "2"), clientv3.Compare(clientv3.Version("p/").WithPrefix(), ">", 0)).
		Then(nested, clientv3.OpDelete("p/0", clientv3.WithPrevKV())).
		Else(clientv3.OpGet("a")).
		Commit()
	tell("txn", done, err)
	deleted, err := client.Delete(ctx, "p/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	tell("delete", deleted, err)
	compacted, err := client.Compact(ctx, 3, clientv3.WithCompactPhysical())
	tell("compact", compacted, err)
	_, err = client.Compact(ctx, 3)
	tell("compact again", nil, err)
}

func watches(ctx context.Context, client *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := client.Put(ctx, "w", "0")
	must(err)
	events := client.Watch(ctx, "w", clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV(), clientv3.WithFragment())
	_, err = client.Put(ctx, "w", "1")
	must(err)
	_, err = client.Delete(ctx, "w")
	must(err)
	for count := 0; count < 3; {
		answer := <-events
		must(answer.Err())
		for _, event := range answer.Events {
			tell("event", event, nil)
			count++
		}
	}
	compacted := <-client.Watch(ctx, "a", clientv3.WithRev(2))
	tell("compacted", compacted.CompactRevision, compacted.Err())
}

func leases(ctx context.Context, client *clientv3.Client) {
	lease, err := client.Grant(ctx, 600)
	must(err)
	_, err = client.Put(ctx, "l", "v", clientv3.WithLease(lease.ID))
	must(err)
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(err)
	fmt.Println("lease:", left.GrantedTTL, left.TTL > 0, len(left.Keys))
	beat, err := client.KeepAliveOnce(ctx, lease.ID)
	must(err)
	fmt.Println("beat:", beat.TTL)
	_, err = client.Revoke(ctx, lease.ID)
	must(err)
	_, err = client.Revoke(ctx, lease.ID)
	tell("revoke again", nil, err)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	tell("beat for no lease", nil, err)
}

func recipes(ctx context.Context, client *clientv3.Client) {
	one, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	must(err)
	other, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	must(err)
	held, waiting := concurrency.NewMutex(one, "lock"), concurrency.NewMutex(other, "lock")
	must(held.Lock(ctx))
	locked := make(chan error)
	go func() { locked <- waiting.Lock(ctx) }()
	select {
	case <-locked:
		fmt.Println("two hold the lock")
	case <-time.After(300 * time.Millisecond):
		fmt.Println("the other waits")
	}
	must(held.Unlock(ctx))
	must(<-locked)
	owned, err := client.Txn(ctx).If(waiting.IsOwner()).Commit()
	must(err)
	fmt.Println("the other owns it:", owned.Succeeded)
	must(waiting.Unlock(ctx))

	election, rival := concurrency.NewElection(one, "election"), concurrency.NewElection(other, "election")
	_, err = election.Leader(ctx)
	tell("nobody leads", nil, err)
	must(election.Campaign(ctx, "first"))
	observed := rival.Observe(ctx)
	fmt.Println("observed:", string((<-observed).Kvs[0].Value))
	go func() { locked <- rival.Campaign(ctx, "second") }()
	must(election.Proclaim(ctx, "more"))
	fmt.Println("observed:", string((<-observed).Kvs[0].Value))
	must(election.Resign(ctx))
	must(<-locked)
	fmt.Println("observed:", string((<-observed).Kvs[0].Value))
	must(rival.Resign(ctx))

	done, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
		stm.Put("stm/2", stm.Get("stm/1")+"x")
		stm.Put("stm/1", "y")
		return nil
	}, concurrency.WithIsolation(concurrency.SerializableSnapshot))
	must(err)
	fmt.Println("stm:", done.Succeeded)
	must(one.Close())
	must(other.Close())
}

func maintenance(ctx context.Context, client *clientv3.Client, endpoint string) {
	status, err := client.Status(ctx, endpoint)
	must(err)
	fmt.Println("status:", status.Leader == status.Header.MemberId, status.IsLearner, status.Errors)
	members, err := client.MemberList(ctx)
	must(err)
	fmt.Println("members:", len(members.Members))
	hash, err := client.HashKV(ctx, endpoint, 0)
	must(err)
	fmt.Println("hash:", hash.Hash != 0, hash.CompactRevision)
	_, err = client.Defragment(ctx, endpoint)
	tell("defragment", nil, err)
	_, err = client.MemberRemove(ctx, 4711)
	tell("remove", nil, err)
}

func main() {
	endpoint := os.Args[1]
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second})
	must(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	keys(ctx, client)
	watches(ctx, client)
	leases(ctx, client)
	recipes(ctx, client)
	maintenance(ctx, client, endpoint)
}
