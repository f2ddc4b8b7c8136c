package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// database is an etcd of one member, reachable through a Unix socket only.
type database struct{ etcd *embed.Etcd }

// startDatabase opens the database in dir and returns when it accepts requests at the socket.
func startDatabase(ctx context.Context, dir, socket string, fsync bool, last *lastWords) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create etcd's directory: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Name = "perennial"
	cfg.Dir = dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger().WithOptions(last.options()...))

	client := url.URL{Scheme: "unix", Path: socket}
	cfg.ListenClientUrls = []url.URL{client}
	cfg.AdvertiseClientUrls = []url.URL{client}
	// It has no peers. The address is the member's identity and must never change; nothing listens
	// there.
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Metrics and health have no separate listener either, and the gateway would be an unused second
	// client.
	cfg.EnableGRPCGateway = false

	// A single member elects itself, so a short election timeout is safe.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.UnsafeNoFsync = !fsync
	// kube-apiserver compacts the history every five minutes. A defragmentation at the start of etcd
	// frees the space.
	cfg.BootstrapDefragThresholdMegabytes = 64
	cfg.QuotaBackendBytes = 8 << 30
	// etcd keeps log entries in memory until a snapshot, for members that lag behind. There are none
	// here.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 5000, 100
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 2 * time.Second

	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	db := &database{etcd}
	select {
	case <-etcd.Server.ReadyNotify():
		return db, nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("it stopped by itself")
	case <-ctx.Done():
		err = ctx.Err()
	}
	db.close()
	return nil, fmt.Errorf("start etcd: %w", err)
}

func (d *database) close() { d.etcd.Close() }
